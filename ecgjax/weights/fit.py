"""Tensors of a PyTorch state dict put into our trees and taken out of them, with every one accounted for."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from ecgjax.core import trees
from ecgjax.core.interfaces import Tree
from ecgjax.models.posemb import resize_positions, sincos_positions
from ecgjax.weights.names import from_torch, leaf_of, name_of, to_torch
from ecgjax.weights.states import State

_COUNTER = "num_batches_tracked"
_MAY_BE_DRAWN = ("pool_norm", "attention_pool", "head", "projector", "predictor")
"""Parts that published files leave out; a file that lacks anything else is damaged or of another model."""


@dataclasses.dataclass(frozen=True)
class TorchAccount:
    """Where every tensor and every leaf went.

    `copied` and `resized` pair torch name and leaf; `missing` are leaves that the file lacks and that stay as drawn;
    `surplus` are tensors that we have no leaf for; `tables` are positions that equal our fixed ones; `counters` of
    batch norms are not kept; `cast` lists tensors by another number type than float32.
    """

    copied: tuple[tuple[str, str], ...]
    resized: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    tables: tuple[str, ...]
    counters: int
    cast: tuple[str, ...]

    def __str__(self):
        heads = [
            f"{len(self.copied)} tensors copied, {len(self.resized)} resized, {len(self.missing)} of our leaves left "
            f"as drawn, {len(self.surplus)} tensors without a place here, {self.counters} counters of batch norms "
            f"dropped"
        ]
        heads += [f"  resized in time (bicubic): {line}" for line, _ in self.resized]
        heads += [f"  as drawn: {line}" for line in self.missing]
        heads += [f"  no place: {line}" for line in self.surplus]
        heads += [f"  equal to our fixed table: {line}" for line in self.tables]
        if self.cast:
            heads.append(f"  to float32: {len(self.cast)} tensors, such as {self.cast[0]}")
        return "\n".join(heads)

    def lines(self) -> str:
        """The account, and one line a tensor copied."""
        return "\n".join([str(self), *(f"{name} -> {leaf}" for name, leaf in (*self.copied, *self.resized))])


def fit(state: State, params: Tree, extra: Tree, *, rows: int, where: str) -> tuple[Tree, Tree, TorchAccount]:
    """Copies the tensors of `state` to the leaves that they belong to.

    `rows` is the number of token rows along the leads, which the positions need where their columns change. Of
    arrays or shapes alike; leaves that the file lacks are returned as given.
    """
    wanted = {**trees.flatten(params), **trees.flatten(extra)}
    values: dict[str, np.ndarray] = {}
    copied, resized, surplus, tables, cast = [], [], [], [], []
    counters = 0
    for name, tensor in state.items():
        leaf = leaf_of(name)
        if name.endswith(_COUNTER):
            counters += 1
        elif leaf in wanted:
            value = _checked(name, tensor, where)
            if tensor.dtype != np.float32:
                cast.append(f"{name} ({tensor.dtype})")
            value, was_resized = _shaped(name, from_torch(name, value), wanted[leaf].shape, rows, where)
            values[leaf] = value
            (resized if was_resized else copied).append((f"{name} {tensor.shape}", leaf))
        elif name.endswith("pos_embed"):
            _check_table(name, tensor, rows, where)
            tables.append(f"{name} {tensor.shape}")
        else:
            surplus.append(f"{name} {tensor.shape} {tensor.dtype}")
    missing = [leaf for leaf in wanted if leaf not in values]
    if damaged := [leaf for leaf in missing if _part(leaf) not in _MAY_BE_DRAWN]:
        lacks = ", ".join(f"{name_of(leaf)} {tuple(wanted[leaf].shape)}" for leaf in damaged[:4])
        raise ValueError(
            f"{where} lacks {len(damaged)} tensors that this model has, such as {lacks}; it is incomplete, or of "
            f"another model."
        )
    account = TorchAccount(
        copied=tuple(copied),
        resized=tuple(resized),
        missing=tuple(f"{leaf} {tuple(wanted[leaf].shape)}" for leaf in missing),
        surplus=tuple(surplus),
        tables=tuple(tables),
        counters=counters,
        cast=tuple(cast),
    )

    def fill(tree):
        return trees.map_named(lambda leaf, old: values.get(leaf, old), tree)

    return fill(params), fill(extra), account


def unfit(
    params: Tree, extra: Tree, *, patch_leads: int, tables: Mapping[str, np.ndarray], prefixed: bool
) -> dict[str, np.ndarray]:
    """The tensors of our trees by torch name, in torch's layout and in our order.

    `tables` are positions that are fixed with us, by torch name. Counters of batch norms are written as 0.
    """
    leaves = trees.flatten(jax.device_get(_merge(params, extra)))
    probe = any(leaf.startswith("ecg/head/norm/") for leaf in leaves)
    state = dict(tables)
    for leaf, value in leaves.items():
        name = name_of(leaf, prefixed=prefixed, probe=probe)
        if name is None:
            raise ValueError(
                f"{leaf} has no name in the published files; this workdir cannot be written as one."
            )
        state[name] = np.ascontiguousarray(to_torch(name, value, patch_leads=patch_leads))
        if name.endswith("running_var"):
            state[f"{name.removesuffix('running_var')}{_COUNTER}"] = np.zeros((), np.int64)
    return state


def matching_frequencies(tensor: np.ndarray, *, rows: int) -> str | None:
    """The precision of the sine-cosine table that `tensor` is bit by bit; None where it is neither's."""
    columns, width = (tensor.shape[1] - 1) // rows, tensor.shape[2]
    for frequencies in ("float64", "float32"):
        table = sincos_positions(leads=rows, columns=columns, width=width, frequencies=frequencies)
        if np.array_equal(tensor[0], table):
            return frequencies
    return None


