"""What the compiler says of programs whose memory is known beforehand."""

import functools

import jax
import jax.numpy as jnp
import pytest

from ecgjax.plans import compiling, topologies

ONE = topologies.parse("v5e:1x1")
GIB = 2**30


def compiled(function, gib, *, donate):
    """Compiles a function of one float32 array of so many GiB, for one v5e."""
    devices = compiling.devices(ONE)
    sharding = jax.sharding.SingleDeviceSharding(devices[0])
    array = jax.ShapeDtypeStruct((int(gib * 2**21), 128), "float32", sharding=sharding)
    lowered = jax.jit(function, donate_argnums=0 if donate else ()).lower(array)
    return compiling.compile_lowered(
        lowered, ONE, devices, effort="fast", batch_size=1, model_flops=0, state_bytes={"batch": 0}
    )


def double(x):
    return x * 2


def test_ten_gib_donated_fit(libtpu):
    found = compiled(double, 10, donate=True)
    assert found.error is None
    assert found.memory.arguments == found.memory.outputs == found.memory.aliased == 10 * GIB
    assert found.memory.upper_bound == found.memory.peak == 10 * GIB
    assert found.memory.available == int(15.75 * GIB)


def test_twice_eight_gib_do_not_and_the_answer_says_so(libtpu):
    found = compiled(double, 8, donate=False)
    assert found.memory is None
    assert found.program is None
    assert found.error == "does not fit: needs 16.00 GiB of the 15.75 GiB that XLA may use of a device"
    assert found.needed == 16 * GIB


def test_temporaries_count_on_a_cpu_too():
    """Its own peak leaves them out: here 1 MiB is given, 16 are made of it, 4 bytes come back."""

    def outer(x):
        return jnp.sum(jnp.sin(jnp.dot(x[:, None], x[None, :])), axis=1)

    topology = topologies.parse("local:1")
    lowered = jax.jit(outer).lower(jnp.zeros(2048))
    found = compiling.compile_lowered(
        lowered, topology, jax.devices()[:1], effort="full", batch_size=1, model_flops=0, state_bytes={}
    )
    assert found.memory.temporaries >= 16 * 2**20
    assert found.memory.peak == found.memory.upper_bound


def test_another_refusal_is_one_line(monkeypatch):
    def refuse(self, options):
        raise jax.errors.JaxRuntimeError("INTERNAL: Mosaic failed\nand much more")

    lowered = jax.jit(double).lower(jnp.zeros(3))
    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    with pytest.raises(
        compiling.CompileError, match=r"^v5e:1x1: the compiler says: INTERNAL: Mosaic failed$"
    ):
        compiling.compile_lowered(
            lowered, ONE, (), effort="full", batch_size=1, model_flops=0, state_bytes={}
        )


def test_a_report_is_that_of_program_place_and_effort():
    local = topologies.parse("local:1")
    lower = functools.partial(jax.jit(lambda x: jnp.sin(x)).lower)
    a, b = lower(jnp.zeros(3)), lower(jnp.zeros(4))
    assert compiling.digest(a, local, "fast") == compiling.digest(lower(jnp.zeros(3)), local, "fast")
    digests = {
        compiling.digest(a, local, "fast"),
        compiling.digest(b, local, "fast"),
        compiling.digest(a, local, "full"),
        compiling.digest(a, topologies.parse("local:2"), "fast"),
    }
    assert len(digests) == 4


def test_local_devices_are_those_of_the_machine():
    assert len(compiling.devices(topologies.parse("local:8"))) == 8
    with pytest.raises(ValueError, match=r"--topology=local:9: this machine has 8 device\(s\); give local:8"):
        compiling.devices(topologies.parse("local:9"))
