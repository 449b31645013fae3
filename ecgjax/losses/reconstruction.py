"""Losses between a reconstructed ECG and the one it was made from."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ecgjax.core.precision import wide


def reconstruction_loss(
    prediction: Float[Array, "b n p"],
    target: Float[Array, "b n p"],
    mask: Float[Array, "b n"],
    prediction_ecg: Float[Array, "b *c l t"],
    target_ecg: Float[Array, "b *c l t"],
    *,
    ncc_weight: float = 0.1,
    scope: str = "all",
    targets: str = "raw",
) -> dict[str, Float[Array, ""]]:
    """Returns `loss` = (1 - w) mse + w (1 - ncc), and its parts `mse` and `ncc`.

    The same signals come as patches and as leads over time; `mask` is 1 where a patch was hidden. The reference
    takes the error over `all` patches; `masked` is the classical choice. `normalised` targets are standardised
    patch by patch for the error only; the correlation always refers to the raw signal, over whole leads.
    """
    _check_choice("scope", scope, ("all", "masked"))
    _check_choice("targets", targets, ("raw", "normalised"))
    wanted = normalise_patches(target) if targets == "normalised" else target
    if scope == "masked":
        mse = mse_masked(prediction, wanted, mask)
    else:
        mse = mse_all(prediction, wanted)
    correlation = ncc(prediction_ecg, target_ecg)
    return {"loss": (1 - ncc_weight) * mse + ncc_weight * (1 - correlation), "mse": mse, "ncc": correlation}


def mse_all(prediction: Float[Array, "b n p"], target: Float[Array, "b n p"]) -> Float[Array, ""]:
    """Mean squared error over all patches; the newest reference adds 1e-5 to the count, which no figure shows."""
    return jnp.mean(jnp.square(wide(prediction) - wide(target)))


def mse_masked(
    prediction: Float[Array, "b n p"], target: Float[Array, "b n p"], mask: Float[Array, "b n"]
) -> Float[Array, ""]:
    """Mean squared error over the patches where `mask` is 1; 0 if there are none."""
    error = jnp.mean(jnp.square(wide(prediction) - wide(target)), axis=-1)
    return jnp.sum(error * mask) / jnp.maximum(jnp.sum(mask), 1)


def ncc(prediction: Float[Array, "b *c l t"], target: Float[Array, "b *c l t"]) -> Float[Array, ""]:
    """Normalised correlation of each channel and lead over its whole length, averaged.

    A flat lead correlates by 0. The reference's first release subtracts the prediction's variance instead of its
    mean, which leaves the value as it is, since the standardised target sums to 0.
    """
    products = _standardise(wide(prediction)) * _standardise(wide(target))
    return jnp.mean(jnp.sum(products, axis=-1) / (target.shape[-1] - 1))


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose from {', '.join(choices)}.")


def _standardise(signal):
    centred = signal - signal.mean(-1, keepdims=True)
    return centred / jnp.sqrt(signal.var(-1, ddof=1, keepdims=True) + 1e-12)


def normalise_patches(patches: Float[Array, "b n p"]) -> Float[Array, "b n p"]:
    """Each patch minus its mean over its deviation (unbiased variance, 1e-6 inside the root)."""
    patches = wide(patches)
    centred = patches - patches.mean(-1, keepdims=True)
    return centred / jnp.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)
