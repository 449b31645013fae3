"""Encoders of the time-frequency image of one lead: a small convolutional network, a ResNet, a Vit."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.core.precision import wide
from ecgjax.core.spec import ImageSpec
from ecgjax.models.norms import GroupNorm
from ecgjax.models.resnet import Conv, ResNet
from ecgjax.models.stft import LeadImage
from ecgjax.models.vit import Vit


class ConvBlock(nnx.Module):
    """3x3 convolution without bias, group norm and ReLU."""

    def __init__(self, channels_in: int, channels_out: int, *, groups: int, dtype: str, rngs: nnx.Rngs):
        self.conv = Conv(channels_in, channels_out, size=3, dtype=dtype, rngs=rngs)
        self.norm = GroupNorm(channels_out, groups=groups, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b y x c"], *, train: bool) -> Float[Array, "b y x d"]:
        """Returns a map of the same size."""
        return jax.nn.relu(self.norm(self.conv(x), train=train))


class StftCnn(nnx.Module):
    """One `ConvBlock` and 2x2 maximum a width on the image of one lead, and the mean over the last map.

    Group norm has no statistics that a few patients of a small cohort could spoil, and keeps examples apart.
    `mask_frequencies` and `mask_times` hide bands of the image in training, `dropout` values of the embedding.
    """

    def __init__(
        self,
        *,
        leads: int,
        length: int,
        image: ImageSpec,
        widths: Sequence[int] = (16, 32, 64, 128),
        groups: int = 8,
        mask_frequencies: int = 0,
        mask_times: int = 0,
        dropout: float = 0.0,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        smallest = min(image.bins, image.frames)
        if not widths or smallest < 2 ** len(widths):
            raise ValueError(
                f"widths {tuple(widths)}: an image of {image.bins} x {image.frames} can be halved by "
                f"{smallest.bit_length() - 1} blocks at most, by one at least."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must lie in [0, 1).")
        masks = {"mask_frequencies": mask_frequencies, "mask_times": mask_times}
        self.image = LeadImage(leads=leads, length=length, image=image, **masks)
        self.blocks = nnx.List(
            ConvBlock(before, width, groups=groups, dtype=dtype, rngs=rngs)
            for before, width in zip((1, *widths[:-1]), widths, strict=True)
        )
        self.dropout, self.width = dropout, widths[-1]

    @property
    def last_block(self) -> tuple[str, ...]:
        """Regexes of the paths that partial fine-tuning trains."""
        return (f"blocks/{len(self.blocks) - 1}/",)

    def __call__(
        self, x: Float[Array, "b l t"], *, train: bool = False, key: PRNGKeyArray | None = None
    ) -> dict[str, Float[Array, "..."]]:
        """Returns `embedding [b d]`, the mean over the map, and `map [b y x d]`, frequency by time.

        Beside them the `image [b y x]`, and `activation [b y x d]`, of whose 2x2 tiles the map holds the maxima.
        """
        key_image, key_drop = (None, None) if key is None else jax.random.split(key)
        image = self.image(x, train=train, key=key_image)
        x = image[..., None]
        for block in self.blocks:
            activation = block(x, train=train)
            x = halved(activation)
        embedding = wide(x).mean((1, 2)).astype(x.dtype)
        if train and self.dropout:
            kept = jax.random.bernoulli(key_drop, 1 - self.dropout, embedding.shape)
            embedding = jnp.where(kept, embedding / (1 - self.dropout), 0)
        return {"embedding": embedding, "map": x, "activation": activation, "image": image}


class StftResNet(nnx.Module):
    """A `ResNet` on the image of one lead; group norm unless asked otherwise."""

    def __init__(
        self,
        *,
        leads: int,
        length: int,
        image: ImageSpec,
        depths: Sequence[int],
        widths: Sequence[int],
        block: str = "basic",
        stem: str = "small_stride2",
        norm: str = "group",
        norm_group: int | None = None,
        mask_frequencies: int = 0,
        mask_times: int = 0,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        masks = {"mask_frequencies": mask_frequencies, "mask_times": mask_times}
        self.image = LeadImage(leads=leads, length=length, image=image, **masks)
        sizes = {"depths": depths, "widths": widths, "block": block, "stem": stem}
        norms = {"norm": norm, "norm_group": norm_group}
        self.net = ResNet(channels=1, **sizes, **norms, dtype=dtype, rngs=rngs)
        self.width = self.net.width

    @property
    def last_block(self) -> tuple[str, ...]:
        """Regexes of the paths that partial fine-tuning trains."""
        return tuple(f"net/{path}" for path in self.net.last_block)

    def __call__(
        self, x: Float[Array, "b l t"], *, train: bool = False, key: PRNGKeyArray | None = None
    ) -> dict[str, Float[Array, "..."]]:
        """Returns `embedding [b d]`, the mean over the map, `map [b y x d]` and the `image [b y x]`.

        The map is the `activation` too, since no maximum follows it.
        """
        image = self.image(x, train=train, key=key)
        out = self.net(image[..., None], train=train)
        return {**out, "activation": out["map"], "image": image}


class StftVit(nnx.Module):
    """A `Vit` on the image of one lead, whose patches are `patch` frequencies x times."""

    def __init__(
        self,
        *,
        leads: int,
        length: int,
        image: ImageSpec,
        width: int,
        depth: int,
        heads: int,
        patch: Sequence[int] = (8, 8),
        pooling: str = "mean",
        positions: str = "fixed",
        drop_path: float = 0.0,
        mask_frequencies: int = 0,
        mask_times: int = 0,
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        if len(patch) != 2 or min(patch) < 1 or image.bins % patch[0] or image.frames % patch[1]:
            raise ValueError(
                f"patch is {tuple(patch)}; it must name as many frequencies and times as divide the image of "
                f"{image.bins} x {image.frames}."
            )
        masks = {"mask_frequencies": mask_frequencies, "mask_times": mask_times}
        self.image = LeadImage(leads=leads, length=length, image=image, **masks)
        grid = {"leads": image.bins, "length": image.frames, "patch_leads": patch[0], "patch": patch[1]}
        sizes = {"width": width, "depth": depth, "heads": heads}
        options = {"pooling": pooling, "positions": positions, "drop_path": drop_path, "dtype": dtype}
        self.net = Vit(**grid, **sizes, **options, rngs=rngs)
        self.width = width

    @property
    def last_block(self) -> tuple[str, ...]:
        """Regexes of the paths that partial fine-tuning trains."""
        return tuple(f"net/{path}" for path in self.net.last_block)

    def __call__(
        self, x: Float[Array, "b l t"], *, train: bool = False, key: PRNGKeyArray | None = None
    ) -> dict[str, Float[Array, "..."]]:
        """Returns what the Vit does: `embedding [b d]`, `tokens` and `local_tokens`; it has no map."""
        key_image, key_net = (None, None) if key is None else jax.random.split(key)
        return self.net(self.image(x, train=train, key=key_image), train=train, key=key_net)


def halved(x: Float[Array, "b y x c"]) -> Float[Array, "b y2 x2 c"]:
    """2x2 maximum; an odd last row or column is left out. `reduce_window` has a gradient half as fast on a CPU.

    As choices between two: the gradient of a maximum over axes asks which values equal it, and XLA may have computed
    these anew, rounded otherwise. None does then, and the shares are 0/0.
    """
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    x = _larger(x[:, ::2], x[:, 1::2])
    return _larger(x[:, :, ::2], x[:, :, 1::2])


def _larger(a, b):
    return jnp.where(a > b, a, b)


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "small": {"widths": (16, 32, 64, 128)},
    "ullah4": {"widths": (32, 64, 128, 256)},
}
"""`small` is the default. `ullah4` has the four convolutions and four poolings that Ullah et al. 2020 (Remote Sensing
12:1685) describe, for images of 256 x 256 (the recipe `mitbih_256`); its widths and its norm are ours."""

RESNET_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "resnet18_2d": {"block": "basic", "depths": (2, 2, 2, 2), "widths": (64, 128, 256, 512)},
}
