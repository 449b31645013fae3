"""Encoder and heads of one modality."""

from collections.abc import Mapping

from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.models.localisation import received_attention, upsample_image, upsample_tokens

UPSAMPLING = (1, 2, 4)
"""Factors by which features can be upsampled before the head projects them place by place; the papers use 2."""


class Tower(nnx.Module):
    """An encoder and the head on its embedding."""

    def __init__(self, *, encoder: nnx.Module, head: nnx.Module):
        self.encoder = encoder
        self.head = head

    def __call__(
        self, x: Float[Array, "b ..."], *, train: bool = False, key: PRNGKeyArray | None = None
    ) -> dict[str, Float[Array, "..."]]:
        """Returns what the encoder does, and `projection [b k]`."""
        out = self.encoder(x, train=train, key=key)
        return {**out, "projection": self.head(out["embedding"])}

    def localise(
        self, x: Float[Array, "b ..."], features: Mapping[str, Float[Array, "..."]]
    ) -> dict[str, Float[Array, "..."]]:
        """What maps are made of, from the input and what `__call__` made of it.

        `local_projection_x1`, `_x2`, `_x4` [b u v k]: the head on the features of each place instead of their mean,
        upsampled by that factor; u x v are lead rows x time columns of an ECG, y x x of an image. ECG tokens are
        taken after the last block without any norm, as in the reference. Of an ECG also `attention [b h u v]`: what
        each patch receives in the last block from the tokens that make the embedding.
        """
        out = {}
        if "map" in features:
            for factor in UPSAMPLING:
                out[f"local_projection_x{factor}"] = self.head(upsample_image(features["map"], factor=factor))
            return out
        rows = self.encoder.rows
        for factor in UPSAMPLING:
            tokens = upsample_tokens(features["local_tokens"], rows=rows, factor=factor)
            out[f"local_projection_x{factor}"] = self.head(tokens)
        out["attention"] = received_attention(
            self.encoder.last_attention(x), rows=rows, from_class=self.encoder.pooling == "cls"
        )
        return out


class Arm(nnx.Module):
    """An encoder with a batch-normalised projector, and in the online arm of BYOL the predictor behind it."""

    def __init__(self, *, encoder: nnx.Module, head: nnx.Module, predictor: nnx.Module | None = None):
        self.encoder = encoder
        self.head = head
        self.predictor = predictor

    def __call__(
        self, x: Float[Array, "b ..."], *, train: bool = False, key: PRNGKeyArray | None = None
    ) -> dict[str, Float[Array, "..."]]:
        """Returns what the encoder does, `projection [b k]` and, of an online arm, `prediction [b k]`."""
        out = self.encoder(x, train=train, key=key)
        projection = self.head(out["embedding"], train=train)
        if self.predictor is None:
            return {**out, "projection": projection}
        return {**out, "projection": projection, "prediction": self.predictor(projection, train=train)}
