"""Encoder and head of one modality."""

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