def _part(leaf: str) -> str:
    """The part of a tower, or of its encoder, that a leaf belongs to."""
    _, part, *rest = leaf.split("/")
    return rest[0] if part == "encoder" else part


def _merge(a: Tree, b: Tree) -> dict:
    """One tree of two that share inner nodes and no leaf."""
    merged = dict(a)
    for key, value in b.items():
        merged[key] = _merge(merged[key], value) if key in merged else value
    return merged


def _checked(name: str, tensor: np.ndarray, where: str) -> np.ndarray:
    if tensor.dtype.kind != "f":
        raise ValueError(
            f"{where}: {name} is {tensor.dtype}, weights are floating point; quantised models are not read."
        )
    value = np.asarray(tensor, np.float32)
    if not np.isfinite(value).all():
        raise ValueError(
            f"{where}: {name} holds values that are not finite; the training that made it diverged."
        )
    return value


def _shaped(name, value, shape, rows, where) -> tuple[np.ndarray, bool]:
    if value.shape == shape:
        return value, False
    if name.endswith("pos_embed") and value.ndim == 3 and value.shape[::2] == shape[::2]:
        columns, rest = divmod(shape[1] - 1, rows)
        assert rest == 0, (shape, rows)
        if (value.shape[1] - 1) % rows:
            raise ValueError(
                f"{where}: {name} has {value.shape[1] - 1} positions, no whole number of columns for {rows} rows of "
                f"leads; give --leads as the model was trained on."
            )
        return resize_positions(value[0], leads=rows, columns=columns)[None], True
    raise ValueError(
        f"{where}: {name} gives shape {value.shape} (our layout), this model needs {tuple(shape)}."
    )


def _check_table(name: str, tensor: np.ndarray, rows: int, where: str) -> None:
    """Positions that are fixed with us must be the ones of the file."""
    width, tokens = tensor.shape[-1], tensor.shape[1] - 1
    table = sincos_positions(leads=rows, columns=tokens // rows, width=width)
    error = np.abs(np.asarray(tensor[0], np.float64) - table).max()
    if error > 1e-5:  # Two generations of the reference differ by 1.5e-6.
        raise ValueError(
            f"{where}: {name} is off the sine-cosine table of {rows} rows by up to {error:.2g}; our decoder has that "
            f"table. Give --leads as the model was trained on."
        )
