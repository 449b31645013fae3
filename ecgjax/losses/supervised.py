"""Losses against labels of which some are missing (NaN)."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ecgjax.core.precision import wide

Missing = Literal["excluded", "counted"]


def masked_mse(
    prediction: Float[Array, "b m"], target: Float[Array, "b m"], *, missing: Missing = "excluded"
) -> Float[Array, ""]:
    """Mean squared error over the targets that are there; 0 if none is.

    `missing="counted"` is the reference's: a missing target is a zero met exactly, and the mean is over all entries.
    """
    known, filled = _known(target)
    error = jnp.square(wide(prediction) - filled)
    if missing == "counted":
        return jnp.mean(jnp.where(known, error, 0))
    return _mean_known(error, known)


def masked_bce(logits: Float[Array, "b m"], target: Float[Array, "b m"]) -> Float[Array, ""]:
    """Mean binary cross-entropy over the targets that are there; 0 if none is."""
    known, filled = _known(target)
    logits = wide(logits)
    return _mean_known(jax.nn.softplus(logits) - logits * filled, known)


def cross_entropy(
    logits: Float[Array, "b c"],
    target: Int[Array, "b"] | Float[Array, "b c"],
    *,
    class_weights: Sequence[float] | None = None,
    smoothing: float = 0.0,
    focal: float = 0.0,
) -> Float[Array, ""]:
    """Softmax cross-entropy as torch weights and smooths it; rows without a label are left out, 0 if none has one.

    `target` holds classes, of which a negative one is missing, or probabilities, of which NaN is. Smoothing moves
    its share evenly to all classes, before they are weighted. With classes the sum is divided by the weights of
    the true ones, with probabilities by the number of rows. `focal` multiplies the term of each class by
    (1 - its probability)^focal, so that what is known already weighs less (Lin et al., 2017, gamma); the divisor
    stays.
    """
    log_probability = jax.nn.log_softmax(wide(logits))
    count = logits.shape[1]
    weights = jnp.asarray([1.0] * count if class_weights is None else class_weights, log_probability.dtype)
    if jnp.issubdtype(target.dtype, jnp.integer):
        known = target >= 0
        probability = jax.nn.one_hot(target, count, dtype=log_probability.dtype)
        share = jnp.where(known, weights[target], 0)
    else:
        known = ~jnp.isnan(target).any(1)
        probability = jnp.where(known[:, None], target, 0).astype(log_probability.dtype)
        share = known.astype(log_probability.dtype)
    probability = probability * (1 - smoothing) + smoothing / count
    if focal:
        # Held above 0, where the power has no derivative below 1.
        doubt = jnp.maximum(-jnp.expm1(log_probability), jnp.finfo(log_probability.dtype).tiny)
        probability = probability * doubt**focal
    loss = jnp.where(known, -jnp.sum(weights * probability * log_probability, axis=1), 0)
    total = jnp.sum(share)
    return jnp.sum(loss) / jnp.where(total > 0, total, 1)


def batch_accuracy(logits: Float[Array, "b c"], target: Int[Array, "b"]) -> Float[Array, ""]:
    """Share of rows with a label (not negative) whose largest logit is right; 0 if none has one."""
    return _mean_known(jnp.argmax(logits, axis=1) == target, target >= 0)


def batch_auroc(score: Float[Array, "b"], target: Int[Array, "b"]) -> Float[Array, ""]:
    """Share of the pairs of one 1 and one 0 in the batch that the score puts in order, ties counting half.

    1/2 where the batch has one class only. Its mean over batches estimates the AUROC of the split, from fewer pairs.
    """
    score = wide(score)
    ahead = score[:, None] - score[None, :]
    pairs = (target == 1)[:, None] & (target == 0)[None, :]
    won = (jnp.sign(ahead) + 1) / 2
    return jnp.where(jnp.any(pairs), _mean_known(won, pairs), 0.5)


def batch_pearson(prediction: Float[Array, "b m"], target: Float[Array, "b m"]) -> Float[Array, ""]:
    """Linear correlation within the batch over the targets that are there, then the mean over columns.

    A column of which either side is constant counts as 0.
    """
    known, filled = _known(target)
    a, b = (_centred(values, known) for values in (wide(prediction), filled))
    norm = jnp.sqrt(jnp.sum(a * a, axis=0) * jnp.sum(b * b, axis=0))
    return jnp.mean(jnp.sum(a * b, axis=0) / jnp.where(norm > 0, norm, 1))


def _centred(values, known):
    mean = jnp.sum(jnp.where(known, values, 0), axis=0) / jnp.maximum(jnp.sum(known, axis=0), 1)
    return jnp.where(known, values - mean, 0)


def _known(target):
    known = ~jnp.isnan(target)
    # NaN must not enter the arithmetic: zero times NaN is NaN in the gradient.
    return known, wide(jnp.where(known, target, 0))


def _mean_known(loss, known):
    return jnp.sum(jnp.where(known, loss, 0)) / jnp.maximum(jnp.sum(known), 1)
