"""Masking of lead x time tokens and the decoder of masked data modelling."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ecgjax.models.layers import Block, layer_norm, linear
from ecgjax.models.posemb import sincos_positions
from ecgjax.models.vit import patch_columns, patch_rows


class Masking(NamedTuple):
    """Which tokens a sample keeps (in shuffled order), how to put them back, and 1 where one is hidden."""

    keep: Int[Array, "b k"]
    restore: Int[Array, "b n"]
    mask: Float[Array, "b n"]


def kept_tokens(tokens: int, mask_ratio: float) -> int:
    """Visible tokens of `tokens`, truncated in double precision: 59 of 300 at 0.8, as in the reference."""
    kept = int(tokens * (1 - mask_ratio))
    if not 0 < kept <= tokens:
        raise ValueError(
            f"mask_ratio {mask_ratio} leaves {kept} of {tokens} tokens; choose one of at least 0 "
            f"and at most {1 - 1 / tokens:.4f}."
        )
    return kept


def random_masking(key: PRNGKeyArray, *, batch: int, tokens: int, mask_ratio: float) -> Masking:
    """Hides a uniformly random share of the tokens of each sample, over leads and time alike."""
    noise = jax.random.uniform(key, (batch, tokens))
    return masking_from_noise(noise, kept=kept_tokens(tokens, mask_ratio))


def masking_from_noise(noise: Float[Array, "b n"], *, kept: int) -> Masking:
    """Keeps the tokens of lowest noise, in ascending order of it."""
    shuffled = jnp.argsort(noise, axis=1)
    restore = jnp.argsort(shuffled, axis=1)
    return Masking(shuffled[:, :kept], restore, (restore >= kept).astype(jnp.float32))


class MaeDecoder(nnx.Module):
    """Predicts every patch, visible or hidden, from the visible tokens."""

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
        mlp_ratio: float = 4.0,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        self.rows, self.columns = patch_rows(leads, patch_leads), patch_columns(length, patch)
        self.width, self.dtype = width, dtype
        self.embed = linear(encoder_width, width, dtype=dtype, rngs=rngs)
        self.mask_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 1, width)))
        self.blocks = nnx.List(
            Block(width=width, heads=heads, mlp_ratio=mlp_ratio, dtype=dtype, rngs=rngs) for _ in range(depth)
        )
        self.norm = layer_norm(width, dtype=dtype, rngs=rngs)
        self.predict = linear(width, patch_leads * patch, dtype=dtype, rngs=rngs)

    def __call__(self, latent: Float[Array, "b k1 d"], restore: Int[Array, "b n"]) -> Float[Array, "b n p"]:
        """Decodes normed tokens, class token first, the rest in the order that `restore` undoes."""
        b, visible, d = latent.shape
        n = restore.shape[1]
        tokens = self.embed(latent.reshape(b * visible, d)).reshape(b, visible, self.width)
        hidden = self.mask_token[...].astype(tokens.dtype)
        hidden = jnp.broadcast_to(hidden, (b, n + 1 - visible, self.width))
        patches = jnp.concatenate([tokens[:, 1:], hidden], axis=1)
        patches = jnp.take_along_axis(patches, restore[:, :, None], axis=1)
        table = sincos_positions(leads=self.rows, columns=self.columns, width=self.width)
        tokens = jnp.concatenate([tokens[:, :1], patches], axis=1) + jnp.asarray(table, tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens)
        patches = self.norm(tokens)[:, 1:].reshape(b * n, self.width)
        return self.predict(patches).reshape(b, n, -1).astype(jnp.float32)
