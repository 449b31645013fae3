"""The only file that knows how an NNX module becomes a pure function over pure dicts."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import PRNGKeyArray

from ecgjax.core.interfaces import Tree


class Functional:
    """A module split once into its graph and pure dicts: `init` draws them, `apply` merges and calls.

    `make` builds the module from an `nnx.Rngs`. It may hold parameters (`nnx.Param`) and batch statistics
    (`nnx.BatchStat`) and nothing else. Host cost of the pure-dict form equals Linen's; `nnx.jit` costs 7 to 17
    times as much.
    """

    def __init__(self, make: Callable[[nnx.Rngs], nnx.Module]):
        self._make = make
        module = nnx.eval_shape(lambda: make(_rngs(jax.random.key(0))))
        self._graph, params, stats, rest = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
        if jax.tree.leaves(rest):
            raise TypeError(
                f"{type(module).__name__} holds state that is neither Param nor BatchStat: {rest}."
            )
        self._params, self._stats = params, stats

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws parameters and batch statistics as pure dicts."""
        _, params, stats = nnx.split(self._make(_rngs(key)), nnx.Param, nnx.BatchStat)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def apply(
        self, params: Tree, stats: Tree, *args: Any, method: str = "__call__", **kwargs: Any
    ) -> tuple[Any, Tree]:
        """Calls the module; returns its output and the batch statistics after the call."""
        module = nnx.merge(self._graph, _fill(self._params, params), _fill(self._stats, stats))
        out = getattr(module, method)(*args, **kwargs)
        return out, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))


class _Stream(nnx.RngStream):
    """Gives the keys that flax would give, but counts them in Python.

    A count that is traced is set through `Variable.set_value`, which asks a tracer for its sharding, and jax searches
    the program so far for what to say of it. That was half of the time to trace the parameters of a ViT, and more the
    more there are.
    """

    given = 0

    def __call__(self) -> PRNGKeyArray:
        key = jax.random.fold_in(self.key[...], self.given)
        self.given += 1
        return key


def _rngs(key: PRNGKeyArray) -> nnx.Rngs:
    rngs = nnx.Rngs(params=key)
    rngs.params = _Stream(key, tag="params")
    return rngs


def _fill(state: nnx.State, tree: Tree) -> nnx.State:
    """Puts the leaves of a pure dict into `state`; both hold the same keys, in the same order."""
    expected = jax.tree.structure(nnx.to_pure_dict(state))
    found = jax.tree.structure(tree)
    if expected != found:
        raise ValueError(f"the tree does not fit the module: expected {expected}, found {found}.")
    return jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(tree))
