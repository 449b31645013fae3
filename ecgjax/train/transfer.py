"""Initialising one run from another's checkpoint, by path rules, with every leaf accounted for."""

import dataclasses
import re
from collections.abc import Sequence

import jax

from ecgjax.core import trees
from ecgjax.core.interfaces import Tree


@dataclasses.dataclass(frozen=True)
class Account:
    """Where every leaf went: copied, left as drawn in the target, or unused in the source."""

    copied: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self):
        lines = [
            f"{len(self.copied)} leaves copied, {len(self.fresh)} left as drawn, {len(self.unused)} unused"
        ]
        lines += [f"  as drawn: {name}" for name in _branches(self.fresh)]
        lines += [f"  unused: {name}" for name in _branches(self.unused)]
        return "\n".join(lines)


def transfer(target: Tree, source: Tree, *, rules: Sequence[tuple[str, str]]) -> tuple[Tree, Account]:
    """Copies leaves of `source` into `target` where a rule (regex, replacement) maps a source path to a target one.

    The first matching rule decides. A mapped path that the target lacks stays unused; shapes that differ, and
    rules under which nothing was copied, are errors.
    """
    wanted, given = trees.flatten(target), trees.flatten(source)
    chosen: dict[str, str] = {}
    for name in given:
        mapped = _map(name, rules)
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
    for mapped, name in chosen.items():
        if given[name].shape != wanted[mapped].shape:
            raise ValueError(
                f"{name} has shape {given[name].shape}, {mapped} needs {wanted[mapped].shape}; use the encoder "
                f"settings of the source run, or rules that leave this leaf out."
            )
    leaves = [given[chosen[name]] if name in chosen else leaf for name, leaf in wanted.items()]
    account = Account(
        copied=tuple(chosen),
        fresh=tuple(name for name in wanted if name not in chosen),
        unused=tuple(name for name in given if name not in chosen.values()),
    )
    return jax.tree.unflatten(jax.tree.structure(target), leaves), account


def _map(name: str, rules: Sequence[tuple[str, str]]) -> str | None:
    for pattern, replacement in rules:
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    return None


def _branches(names) -> list[str]:
    return sorted({"/".join(name.split("/")[:3]) for name in names})
