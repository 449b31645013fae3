"""Compiles small programs for v5e:4x4 without a TPU and leaves their texts and costs; run in a process of its own.

python compile_small_programs.py DIRECTORY
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DEVICES = topologies.get_topology_desc("v5e:4x4", platform="tpu").devices
MESH = Mesh(np.array(DEVICES).reshape(4, 4), ("x", "y"), axis_types=(AxisType.Auto,) * 2)
ALL = ("x", "y")
WHOLE = P()
RING = [(i, (i + 1) % 16) for i in range(16)]


def array(shape, spec=WHOLE, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(MESH, spec))


def on_each(function, in_specs, out_specs):
    return jax.shard_map(function, mesh=MESH, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def permutes(x):
    return lax.scan(lambda c, _: (lax.ppermute(c, ALL, RING) * 1.5, None), x, None, length=15)[0]


def network(weights, x):
    def loss(weights):
        y, _ = lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, weights)
        return (y**2).mean()

    return jax.value_and_grad(loss)(weights)


def convolutions(x, *kernels):
    def loss(kernels):
        y = x
        for stride, kernel in enumerate(kernels, start=1):
            y = lax.conv_general_dilated(y, kernel, (stride,) * 2, "SAME", dimension_numbers=_NHWC)
            y = jax.nn.relu(y)
        return (y.astype(jnp.float32) ** 2).mean()

    return jax.value_and_grad(loss)(kernels)


_NHWC = ("NHWC", "HWIO", "NHWC")
_BF16 = jnp.bfloat16
_MEBI = 2**20
_KERNELS = (array((3, 3, 16, 64), WHOLE, _BF16), array((3, 3, 64, 64), WHOLE, _BF16))

PROGRAMS = {
    "psum": (on_each(lambda x: lax.psum(x, ALL), WHOLE, WHOLE), (array((_MEBI,)),)),
    "psum_bf16": (on_each(lambda x: lax.psum(x, ALL), WHOLE, WHOLE), (array((_MEBI,), WHOLE, _BF16),)),
    "psum_of_4": (on_each(lambda x: lax.psum(x, "y"), WHOLE, WHOLE), (array((_MEBI,)),)),
    "all_gather": (
        on_each(lambda x: lax.all_gather(x, ALL, tiled=True), P(ALL), WHOLE),
        (array((16 * _MEBI,), P(ALL)),),
    ),
    "permutes": (on_each(permutes, WHOLE, WHOLE), (array((_MEBI,)),)),
    "two_psums": (
        on_each(lambda x, y: (lax.psum(x, ALL), lax.psum(y, ALL)), (WHOLE, WHOLE), (WHOLE, WHOLE)),
        (array((1000,)), array((3000,))),
    ),
    "traced_bound": (
        lambda n, x: lax.fori_loop(0, n, lambda _, c: jnp.sin(c @ c), x),
        (array((), WHOLE, jnp.int32), array((256, 256))),
    ),
    "matmul": (lambda a, b: a @ b, (array((1024, 2048), WHOLE, _BF16), array((2048, 512), WHOLE, _BF16))),
    "scanned": (network, (array((8, 512, 512), WHOLE, _BF16), array((2048, 512), P(ALL), _BF16))),
    "low_effort": (convolutions, (array((128, 32, 32, 16), P(ALL), _BF16), *_KERNELS)),
}


def main(directory: pathlib.Path) -> None:
    costs = {}
    for name, (function, arguments) in PROGRAMS.items():
        options = {"exec_time_optimization_effort": -1.0} if name == "low_effort" else None
        compiled = jax.jit(function).lower(*arguments).compile(options)
        (directory / f"{name}.txt").write_text(compiled.as_text())
        costs[name] = {key: compiled.cost_analysis().get(key) for key in ("flops", "bytes accessed")}
    coordinates = [list(device.coords) for device in DEVICES]
    (directory / "costs.json").write_text(json.dumps({"coordinates": coordinates, "costs": costs}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
