"""How alike the subjects of a batch are: what decides who is another's positive or no negative."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ecgjax.core.interfaces import Batch
from ecgjax.core.precision import wide
from ecgjax.losses.blockwise import Pairs
from ecgjax.losses.contrastive import similarity
from ecgjax.losses.matrix import positives_from_similarity

Rule = Literal["data", "labels"]
"""By the matrix that config.data.similarity names, or by the cosine of labels."""


def check_threshold(threshold: float) -> None:
    """Raises where no cosine, or every one, would exceed it."""
    if not -1 <= threshold < 1:
        raise ValueError(f"config.objective.threshold is {threshold}; it must lie in [-1, 1).")


def check_rule(rule: Rule, labels: Sequence[Mapping[str, Any]]) -> None:
    """Raises where labels shall say who is alike, and there are none."""
    if rule == "labels" and not labels:
        raise ValueError(
            "config.objective.similarity is labels, but the data set has none; choose 'data' and give "
            "config.data.similarity."
        )


def similar_subjects(
    batch: Batch, labels: Sequence[Mapping[str, Any]], *, rule: Rule, threshold: float, contrast: str
) -> Pairs:
    """Subjects whose similarity exceeds the threshold, and always recordings of one subject."""
    if rule == "labels":
        return label_similarity(batch["label"], labels, threshold=threshold) | same_subject(batch)
    if "similarity" not in batch:
        raise ValueError(
            f"config.objective.contrast is {contrast}, which needs to know who is alike; give the matrix of "
            f"the training subjects as config.data.similarity, or set config.objective.similarity='labels'."
        )
    return stored_similarity(batch, threshold=threshold) | same_subject(batch)


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
