"""Transformer over lead x time patches: the ECG encoder of masked, contrastive and supervised training."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ecgjax.core.precision import wide
from ecgjax.models.layers import (
    AttentionPool,
    Block,
    Softmax,
    drop_path_rates,
    layer_norm,
    linear,
    normal_002,
    uniform_by_fan_in,
    xavier_uniform,
)
from ecgjax.models.posemb import sincos_positions
from ecgjax.models.stack import Remat, check_run, run_blocks


class Vit(nnx.Module):
    """Vision transformer whose patches are `patch_leads` leads high and `patch` samples long.

    Patches of one lead are the paper's; patches of all leads make a twelfth of the tokens and see the axis of the
    heart at once. Tokens are lead-major: token = lead group * columns + column. `pooling` makes the embedding:

    - `mean`: mean of the patch tokens after the last block, then `pool_norm`;
    - `attention`: attention with the mean token as query, then `pool_norm`;
    - `cls`: the class token after `norm`;
    - `mean_of_normed`: mean of the patch tokens after `norm`, which is what masked pre-training offers.

    All else has the same names in the tree whatever the pooling, so a checkpoint of one initialises another.
    `learnable` positions start from the sine-cosine table; `fixed` ones are no parameter. `frequencies` is the
    precision that the table is computed in (`sincos_positions`). Several input `channels` share the positions.

    `remat`, `scan` and `pad_tokens` say how the blocks run (`stack.run_blocks`), not what they compute. `softmax` is
    the precision of attention: "bfloat16" beside that `dtype` is faster and smaller on TPUs.

    `init` says how parameters are drawn; layer norms start at 1 and 0, and attention pooling draws its own:

    |                | `masked`, ours for every use | `contrastive`, the reference's without a checkpoint |
    |----------------|------------------------------|-----------------------------------------------------|
    | linear kernels | Xavier uniform, bias 0       | normal of deviation 0.02, bias 0                    |
    | patch kernel   | Xavier uniform               | uniform in +-1/sqrt(fan in)                         |
    | patch bias     | uniform in +-1/sqrt(fan in)  | the same                                            |
    | class token    | normal of deviation 0.02     | normal of deviation 1e-6                            |
    | positions      | sine-cosine table            | normal of deviation 0.02, learnable                 |
    """

    def __init__(
        self,
        *,
        leads: int,
        length: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        patch_leads: int = 1,
        channels: int = 1,
        mlp_ratio: float = 4.0,
        pooling: str = "mean",
        drop_path: float = 0.0,
        positions: str = "fixed",
        frequencies: str = "float64",
        init: str = "masked",
        remat: Remat = "none",
        scan: int = 0,
        pad_tokens: int = 1,
        softmax: Softmax = "float32",
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        _check_choice("pooling", pooling, ("mean", "attention", "cls", "mean_of_normed"))
        _check_choice("positions", positions, ("fixed", "learnable"))
        _check_choice("init", init, ("masked", "contrastive"))
        check_run(scan=scan, pad=pad_tokens, depth=depth)
        contrastive = init == "contrastive"
        if contrastive and positions == "fixed":
            raise ValueError("init 'contrastive' draws the positions; set positions to 'learnable'.")
        self.rows, self.patch, self.patch_leads = patch_rows(leads, patch_leads), patch, patch_leads
        self.columns, self.channels = patch_columns(length, patch), channels
        self.width, self.pooling = width, pooling
        self.dtype, self.frequencies = dtype, frequencies
        self.remat, self.scan, self.pad_tokens = remat, scan, pad_tokens
        values = channels * patch_leads * patch
        convolution = uniform_by_fan_in(values)  # torch's default; masked pre-training keeps it for the bias.
        self.patch_embed = linear(
            values, width, dtype=dtype, kernel_init=convolution if contrastive else xavier_uniform, rngs=rngs
        )
        self.patch_embed.bias[...] = convolution(rngs.params(), (width,))
        cls_deviation = 1e-6 if contrastive else 0.02
        self.cls_token = nnx.Param(cls_deviation * jax.random.normal(rngs.params(), (1, 1, width)))
        if positions == "learnable":
            shape = (1, 1 + self.rows * self.columns, width)
            start = normal_002(rngs.params(), shape) if contrastive else self._sincos()[None]
            self.positions = nnx.Param(jnp.asarray(start))
        self.learnable_positions = positions == "learnable"
        self.blocks = nnx.List(
            Block(
                width=width,
                heads=heads,
                mlp_ratio=mlp_ratio,
                drop_path=rate,
                softmax=softmax,
                dtype=dtype,
                kernel_init=normal_002 if contrastive else xavier_uniform,
                rngs=rngs,
            )
            for rate in drop_path_rates(drop_path, depth)
        )
        if pooling == "attention":
            self.attention_pool = AttentionPool(width=width, heads=heads, dtype=dtype, rngs=rngs)
        if pooling in ("mean", "attention"):
            self.pool_norm = layer_norm(width, dtype=dtype, rngs=rngs)
        else:
            self.norm = layer_norm(width, dtype=dtype, rngs=rngs)

    @property
    def last_block(self) -> tuple[str, ...]:
        """Regexes of the paths that partial fine-tuning trains."""
        return (f"blocks/{len(self.blocks) - 1}/", "norm/", "pool_norm/", "attention_pool/")

    def __call__(
        self,
        ecg: Float[Array, "b *c l t"],
        *,
        keep: Int[Array, "b k"] | None = None,
        train: bool = False,
        key: PRNGKeyArray | None = None,
    ) -> dict[str, Float[Array, "..."]]:
        """Encodes all patches, or those whose indices `keep` holds, in that order.

        Several channels come as `[b c l t]`; of one, the axis may be left out.
        Returns `embedding [b d]`; `tokens [b 1+n d]`, class token first, after `norm` where the pooling has
        one; `local_tokens [b n d]`, the patch tokens after the last block without any norm.
        """
        tokens = self.embed(ecg, keep=keep)
        run = {"remat": self.remat, "scan": self.scan, "pad": self.pad_tokens}
        tokens = run_blocks(self.blocks, tokens, train=train, key=key, **run)
        out = {"local_tokens": tokens[:, 1:]}
        if self.pooling in ("mean", "attention"):
            pool = self.attention_pool if self.pooling == "attention" else _mean
            return {**out, "tokens": tokens, "embedding": self.pool_norm(pool(tokens[:, 1:]))}
        tokens = self.norm(tokens)
        embedding = tokens[:, 0] if self.pooling == "cls" else _mean(tokens[:, 1:])
        return {**out, "tokens": tokens, "embedding": embedding}

    def embed(
        self, ecg: Float[Array, "b *c l t"], *, keep: Int[Array, "b k"] | None = None
    ) -> Float[Array, "b n d"]:
        """What enters the first block: class token, then patch tokens, each with its position."""
        channels = ecg.shape[1] if ecg.ndim == 4 else 1
        if channels != self.channels:
            raise ValueError(
                f"ECG of shape {ecg.shape[1:]} has {channels} channels; the encoder was built for "
                f"{self.channels}: (channels, leads, samples), of one channel (leads, samples)."
            )
        patches = patchify(ecg.astype(self.dtype), patch=self.patch, patch_leads=self.patch_leads)
        if patches.shape[1] != self.rows * self.columns:
            raise ValueError(
                f"ECG of shape {ecg.shape[1:]} gives {patches.shape[1]} patches of {self.patch} samples; "
                f"the encoder was built for {self.rows} rows x {self.columns} columns."
            )
        positions = self.position_table()
        patch_positions = positions[1:]
        if keep is not None:
            # Gathered before the embedding: patches are narrower than tokens.
            patches = jnp.take_along_axis(patches, keep[:, :, None], axis=1)
            patch_positions = patch_positions[keep]
        b, n, p = patches.shape
        tokens = self.patch_embed(patches.reshape(b * n, p)).reshape(b, n, self.width) + patch_positions
        cls = (self.cls_token[...] + positions[0]).astype(tokens.dtype)
        return jnp.concatenate([jnp.broadcast_to(cls, (b, 1, self.width)), tokens], axis=1)

    def position_table(self) -> Float[Array, "n d"]:
        """Positions in compute precision; row 0 belongs to the class token."""
        if self.learnable_positions:
            return self.positions[0].astype(self.dtype)
        return jnp.asarray(self._sincos(), self.dtype)

    def last_attention(self, ecg: Float[Array, "b *c l t"]) -> Float[Array, "b h n n"]:
        """Softmax map of the last block over all tokens, class token first."""
        tokens = run_blocks(self.blocks[:-1], self.embed(ecg))
        return self.blocks[-1].attention_weights(tokens)

    def _sincos(self):
        return sincos_positions(
            leads=self.rows, columns=self.columns, width=self.width, frequencies=self.frequencies
        )


def patchify(ecg: Float[Array, "b *c l t"], *, patch: int, patch_leads: int = 1) -> Float[Array, "b n p"]:
    """Cuts the ECG into patches of `patch_leads` leads, lead-major; within a patch, lead by lead.

    A patch of several channels `[b c l t]` holds one channel after the other.
    """
    b, *channels, leads, length = ecg.shape
    rows, columns = patch_rows(leads, patch_leads), patch_columns(length, patch)
    if patch_leads == 1 and channels in ([], [1]):
        return ecg.reshape(b, rows * columns, patch)
    grid = ecg.reshape(b, -1, rows, patch_leads, columns, patch).transpose(0, 2, 4, 1, 3, 5)
    return grid.reshape(b, rows * columns, -1)


def unpatchify(
    patches: Float[Array, "b n p"], *, leads: int, patch_leads: int = 1, channels: int = 1
) -> Float[Array, "b *c l t"]:
    """Reverses `patchify`; one channel comes back without its axis."""
    b, n, p = patches.shape
    rows = patch_rows(leads, patch_leads)
    grid = patches.reshape(b, rows, n // rows, channels, patch_leads, p // (channels * patch_leads))
    grid = grid.transpose(0, 3, 1, 4, 2, 5)
    return grid.reshape(b, leads, -1) if channels == 1 else grid.reshape(b, channels, leads, -1)


def patch_rows(leads: int, patch_leads: int) -> int:
    """Patches along leads; a lead count that is not a multiple of the patch's is refused."""
    if patch_leads < 1 or leads % patch_leads:
        raise ValueError(f"{leads} leads are not a multiple of patch_leads {patch_leads}; choose a divisor.")
    return leads // patch_leads


