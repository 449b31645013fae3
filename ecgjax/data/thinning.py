"""Training on a share of the examples of a frequent class, such as normal beats; evaluation sees them all."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int

from ecgjax.data.manifest import Manifest
from ecgjax.data.shards import read_split

_STREAM = 0x7468696E  # Keeps these draws apart from anything else that is seeded with (seed, column).


def marked(labels: Sequence[Mapping[str, Any]], thin: Mapping[str, float]) -> tuple[dict[str, Any], ...]:
    """Label columns as the manifest has them, with `kept`, a share, in those that `thin` names.

    Their statistics stay those of the whole train split. Raises ValueError where `thin` cannot be meant.
    """
    _check(labels, thin)
    return tuple(
        {**label, "kept": thin[label["name"]]} if label["name"] in thin else dict(label) for label in labels
    )


def left_out(labels: Sequence[Mapping[str, Any]]) -> int:
    """How many train examples are not trained on, where `labels` are `marked`."""
    return sum(
        _positives(label) - _kept(label["name"], _positives(label), label["kept"])
        for label in labels
        if "kept" in label
    )


def thinned_positions(
    directory: epath.PathLike, manifest: Manifest, split: str, thin: Mapping[str, float], *, seed: int
) -> Int[np.ndarray, "k"]:
    """Positions of the examples of a split that stay where each label of `thin` keeps its share, drawn once by `seed`.

    Examples without these labels stay. One with two of them has no share of its own and is refused.
    """
    labels = manifest.to_json()["targets"]
    _check(labels, thin)
    values = read_split(directory, manifest, split, names=("label",))["label"]
    columns = [i for i, label in enumerate(labels) if label["name"] in thin]
    positive = values[:, columns] == 1
    if twice := int(np.sum(positive.sum(axis=1) > 1)):
        raise ValueError(
            f"config.data.thin: {twice} examples of split {split!r} have two of the labels {list(thin)}; only labels "
            f"that exclude each other can be thinned together: thin one of them."
        )
    stays = np.ones(len(values), np.bool_)
    for i, column in enumerate(columns):
        name, found = labels[column]["name"], np.flatnonzero(positive[:, i])
        order = np.random.default_rng((seed, _STREAM, column)).permutation(len(found))
        stays[found[order[_kept(name, len(found), thin[name]) :]]] = False
    return np.flatnonzero(stays)


def _check(labels: Sequence[Mapping[str, Any]], thin: Mapping[str, float]) -> None:
    known = {label["name"]: label for label in labels}
    for name, share in thin.items():
        path = f"config.data.thin.{name}"
        if name not in known:
            raise ValueError(f"{path}: no such label; the data set has {', '.join(known) or 'none'}.")
        if known[name]["kind"] != "binary":
            raise ValueError(
                f"{path}: a label of kind {known[name]['kind']} cannot be thinned; name a binary one."
            )
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise ValueError(f"{path} is {share!r}; a share lies above 0 and at most at 1.")
        _kept(name, _positives(known[name]), share)


def _positives(label: Mapping[str, Any]) -> int:
    return round((label["prevalence"] or 0.0) * label["count"])


def _kept(name: str, positives: int, share: float) -> int:
    kept = round(share * positives)
    if not kept:
        raise ValueError(
            f"config.data.thin.{name}: a share of {share} of {positives} train examples leaves none; raise it, or "
            f"leave {name} out."
        )
    return kept
