"""Masking of lead x time tokens and the decoder of masked data modelling."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ecgjax.core.precision import wide
from ecgjax.models.layers import Block, Softmax, layer_norm, linear
from ecgjax.models.posemb import sincos_positions
from ecgjax.models.stack import Remat, check_run, run_blocks
from ecgjax.models.vit import patch_columns, patch_rows


class Masking(NamedTuple):
    """Which tokens a sample keeps (in shuffled order), how to put them back, and 1 where one is hidden."""

    keep: Int[Array, "b k"]
    restore: Int[Array, "b n"]
    mask: Float[Array, "b n"]


def kept_tokens(tokens: int, mask_ratio: float, *, kept: str = "truncated") -> int:
    """Visible tokens of `tokens`: `truncated` in double precision as in the reference, or `rounded` to the nearest.

    300 tokens at 0.8 keep 59 or 60, since 300 * (1 - 0.8) is 59.999999999999986 in double precision.
    """
    return _kept(tokens, mask_ratio, kept, "mask_ratio", "tokens")


def random_masking(
    key: PRNGKeyArray, *, batch: int, tokens: int, mask_ratio: float, kept: str = "truncated"
) -> Masking:
    """Hides a uniformly random share of the tokens of each sample, over leads and time alike."""
    noise = jax.random.uniform(key, (batch, tokens))
    return masking_from_noise(noise, kept=kept_tokens(tokens, mask_ratio, kept=kept))


def masking_from_noise(noise: Float[Array, "b n"], *, kept: int) -> Masking:
    """Keeps the tokens of lowest noise, in ascending order of it."""
    shuffled = jnp.argsort(noise, axis=1)
    restore = jnp.argsort(shuffled, axis=1)
    return Masking(shuffled[:, :kept], restore, (restore >= kept).astype(noise.dtype))


def block_masking(
    key: PRNGKeyArray,
    *,
    batch: int,
    rows: int,
    columns: int,
    lead_ratio: float,
    time_ratio: float,
    kept: str = "truncated",
) -> Int[Array, "b k"]:
    """Hides whole rows of tokens (leads) and whole columns (times) of each sample; returns what it keeps."""
    key_lead, key_time = jax.random.split(key)
    return block_masking_from_noise(
        jax.random.uniform(key_lead, (batch, rows)),
        jax.random.uniform(key_time, (batch, columns)),
        kept_rows=_kept(rows, lead_ratio, kept, "lead_ratio", "rows"),
        kept_columns=_kept(columns, time_ratio, kept, "time_ratio", "columns"),
    )


def block_masking_from_noise(
    lead_noise: Float[Array, "b r"], time_noise: Float[Array, "b c"], *, kept_rows: int, kept_columns: int
) -> Int[Array, "b k"]:
    """Keeps the rows of lowest noise, and of each the same columns of lowest noise.

    Lead by lead, in ascending order of noise either way.
    """
    columns = time_noise.shape[1]
    row = jnp.argsort(lead_noise, axis=1)[:, :kept_rows]
    column = jnp.argsort(time_noise, axis=1)[:, :kept_columns]
    return (row[:, :, None] * columns + column[:, None]).reshape(len(row), kept_rows * kept_columns)


def _kept(count, ratio, rounding, name, what):
    if rounding not in ("truncated", "rounded"):
        raise ValueError(f"unknown kept {rounding!r}; choose from truncated, rounded.")
    exact = count * (1 - ratio)
    kept = int(exact) if rounding == "truncated" else round(exact)
    if not 0 < kept <= count:
        raise ValueError(
            f"{name} {ratio} leaves {kept} of {count} {what}; choose one of at least 0 "
            f"and at most {1 - 1 / count:.4f}."
        )
    return kept


class MaeDecoder(nnx.Module):
    """Predicts every patch, visible or hidden, from the visible tokens; positions are fixed.

    `remat`, `scan`, `pad_tokens` and `softmax` are as in `Vit`.
    """

    def __init__(
        self,
        *,
        leads: int,
        length: int,
        patch: int,
        encoder_width: int,
        width: int,
        depth: int,
        heads: int,
        patch_leads: int = 1,
        channels: int = 1,
        mlp_ratio: float = 4.0,
        frequencies: str = "float64",
        remat: Remat = "none",
        scan: int = 0,
        pad_tokens: int = 1,
        softmax: Softmax = "float32",
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        check_run(scan=scan, pad=pad_tokens, depth=depth)
        self.rows, self.columns = patch_rows(leads, patch_leads), patch_columns(length, patch)
        self.width, self.dtype, self.frequencies = width, dtype, frequencies
        self.remat, self.scan, self.pad_tokens = remat, scan, pad_tokens
        self.embed = linear(encoder_width, width, dtype=dtype, rngs=rngs)
        self.mask_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 1, width)))
        self.blocks = nnx.List(
            Block(width=width, heads=heads, mlp_ratio=mlp_ratio, softmax=softmax, dtype=dtype, rngs=rngs)
            for _ in range(depth)
        )
        self.norm = layer_norm(width, dtype=dtype, rngs=rngs)
        self.predict = linear(width, channels * patch_leads * patch, dtype=dtype, rngs=rngs)

    def __call__(self, latent: Float[Array, "b k1 d"], restore: Int[Array, "b n"]) -> Float[Array, "b n p"]:
        """Decodes normed tokens, class token first, the rest in the order that `restore` undoes."""
        b, visible, d = latent.shape
        n = restore.shape[1]
        tokens = self.embed(latent.reshape(b * visible, d)).reshape(b, visible, self.width)
        hidden = self.mask_token[...].astype(tokens.dtype)
        hidden = jnp.broadcast_to(hidden, (b, n + 1 - visible, self.width))
        patches = jnp.concatenate([tokens[:, 1:], hidden], axis=1)
        patches = jnp.take_along_axis(patches, restore[:, :, None], axis=1)
        tokens = jnp.concatenate([tokens[:, :1], patches], axis=1) + self.position_table()
        tokens = run_blocks(self.blocks, tokens, remat=self.remat, scan=self.scan, pad=self.pad_tokens)
        patches = self.norm(tokens)[:, 1:].reshape(b * n, self.width)
        return wide(self.predict(patches).reshape(b, n, -1))

    def position_table(self) -> Float[Array, "n d"]:
        """Positions in compute precision; row 0 belongs to the class token."""
        table = sincos_positions(
            leads=self.rows, columns=self.columns, width=self.width, frequencies=self.frequencies
        )
        return jnp.asarray(table, self.dtype)


def _sizes(width, depth, heads):
    return {"width": width, "depth": depth, "heads": heads}


_FULL, _HALF, _LARGE = _sizes(256, 2, 8), _sizes(128, 2, 4), _sizes(512, 8, 16)

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "pluto": _sizes(160, 1, 8),
    "tiny": _FULL,
    "tiny2": _HALF,
    "tiny_deep": _FULL,
    "tiny_deep2": _HALF,
    "small": _FULL,
    "small2": _HALF,
    "small_deep": _FULL,
    "small_deep2": _HALF,
    "medium": _FULL,
    "medium2": _HALF,
    "medium_deep": _FULL,
    "medium_deep2": _HALF,
    "large_patchx": _FULL,
    "base": _LARGE,
    "large": _LARGE,
    "huge": _LARGE,
}
"""Sizes of the published decoders, by the name of the encoder (`vit.VARIANTS`) that each was trained with."""
