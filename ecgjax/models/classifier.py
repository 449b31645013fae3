"""Encoder and linear readout, trained together or the readout alone."""

from typing import Literal

import jax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ecgjax.models.heads import LinearHead, ProbeHead


class Classifier(nnx.Module):
    """An encoder and the readout of its embedding: logits, or standardised regression targets.

    `mode="probe"` freezes the encoder, which then runs as in evaluation, and reads out behind a batch norm.
    `norm_twice` applies the encoder's `pool_norm` to the embedding, which it ends with, once more before the
    readout: what the released fine-tuning code computes with mean and attention pooling.
    """

    def __init__(
        self,
        *,
        encoder: nnx.Module,
        outputs: int,
        mode: Literal["full", "probe"] = "full",
        norm_twice: bool = False,
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
        head = LinearHead if mode == "full" else ProbeHead
        sizes = {"width_in": encoder.width, "outputs": outputs, "kernel_deviation": head_deviation}
        self.head = head(**sizes, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b ..."],
        *,
        keep: Int[Array, "b k"] | None = None,
        train: bool = False,
        key: PRNGKeyArray | None = None,
    ) -> dict[str, Float[Array, "..."]]:
        """Returns what the encoder does, and `logits [b m]`; `keep` lists the tokens that a Vit may see."""
        tokens = {} if keep is None else {"keep": keep}
        if self.mode == "full":
            out = self.encoder(x, train=train, key=key, **tokens)
            return {**out, "logits": self.head(self._input(out["embedding"]))}
        out = jax.lax.stop_gradient(self.encoder(x, train=False, key=None, **tokens))
        read = jax.lax.stop_gradient(self._input(out["embedding"]))
        return {**out, "logits": self.head(read, train=train)}

    def last_attention(self, x: Float[Array, "b ..."]) -> Float[Array, "b h n n"]:
        """Attention map of the last block of a Vit."""
        return self.encoder.last_attention(x)

    def _input(self, embedding):
        return self.encoder.pool_norm(embedding) if self.norm_twice else embedding
