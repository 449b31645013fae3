import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ecgjax.core import mesh as meshes
from ecgjax.train.once import Once, counting


def double(batch):
    return jax.tree.map(lambda x: 2 * x, batch)


@pytest.fixture(scope="module")
def mesh():
    return meshes.make_mesh()


@pytest.fixture(scope="module")
def once(mesh):
    """Compiled for eight numbers, split over eight devices."""
    once = Once(jax.jit(double, in_shardings=meshes.batch_sharding(mesh)), "doubling")
    once(place(np.zeros(8, np.float32), mesh))
    return once


SPLIT = P(meshes.AXES)


def place(x, mesh, spec=SPLIT):
    return {"x": jax.device_put(x, NamedSharding(mesh, spec))}


def test_many_calls_compile_once(mesh):
    def triple(batch):
        return jax.tree.map(lambda x: 3 * x, batch)

    batch = place(np.arange(8.0, dtype=np.float32), mesh)
    once = Once(jax.jit(triple), "tripling")
    with counting() as compilations:
        results = [once(batch) for _ in range(3)]
    assert compilations["triple"] == 1
    np.testing.assert_array_equal(results[2]["x"], 3 * np.arange(8))


def test_counting_sees_a_function_that_compiles_again():
    def halve(x):
        return x / 2

    jitted = jax.jit(halve)
    with counting() as compilations:
        jitted(np.zeros(2, np.float32))
        jitted(np.zeros(3, np.float32))
    jitted(np.zeros(4, np.float32))
    assert compilations["halve"] == 2


@pytest.mark.parametrize(
    ("x", "spec", "difference"),
    [
        (
            np.zeros(16, np.float32),
            P(meshes.AXES),
            r"x.*compiled with float32\[8\] and called with float32\[16\]",
        ),
        (np.zeros(8, np.int32), SPLIT, r"x.*compiled with float32\[8\] and called with int32\[8\]"),
        (np.zeros(8, np.float32), P(), r"Passed sharding: .*P\(\)"),
    ],
    ids=["shape", "dtype", "sharding"],
)
def test_arguments_that_differ_are_refused_with_the_difference(once, mesh, x, spec, difference):
    with counting() as compilations, pytest.raises(ValueError, match="the doubling is compiled") as error:
        once(place(x, mesh, spec))
    assert re.search(difference, str(error.value))
    assert compilations["double"] == 0


def test_another_key_in_the_batch_is_refused(once, mesh):
    batch = place(np.zeros(8, np.float32), mesh)
    with pytest.raises(ValueError, match=r"(?s)the doubling is compiled.*\{'y'\}"):
        once({**batch, "y": batch["x"]})


def test_the_first_call_says_whether_the_cache_had_the_program(tmp_path, capsys):
    before = {name: getattr(jax.config, name) for name in CACHE}
    try:
        for name, value in zip(CACHE, (str(tmp_path), 0.0, -1), strict=True):
            jax.config.update(name, value)
        for said in (r"sums: traced in ", "read from the compile cache in "):
            # A new function of the same text: jax itself remembers none of it.
            Once(jax.jit(lambda x: jnp.cumsum(x)), "sums")(jnp.zeros(3))
            assert said in capsys.readouterr().err
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


CACHE = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)
