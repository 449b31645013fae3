"""Encoder and linear readout, trained together or the readout alone."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ecgjax.core.precision import wide
from ecgjax.models.grad_cam import grad_cam
from ecgjax.models.heads import LinearHead, ProbeHead, ProjectionHead


class Classifier(nnx.Module):
    """An encoder and the readout of its embedding: logits, or standardised regression targets.

    `mode="probe"` freezes the encoder, which then runs as in evaluation, and reads out behind a batch norm.
    `norm_twice` applies the encoder's `pool_norm` to the embedding, which it ends with, once more before the
    readout: what the released fine-tuning code computes with mean and attention pooling. `rhythm_width` features
    that the encoder cannot see, such as the times to the neighbouring beats, are read out beside the embedding.
    `hidden` units, where there are any, let the readout weigh one by the other: supraventricular beats are early and
    look normal. Which parameters of a `partial` encoder are trained is for `frozen_paths` to say; here it runs as in
    `full`.
    """

    def __init__(
        self,
        *,
        encoder: nnx.Module,
        outputs: int,
        mode: Literal["full", "partial", "probe"] = "full",
        norm_twice: bool = False,
        rhythm_width: int = 0,
        hidden: int = 0,
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
        if hidden and mode == "probe":
            raise ValueError(
                f"hidden is {hidden}; a probe is linear: set it to 0, or mode to 'full' or 'partial'."
            )
        self.rhythm_width = rhythm_width
        width_in = encoder.width + rhythm_width
        if hidden:
            self.head = ProjectionHead(
                width_in=width_in, hidden=hidden, width=outputs, dtype=dtype, rngs=rngs
            )
            return
        head = ProbeHead if mode == "probe" else LinearHead
        sizes = {"width_in": width_in, "outputs": outputs, "kernel_deviation": head_deviation}
        self.head = head(**sizes, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b ..."],
        *,
        keep: Int[Array, "b k"] | None = None,
        beats: Int[Array, "b n"] | None = None,
        rhythm: Float[Array, "b f"] | None = None,
        explain: bool = False,
        train: bool = False,
        key: PRNGKeyArray | None = None,
    ) -> dict[str, Float[Array, "..."]]:
        """Returns what the encoder does, and `logits [b m]`.

        `keep` lists the tokens that a Vit may see; `beats` the R peaks, for an encoder that reads them. To `explain`
        adds `grad_cam [b m r y x]` for each of r images a recording, where the encoder has feature maps.
        """
        given = {} if keep is None else {"keep": keep}
        if getattr(self.encoder, "reads_beats", False):
            given["beats"] = beats
        probe = self.mode == "probe"
        out = self.encoder(x, train=train and not probe, key=None if probe else key, **given)
        out = jax.lax.stop_gradient(out) if probe else out
        logits = self._read(out["embedding"], rhythm, train=train)
        if explain and ("activation" in out or "activations" in out):
            out = {**out, "grad_cam": self._grad_cam(out, rhythm)}
        return {**out, "logits": logits}

    def _read(self, embedding, rhythm, *, train):
        """Logits; the readout of a probe sees constants."""
        width = 0 if rhythm is None else rhythm.shape[-1]
        if width != self.rhythm_width:
            raise ValueError(f"{width} rhythm features; the readout was built for {self.rhythm_width}.")
        read = self.encoder.pool_norm(embedding) if self.norm_twice else embedding
        if rhythm is not None:
            read = jnp.concatenate([wide(read), wide(rhythm)], axis=-1)
        if self.mode != "probe":
            return self.head(read)
        return self.head(jax.lax.stop_gradient(read) if train else read, train=train)

    def _grad_cam(self, out, rhythm):
        if "activations" in out:  # Of several leads.
            return grad_cam(
                lambda leads: self._read(self.encoder.join(leads), rhythm, train=False),
                out["leads"],
                out["activations"],
            )
        return grad_cam(
            lambda one: self._read(one[:, 0], rhythm, train=False),
            out["embedding"][:, None],
            out["activation"][:, None],
        )
