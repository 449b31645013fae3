"""Losses that draw the two views of a subject together and apart from those of others."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ecgjax.core.precision import wide


def info_nce(
    z0: Float[Array, "b k"],
    z1: Float[Array, "b k"],
    *,
    temperature: float,
    balance: float = 0.5,
    same_subject: Bool[Array, "b b"] | None = None,
) -> Float[Array, ""]:
    """Symmetric InfoNCE; row i of `z0` and of `z1` come from one subject.

    `balance` weights z0 -> z1 against z1 -> z0. Where `same_subject` is true off the diagonal, the pair is
    left out of the negatives: another recording of the same subject is none.
    """
    logits = similarity(z0, z1) / temperature
    if same_subject is not None:
        itself = jnp.eye(len(logits), dtype=bool)
        logits = jnp.where(same_subject & ~itself, -jnp.inf, logits)
    z0_to_z1 = -jnp.diag(jax.nn.log_softmax(logits, axis=1))
    z1_to_z0 = -jnp.diag(jax.nn.log_softmax(logits, axis=0))
    return jnp.mean(balance * z0_to_z1 + (1 - balance) * z1_to_z0)


def nt_xent(
    z0: Float[Array, "b k"],
    z1: Float[Array, "b k"],
    *,
    temperature: float,
    same_subject: Bool[Array, "b b"] | None = None,
) -> Float[Array, ""]:
    """NT-Xent of SimCLR (arXiv 2002.05709): each of the 2b views finds its other one among the 2b - 1 others.

    `same_subject` leaves pairs out of the negatives as in `info_nce`.
    """
    itself = jnp.eye(2 * len(z0), dtype=bool)
    other_view = jnp.roll(itself, len(z0), axis=1)
    left_out = itself
    if same_subject is not None:
        left_out |= jnp.tile(same_subject, (2, 2)) & ~other_view
    z = jnp.concatenate([z0, z1])
    logits = jnp.where(left_out, -jnp.inf, similarity(z, z) / temperature)
    positive = jnp.sum(jnp.where(other_view, logits, 0), axis=1)
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - positive)


def sigmoid(
    z0: Float[Array, "b k"],
    z1: Float[Array, "b k"],
    *,
    log_scale: Float[Array, ""] | float,
    bias: Float[Array, ""] | float,
    same_subject: Bool[Array, "b b"] | None = None,
) -> Float[Array, ""]:
    """Sigmoid loss of SigLIP (arXiv 2303.15343): each pair is classified alone, as of one subject or of two.

    The logits are cosines times exp(`log_scale`) plus `bias`, both learnt; a row sums over its pairs. Where
    `same_subject` is true off the diagonal, the pair is neither positive nor negative.
    """
    itself = jnp.eye(len(z0), dtype=bool)
    logits = similarity(z0, z1) * jnp.exp(log_scale) + bias
    surprise = -jax.nn.log_sigmoid(jnp.where(itself, logits, -logits))
    if same_subject is not None:
        surprise = jnp.where(same_subject & ~itself, 0, surprise)
    return jnp.mean(jnp.sum(surprise, axis=1))


def share_within(ranks: Int[Array, "b"], *, k: int) -> Float[Array, ""]:
    """Share of rows that `k` or more others do not precede."""
    return jnp.mean((ranks < k).astype(jnp.float32))


def ranks(z0: Float[Array, "b k"], z1: Float[Array, "b k"]) -> Int[Array, "b"]:
    """For each row of `z0` how many other rows of `z1` are at least as similar to it as its own.

    A tie thus counts against the row, so that a collapsed encoder finds nothing.
    """
    logits = similarity(z0, z1)
    others = ~jnp.eye(len(logits), dtype=bool)
    return jnp.sum((logits >= jnp.diag(logits)[:, None]) & others, axis=1)


def similarity(z0: Float[Array, "b k"], z1: Float[Array, "c k"]) -> Float[Array, "b c"]:
    """Cosine of every row of `z0` with every row of `z1`."""
    return unit(z0) @ unit(z1).T


def unit(z: Float[Array, "b k"], *, shortest: float = 1e-12) -> Float[Array, "b k"]:
    """Rows in float32 or wider, scaled to length 1; those under `shortest` are divided by it.

    A zero row thus stays zero, with a finite gradient.
    """
    z = wide(z)
    squares = jnp.sum(jnp.square(z), axis=1, keepdims=True)
    return z * jax.lax.rsqrt(jnp.maximum(squares, shortest**2))
