"""How alike the subjects of a batch are: what decides who is another's positive or no negative."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ecgjax.core.interfaces import Batch
from ecgjax.core.precision import wide
from ecgjax.losses.blockwise import Pairs
from ecgjax.losses.contrastive import similarity
from ecgjax.losses.matrix import positives_from_similarity


def same_subject(batch: Batch) -> Pairs:
    """Which rows are recordings of one subject; each of itself."""
    subject = batch["subject"]
    return Pairs(subject, subject, lambda rows, columns: jnp.all(rows[:, None] == columns[None], axis=-1))


def stored_similarity(batch: Batch, *, threshold: float) -> Pairs:
    """By the columns of this batch out of `similarity [b n]`, each example's row of the matrix of the train split.

    Picked by `index`, so that neither the processes that share a batch nor its parts have to know an order.
    """

    def alike(rows, columns):
        return positives_from_similarity(wide(rows[:, columns]), threshold=threshold)

    return Pairs(batch["similarity"], batch["index"], alike)


def label_similarity(
    label: Float[Array, "b m"], columns: Sequence[Mapping[str, Any]], *, threshold: float
) -> Pairs:
    """By the cosine of standardised labels; a condition counts as -1 or 1, what is missing as 0.

    `columns` describe the labels as the manifest does: kind, and over the train split mean and standard deviation.
    """
    regression = [c["kind"] == "regression" for c in columns]
    mean = np.array([c["mean"] if r else 0.5 for c, r in zip(columns, regression, strict=True)])
    std = np.array([max(c["std"], 1e-6) if r else 0.5 for c, r in zip(columns, regression, strict=True)])
    known = ~jnp.isnan(label)
    standardised = (jnp.where(known, label, 0) - mean.astype(label.dtype)) / std.astype(label.dtype)
    standardised = jnp.where(known, standardised, 0)

    def alike(rows, columns):
        return positives_from_similarity(similarity(rows, columns), threshold=threshold)

    return Pairs(standardised, standardised, alike)
