"""FLOPs of a function, counted in its jaxpr: products and convolutions, two for every multiply-add.

Nothing is compiled or run. What a program does beside (elementwise work, FFT, sorting) is not counted.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.extend import core

from ecgjax.core.interfaces import Objective


def count(function: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """FLOPs of `function` on arrays or their shapes, over all devices.

    A convolution counts the multiply-adds that meet an element: not its padding, nor the holes of a dilation, so
    that each of its two gradients costs what it does. A branch counts as its dearest alternative. A while loop
    whose trips depend on data is an error where it holds a product.
    """
    return _total(jax.make_jaxpr(function)(*args, **kwargs).jaxpr)


def model_flops(objective: Objective, batch: Mapping[str, Any]) -> int:
    """FLOPs of loss, metrics and gradient of an objective on a global batch: the numerator of MFU.

    `batch` holds arrays or their shapes. `jax.checkpoint` is undone first: what is repeated to save memory is no work
    of the model. What a hand-written gradient repeats cannot be told from the rest, and counts.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, extra = jax.eval_shape(objective.init, key)

    def loss(params, extra, batch, key):
        return objective.loss(params, extra, batch, key, train=True)[0]

    args = params, extra, {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()}, key
    return count(jax.value_and_grad(without_recomputation(loss, *args)), *args)


def without_recomputation(function: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """Returns `function` for arguments of these shapes, with every `jax.checkpoint` saving all it computes."""
    closed, out = jax.make_jaxpr(function, return_shape=True)(*args)
    run = core.jaxpr_as_fun(_saving(closed))

    def call(*args):
        return jax.tree.unflatten(jax.tree.structure(out), run(*jax.tree.leaves(args)))

    return call


def _saving(jaxpr):
    """A jaxpr, closed or open, or a sequence of them, with the policy of every checkpoint in it opened."""
    if isinstance(jaxpr, core.ClosedJaxpr):
        return jaxpr.replace(jaxpr=_saving(jaxpr.jaxpr))
    if isinstance(jaxpr, core.Jaxpr):
        return jaxpr.replace(eqns=[_saving_equation(eqn) for eqn in jaxpr.eqns])
    if isinstance(jaxpr, tuple | list):
        return type(jaxpr)(_saving(part) for part in jaxpr)
    return jaxpr


def _saving_equation(eqn):
    params = {name: _saving(value) if _holds_jaxpr(value) else value for name, value in eqn.params.items()}
    if eqn.primitive is core.primitives.remat_p:
        params["policy"] = jax.checkpoint_policies.everything_saveable
    return eqn.replace(params=params)


def _holds_jaxpr(value) -> bool:
    parts = value if type(value) in (tuple, list) else (value,)
    return any(isinstance(part, core.Jaxpr | core.ClosedJaxpr) for part in parts)


def _total(jaxpr) -> int:
    return sum(_equation(eqn) for eqn in jaxpr.eqns)


def _equation(eqn) -> int:
    rule = _RULES.get(eqn.primitive.name)
    if rule is not None:
        return rule(eqn)
    return sum(_total(inner) for inner in core.jaxprs_in_params(eqn.params))


def _product(eqn) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    depth = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
    return 2 * depth * eqn.outvars[0].aval.size


def _convolution(eqn) -> int:
    """Kernel and map meet in pairs of positions, axis by axis; each pair is a product over channels."""
    params, (image, kernel) = eqn.params, (v.aval.shape for v in eqn.invars)
    out, numbers = eqn.outvars[0].aval.shape, params["dimension_numbers"]
    batch, features, *_ = numbers.out_spec
    pairs = math.prod(
        _pairs(image[i], kernel[k], out[o], stride, before, hole, spread)
        for i, k, o, stride, (before, _), hole, spread in zip(
            numbers.lhs_spec[2:],
            numbers.rhs_spec[2:],
            numbers.out_spec[2:],
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            strict=True,
        )
    )
    return 2 * out[batch] * out[features] * kernel[numbers.rhs_spec[1]] * pairs


def _pairs(length, taps, positions, stride, before, hole, spread) -> int:
    """How many (output position, kernel tap) of one axis read an element of the input."""
    return sum(
        0 <= at <= (length - 1) * hole and at % hole == 0
        for position in range(positions)
        for tap in range(taps)
        for at in (position * stride - before + tap * spread,)
    )


def _scan(eqn) -> int:
    return eqn.params["length"] * _total(eqn.params["jaxpr"].jaxpr)


def _while(eqn) -> int:
    once = _total(eqn.params["cond_jaxpr"].jaxpr) + _total(eqn.params["body_jaxpr"].jaxpr)
    if once:
        raise ValueError(
            f"a while loop holds {once} FLOPs a trip and its trips depend on data; give the loop a fixed number of "
            f"trips (jax.lax.scan, or fori_loop with constant bounds) to count it."
        )
    return 0


def _cond(eqn) -> int:
    return max(_total(branch.jaxpr) for branch in eqn.params["branches"])


def _shard_map(eqn) -> int:
    mesh, manual = eqn.params["mesh"], eqn.params["newly_manual_axes"]
    return math.prod(mesh.shape[axis] for axis in manual) * _total(eqn.params["jaxpr"])


def _kernel(eqn) -> int:
    estimate = eqn.params["cost_estimate"]
    if estimate is None:
        raise ValueError("a Pallas kernel does not say what it costs; give its pallas_call a cost_estimate.")
    return int(estimate.flops)


_RULES: dict[str, Callable[[Any], int]] = {
    "dot_general": _product,
    "conv_general_dilated": _convolution,
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "shard_map": _shard_map,
    "pallas_call": _kernel,
}
"""By the primitive's name; every other equation is as dear as the jaxprs in it: calls, checkpoints, custom rules."""
