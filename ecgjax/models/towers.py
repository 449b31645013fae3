"""Encoder and heads of one modality."""

from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray


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
