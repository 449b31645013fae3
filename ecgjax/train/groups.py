"""Which parameters share a rate and which are decayed, told by their paths."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import jax
import optax

from ecgjax.core import trees
from ecgjax.core.interfaces import Tree

TRAINED, FROZEN = "trained", "frozen"
"""The groups of parameters that no named group takes."""

_BLOCK = re.compile(r"^(?P<tower>(?:.*/)?)blocks/(?P<index>\d+)/")
_FIRST = re.compile(r"^(?P<tower>(?:.*/)?)(?:cls_token|mask_token|positions|patch_embed/[^/]+)$")


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters with a rate of their own: those whose path the regex `paths` finds.

    The rate is `scale` times the schedule, or `learning_rate` throughout. `weight_decay` replaces the optimiser's.
    """

    paths: str
    scale: float | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None

    def __post_init__(self):
        if self.scale is not None and self.learning_rate is not None:
            raise ValueError(
                f"config.optimizer.groups: scale {self.scale} and learning_rate {self.learning_rate} of the group "
                f"{self.paths!r} exclude each other; keep one."
            )


def split(
    transforms: Mapping[str, optax.GradientTransformation],
    *,
    groups: Mapping[str, Group],
    frozen: Sequence[str] = (),
) -> optax.GradientTransformation:
    """One transformation a group, each of which sees its own parameters only, norms included.

    The first group that finds a path takes it, the rest goes to `trained`. What one of the regexes `frozen` finds
    is never updated and holds no moments.
    """

    def labels(tree: Tree) -> Tree:
        return label(tree, groups=groups, frozen=frozen)

    return optax.partition({**transforms, FROZEN: optax.set_to_zero()}, labels)


def label(params: Tree, *, groups: Mapping[str, Group], frozen: Sequence[str] = ()) -> Tree:
    """The group of every parameter; one that finds nothing to train is an error that lists the paths."""
    patterns = {FROZEN: "|".join(f"(?:{path})" for path in frozen)} if frozen else {}
    patterns |= {name: group.paths for name, group in groups.items()}

    def choose(name: str, _) -> str:
        return next((group for group, pattern in patterns.items() if re.search(pattern, name)), TRAINED)

    chosen = trees.map_named(choose, params)
    found = set(jax.tree.leaves(chosen))
    if empty := [name for name in groups if name not in found]:
        branches = sorted({"/".join(name.split("/")[:3]) for name in trees.flatten(params)})
        raise ValueError(
            f"config.optimizer.groups.{empty[0]}.paths is {groups[empty[0]].paths!r}, which finds no parameter that "
            f"is trained and in no group before; there are {', '.join(branches)}."
        )
    return chosen


def decay_mask(params: Tree, no_decay: Sequence[str] = ()) -> Tree:
    """True where weight decay acts: two or more dimensions, no bias, found by none of the regexes `no_decay`."""

    def decayed(name: str, leaf: jax.Array) -> bool:
        return (
            leaf.ndim > 1
            and not name.endswith("/bias")
            and not any(re.search(pattern, name) for pattern in no_decay)
        )

    return trees.map_named(decayed, params)


def layer_scales(params: Tree, decay: float) -> Tree:
    """Layer-wise decay of the rate, as in the released fine-tuning: `decay` to the number of layers above.

    In a tower of n transformer blocks (paths `.../blocks/<i>/...`) patch embedding, tokens and positions are
    layer 0, block i is layer i + 1, and everything else is layer n + 1, whose rate is the full one.
    """
    depths: dict[str, int] = {}
    for name in trees.flatten(params):
        if match := _BLOCK.match(name):
            depths[match["tower"]] = max(depths.get(match["tower"], 0), int(match["index"]) + 1)
    if not depths:
        raise ValueError(
            f"config.optimizer.layer_decay is {decay}, but no parameter lies in blocks/<i>/: only transformers have "
            f"layers to tell apart. Set it to None."
        )

    def scale(name: str, _) -> float:
        if match := _BLOCK.match(name):
            return decay ** (depths[match["tower"]] - int(match["index"]))
        match = _FIRST.match(name)
        return decay ** (depths[match["tower"]] + 1) if match and match["tower"] in depths else 1.0

    return trees.map_named(scale, params)


def scale_layers(*, layer_decay: float) -> optax.GradientTransformation:
    """Multiplies finished updates, decay included, by `layer_scales`."""
    if not 0 < layer_decay <= 1:
        raise ValueError(f"config.optimizer.layer_decay is {layer_decay}; it must lie in (0, 1].")

    def scale(updates: Tree, params: Tree) -> Tree:
        scales = layer_scales(params, layer_decay)
        return jax.tree.map(lambda update, factor: update * factor, updates, scales)

    return optax.stateless(scale)
