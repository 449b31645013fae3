"""Initialising one run from another's checkpoint, by path rules, with every leaf accounted for."""

import dataclasses
import re
from collections.abc import Sequence

import jax
import numpy as np

from ecgjax.core import mesh as meshes
from ecgjax.core import trees
from ecgjax.core.interfaces import Tree
from ecgjax.models.posemb import resize_positions


@dataclasses.dataclass(frozen=True)
class Account:
    """Where every leaf went: copied, left as drawn in the target, or unused in the source.

    `resized` are those among the copied whose time axis was interpolated.
    """

    copied: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    resized: tuple[str, ...] = ()

    def __str__(self):
        lines = [
            f"{len(self.copied)} leaves copied, {len(self.fresh)} left as drawn, {len(self.unused)} unused"
        ]
        lines += [f"  resized in time: {line}" for line in self.resized]
        lines += [f"  as drawn: {name}" for name in _branches(self.fresh)]
        lines += [f"  unused: {name}" for name in _branches(self.unused)]
        return "\n".join(lines)


def transfer(
    target: Tree, source: Tree, *, rules: Sequence[tuple[str, str]], rows: int | None = None
) -> tuple[Tree, Account]:
    """Copies leaves of `source` into `target` where a rule (regex, replacement) maps a source path to a target one.

    The first matching rule decides. A mapped path that the target lacks stays unused; shapes that differ, and
    rules under which nothing was copied, are errors. Only learnable positions of another number of time columns
    are interpolated (bicubic), for which `rows` says how many rows of tokens the leads make.
    """
    wanted, given = trees.flatten(target), trees.flatten(source)
    chosen: dict[str, str] = {}
    for name in given:
        mapped = place(name, rules)
        if mapped is None or mapped not in wanted:
            continue
        if mapped in chosen:
            raise ValueError(
                f"{chosen[mapped]} and {name} both map to {mapped}; make config.init_from.rules unambiguous."
            )
        chosen[mapped] = name
    if not chosen:
        raise ValueError(
            f"config.init_from.rules {list(rules)} copy nothing: the source holds {_branches(given)}, "
            f"the target {_branches(wanted)}."
        )
    moved, resized = {}, []
    for mapped, name in chosen.items():
        moved[mapped] = leaf = given[name]
        if leaf.shape != wanted[mapped].shape:
            moved[mapped] = _resized(name, leaf, mapped, wanted[mapped].shape, rows)
            resized.append(f"{mapped}: {leaf.shape[1] - 1} to {wanted[mapped].shape[1] - 1} positions")
    leaves = [moved.get(name, leaf) for name, leaf in wanted.items()]
    account = Account(
        copied=tuple(chosen),
        fresh=tuple(name for name in wanted if name not in chosen),
        unused=tuple(name for name in given if name not in chosen.values()),
        resized=tuple(resized),
    )
    return jax.tree.unflatten(jax.tree.structure(target), leaves), account


def place(name: str, rules: Sequence[tuple[str, str]]) -> str | None:
    """Where the first rule that takes a source path would have its leaf; None where no rule does."""
    for pattern, replacement in rules:
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    return None


def _resized(name, leaf, mapped, shape, rows) -> np.ndarray:
    """Positions `leaf` at the number of columns of `shape`; any other difference of shapes is an error."""
    if not mapped.endswith("positions") or leaf.ndim != 3 or (leaf.shape[0], leaf.shape[2]) != (1, shape[2]):
        raise ValueError(
            f"{name} has shape {leaf.shape}, {mapped} needs {shape}; use the encoder settings of the source run, or "
            f"rules that leave this leaf out."
        )
    if rows is None or (leaf.shape[1] - 1) % rows or (shape[1] - 1) % rows:
        raise ValueError(
            f"{name} holds {leaf.shape[1] - 1} positions, {mapped} needs {shape[1] - 1}, and {rows} rows of leads "
            f"divide not both: only another number of time columns can be interpolated. Use the leads and patches of "
            f"the source run, or rules that leave this leaf out."
        )
    return resize_positions(meshes.to_host(leaf)[0], leads=rows, columns=(shape[1] - 1) // rows)[None]


def _branches(names) -> list[str]:
    return sorted({"/".join(name.split("/")[:3]) for name in names})
