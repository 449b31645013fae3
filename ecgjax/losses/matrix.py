"""Contrastive losses that a similarity of subjects guides: who counts as positive, who as no negative.

The matrices are `[b b]`: row i and column j tell of the subjects i and j of the batch. A subject is always similar to
itself.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ecgjax.losses.contrastive import info_nce, similarity


def positives_from_similarity(
    similarity: Float[Array, "b b"], *, threshold: float = 0.9
) -> Bool[Array, "b b"]:
    """Pairs above the threshold; a similarity equal to it is not enough."""
    return similarity > threshold


def supervised_contrastive(
    z0: Float[Array, "b k"],
    z1: Float[Array, "b k"],
    *,
    positives: Bool[Array, "b b"],
    temperature: float,
    divisor: int | None = None,
) -> Float[Array, ""]:
    """Mean log-likelihood of a row's positives in the other modality, over the 2b rows of both directions.

    Each row is divided by the number of its positives, or by `divisor`. Every subject's own pair is a positive.
    """
    chosen = jnp.tile(positives | jnp.eye(len(z0), dtype=bool), (2, 1))
    cosines = similarity(z0, z1) / temperature
    likelihood = jax.nn.log_softmax(jnp.concatenate([cosines, cosines.T]), axis=1)
    count = jnp.sum(chosen, axis=1) if divisor is None else divisor
    return -jnp.mean(jnp.sum(jnp.where(chosen, likelihood, 0), axis=1) / count)


def remove_false_negatives(
    z0: Float[Array, "b k"],
    z1: Float[Array, "b k"],
    *,
    similar: Bool[Array, "b b"],
    temperature: float,
) -> Float[Array, ""]:
    """InfoNCE whose negatives leave out similar subjects; only the own pair is a positive.

    `similar` is symmetric: what is left out between i and j is left out in both directions.
    """
    return info_nce(z0, z1, temperature=temperature, same_subject=similar)


def k_positive(
    z0: Float[Array, "b k"],
    z1: Float[Array, "b k"],
    *,
    mask: Bool[Array, "b b"],
    temperature: float,
    divisor: int | None = None,
) -> Float[Array, ""]:
    """`supervised_contrastive` on the positives that `draw_positives` drew, divided by how many a row drew.

    The released code divides by b (k - 1) on top of the mean over rows: that is `divisor=b * (k - 1)`.
    """
    return supervised_contrastive(z0, z1, positives=mask, temperature=temperature, divisor=divisor)


def draw_positives(
    key: PRNGKeyArray,
    positives: Bool[Array, "b b"],
    *,
    k: int = 6,
    among: Literal["positives", "count"] = "positives",
) -> Bool[Array, "b b"]:
    """Draws for each row the own subject and k - 1 others of its positives, all where there are fewer.

    `count` repeats the released code, which draws k - 1 numbers below the *number* of positives, with
    replacement, and takes them for columns: mostly not positives at all.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it counts the own subject, so it must be at least 1.")
    itself = jnp.eye(len(positives), dtype=bool)
    positives = positives | itself
    if among == "count":
        count = jnp.sum(positives, axis=1, keepdims=True)
        column = jax.random.randint(key, (len(positives), k - 1), 0, count)
        return itself | jnp.any(jax.nn.one_hot(column, len(positives), dtype=bool), axis=1)
    if among != "positives":
        raise ValueError(f"unknown among {among!r}; choose from positives, count.")
    others = positives & ~itself
    lot = jnp.where(others, jax.random.uniform(key, positives.shape), 2.0)  # 2 comes after every lot.
    rank = jnp.argsort(jnp.argsort(lot, axis=1), axis=1)
    return itself | (others & (rank < k - 1))


def supcon_views(
    z0: Float[Array, "b k"],
    z1: Float[Array, "b k"],
    *,
    positives: Bool[Array, "b b"],
    temperature: float,
) -> Float[Array, ""]:
    """Supervised contrastive loss over the 2b views together (arXiv 2004.11362), each against the 2b - 1 others.

    Both views of similar subjects are positives, and so is the own other view: with no similar subjects it is NT-Xent.
    The released code cannot run; it would scale by temperature / 0.07 and add 1e-6 to the sum of exponentials.
    """
    itself = jnp.eye(2 * len(z0), dtype=bool)
    chosen = jnp.tile(positives | jnp.eye(len(z0), dtype=bool), (2, 2)) & ~itself
    z = jnp.concatenate([z0, z1])
    logits = similarity(z, z) / temperature
    total = jax.nn.logsumexp(jnp.where(itself, -jnp.inf, logits), axis=1, keepdims=True)
    return -jnp.mean(jnp.sum(jnp.where(chosen, logits - total, 0), axis=1) / jnp.sum(chosen, axis=1))
