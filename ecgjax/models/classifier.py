"""Encoder and linear readout, trained together or the readout alone."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ecgjax.core.precision import wide
from ecgjax.models.heads import LinearHead, ProbeHead


class Classifier(nnx.Module):
    """An encoder and the readout of its embedding: logits, or standardised regression targets.

    `mode="probe"` freezes the encoder, which then runs as in evaluation, and reads out behind a batch norm.
    `norm_twice` applies the encoder's `pool_norm` to the embedding, which it ends with, once more before the
    readout: what the released fine-tuning code computes with mean and attention pooling. `rhythm_width` features
    that the encoder cannot see, such as the times to the neighbouring beats, are read out beside the embedding.
    Which parameters of a `partial` encoder are trained is for `frozen_paths` to say; here it runs as in `full`.
    """

    def __init__(
        self,
        *,
        encoder: nnx.Module,
        outputs: int,
        mode: Literal["full", "partial", "probe"] = "full",
        norm_twice: bool = False,
        rhythm_width: int = 0,
        head_deviation: float = 0.02,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        if norm_twice and not hasattr(encoder, "pool_norm"):
            raise ValueError(
                "norm_twice repeats pool_norm, which only a Vit with pooling mean or attention ends with; choose one "
                "of these, or norm_twice False."
            )
        self.encoder, self.mode, self.norm_twice = encoder, mode, norm_twice
        self.rhythm_width = rhythm_width
        head = ProbeHead if mode == "probe" else LinearHead
        sizes = {
            "width_in": encoder.width + rhythm_width,
            "outputs": outputs,
            "kernel_deviation": head_deviation,
        }
        self.head = head(**sizes, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b ..."],
        *,
        keep: Int[Array, "b k"] | None = None,
        beats: Int[Array, "b n"] | None = None,
        rhythm: Float[Array, "b f"] | None = None,
        train: bool = False,
        key: PRNGKeyArray | None = None,
    ) -> dict[str, Float[Array, "..."]]:
        """Returns what the encoder does, and `logits [b m]`.

        `keep` lists the tokens that a Vit may see; `beats` the R peaks, for an encoder that reads them.
        """
        given = {} if keep is None else {"keep": keep}
        if getattr(self.encoder, "reads_beats", False):
            given["beats"] = beats
        if self.mode == "probe":
            out = jax.lax.stop_gradient(self.encoder(x, train=False, key=None, **given))
            read = jax.lax.stop_gradient(self._input(out["embedding"], rhythm))
            return {**out, "logits": self.head(read, train=train)}
        out = self.encoder(x, train=train, key=key, **given)
        return {**out, "logits": self.head(self._input(out["embedding"], rhythm))}

    def last_attention(self, x: Float[Array, "b ..."]) -> Float[Array, "b h n n"]:
        """Attention map of the last block of a Vit."""
        return self.encoder.last_attention(x)

    def _input(self, embedding, rhythm):
        width = 0 if rhythm is None else rhythm.shape[-1]
        if width != self.rhythm_width:
            raise ValueError(f"{width} rhythm features; the readout was built for {self.rhythm_width}.")
        embedding = self.encoder.pool_norm(embedding) if self.norm_twice else embedding
        if rhythm is None:
            return embedding
        return jnp.concatenate([wide(embedding), wide(rhythm)], axis=-1)