def patch_columns(length: int, patch: int) -> int:
    """Patches along time; an ECG length that is not a multiple of the patch is refused."""
    if length % patch:
        raise ValueError(
            f"ECG length {length} is not a multiple of patch {patch}; "
            f"crop to {length // patch * patch}, or change the patch."
        )
    return length // patch


def _mean(tokens):
    return wide(tokens).mean(1).astype(tokens.dtype)


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose from {', '.join(choices)}.")


def _sizes(width, depth, heads):
    return {"width": width, "depth": depth, "heads": heads}


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "pluto": _sizes(256, 2, 8),
    "tiny": _sizes(384, 3, 6),
    "tiny2": _sizes(384, 3, 6),
    "tiny_deep": _sizes(192, 12, 3),
    "tiny_deep2": _sizes(192, 12, 3),
    "small": _sizes(512, 4, 8),
    "small2": _sizes(512, 4, 8),
    "small_deep": _sizes(384, 12, 6),
    "small_deep2": _sizes(384, 12, 6),
    "medium": _sizes(640, 5, 10),
    "medium2": _sizes(640, 5, 10),
    "medium_deep": _sizes(576, 12, 8),
    "medium_deep2": _sizes(576, 12, 8),
    "large_patchx": _sizes(864, 6, 12),
    "base": _sizes(768, 12, 12),
    "large": _sizes(1024, 24, 16),
    "huge": _sizes(1280, 32, 16),
    "mmcl_medium": _sizes(640, 6, 8),
    "mmcl_big": _sizes(768, 8, 8),
}
"""Sizes of the published encoders; `tiny` is the paper's. A 2 changes the decoder alone (`mae.VARIANTS`).

`mmcl_*` are those of the contrastive repository that differ from the masked one's.
"""

REFUSED_VARIANTS: Mapping[str, str] = {
    "mmcl_pluto": "the reference's 256 wide and 6 heads do not divide; pluto has 8 heads, or give sizes of your own"
}
"""Published names that cannot be built, and why."""
