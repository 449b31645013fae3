"""Which examples of a split may show their labels where only so many are allowed."""

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from ecgjax.data.identifiers import as_hex
from ecgjax.data.manifest import Manifest
from ecgjax.data.shards import read_split


def labelled_positions(
    directory: epath.PathLike, manifest: Manifest, split: str, limit: int
) -> Int[np.ndarray, "k"]:
    """Positions of the examples of a split that may be trained on with `limit` labels."""
    if limit < 1:
        raise ValueError(f"config.data.max_labels is {limit}; it must be at least 1.")
    fields = read_split(directory, manifest, split, names=("subject", "label"))
    chosen = draw_labelled(as_hex(fields["subject"]), fields["label"], limit=limit)
    if not len(chosen):
        raise ValueError(f"config.data.max_labels: no example of split {split!r} has a label.")
    return chosen


def draw_labelled(
    subject: np.ndarray, label: Float[np.ndarray, "n m"], *, limit: int | None, seed: int = 0
) -> Int[np.ndarray, "k"]:
    """Positions of labelled examples: whole subjects, in random order, until `limit` examples are full.

    None takes every example with any label. The same seed gives a probe and a fine-tuning of as many labels the
    same subjects.
    """
    known = np.flatnonzero(~np.isnan(label).all(axis=1))
    if limit is None or limit >= len(known):
        return known
    names, first, index = np.unique(subject[known], return_index=True, return_inverse=True)
    # Numbered by first appearance: names are keyed hashes, and another key must not mean other labels.
    rank = np.empty(len(names), np.int64)
    rank[np.argsort(first)] = np.random.default_rng(seed).permutation(len(names))
    size = np.bincount(rank[index], minlength=len(names))  # Examples of each subject, in the drawn order.
    subjects = max(1, np.searchsorted(np.cumsum(size), limit, side="right"))
    return known[rank[index] < subjects]
