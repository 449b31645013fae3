"""Residual network for images, channels last: the CMR encoder."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.models.norms import BatchNorm, GroupNorm, wide

_he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nnx.Module):
    """Square convolution without bias, padded by half its size on all sides; kernel He normal (fan out)."""

    def __init__(
        self, channels_in: int, channels_out: int, *, size: int, stride: int = 1, dtype: str, rngs: nnx.Rngs
    ):
        self.size, self.stride, self.dtype = size, stride, dtype
        self.kernel = nnx.Param(_he_normal(rngs.params(), (size, size, channels_in, channels_out)))

    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y2 x2 d"]:
        """Convolves."""
        kernel, x = self.kernel[...].astype(self.dtype), x.astype(self.dtype)
        if self.size == 1:
            # As a product of two matrices: 1.3 times as fast as the convolution on CPU.
            x = x[:, :: self.stride, :: self.stride]
            return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:3], -1)
        pad = self.size // 2
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            ((pad, pad), (pad, pad)),  # SAME would pad one side more at stride 2.
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


_NORMS = {"batch": BatchNorm, "group": GroupNorm}
MakeNorm = Callable[..., nnx.Module]


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(
        self, channels_in: int, width: int, *, stride: int, norm: MakeNorm, dtype: str, rngs: nnx.Rngs
    ):
        self.conv1 = Conv(channels_in, width, size=3, stride=stride, dtype=dtype, rngs=rngs)
        self.norm1 = norm(width, dtype=dtype, rngs=rngs)
        self.conv2 = Conv(width, width, size=3, dtype=dtype, rngs=rngs)
        self.norm2 = norm(width, dtype=dtype, rngs=rngs)
        self.shortcut = _shortcut(channels_in, width, stride=stride, norm=norm, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b y x c"], *, train: bool) -> Float[Array, "b y2 x2 d"]:
        """Adds what the convolutions make of `x` to its shortcut."""
        branch = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        branch = self.norm2(self.conv2(branch), train=train)
        return jax.nn.relu(branch + (x if self.shortcut is None else self.shortcut(x, train=train)))


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolution and a shortcut; the stride sits on the 3x3."""

    expansion = 4

    def __init__(
        self, channels_in: int, width: int, *, stride: int, norm: MakeNorm, dtype: str, rngs: nnx.Rngs
    ):
        self.conv1 = Conv(channels_in, width, size=1, dtype=dtype, rngs=rngs)
        self.norm1 = norm(width, dtype=dtype, rngs=rngs)
        self.conv2 = Conv(width, width, size=3, stride=stride, dtype=dtype, rngs=rngs)
        self.norm2 = norm(width, dtype=dtype, rngs=rngs)
        self.conv3 = Conv(width, 4 * width, size=1, dtype=dtype, rngs=rngs)
        self.norm3 = norm(4 * width, dtype=dtype, rngs=rngs)
        self.shortcut = _shortcut(channels_in, 4 * width, stride=stride, norm=norm, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b y x c"], *, train: bool) -> Float[Array, "b y2 x2 d"]:
        """Adds what the convolutions make of `x` to its shortcut."""
        branch = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        branch = jax.nn.relu(self.norm2(self.conv2(branch), train=train))
        branch = self.norm3(self.conv3(branch), train=train)
        return jax.nn.relu(branch + (x if self.shortcut is None else self.shortcut(x, train=train)))


class Shortcut(nnx.Module):
    """1x1 convolution and norm, where a block changes the shape."""

    def __init__(
        self, channels_in: int, width: int, *, stride: int, norm: MakeNorm, dtype: str, rngs: nnx.Rngs
    ):
        self.conv = Conv(channels_in, width, size=1, stride=stride, dtype=dtype, rngs=rngs)
        self.norm = norm(width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b y x c"], *, train: bool) -> Float[Array, "b y2 x2 d"]:
        """Brings `x` to the shape of the branch."""
        return self.norm(self.conv(x), train=train)


def _shortcut(channels_in, width, *, stride, **options):
    if stride == 1 and channels_in == width:
        return None
    return Shortcut(channels_in, width, stride=stride, **options)


_BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}
_STEMS = {"imagenet": (7, 2), "small": (3, 1), "small_stride2": (3, 2)}
"""Size and stride of the first convolution; only `imagenet` is followed by a max-pool."""


class ResNet(nnx.Module):
    """Residual network of any input size and channels.

    Stage i has `depths[i]` blocks of width `widths[i]` (a `bottleneck` puts out four times that); every stage
    but the first halves the map. Stem `imagenet` reduces by 4, `small` by 1, `small_stride2` by 2.
    Norm `batch` uses the global batch, or of it `norm_group` examples at a time (`BatchNorm`); `group` (8 groups)
    keeps samples apart and has no statistics. `reads` picks channels of the image by position; without it the image
    has `channels` of them. `remat="blocks"` keeps only the inputs of blocks for the backward pass, which computes the
    rest again.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        reads: Sequence[int] | None = None,
        depths: Sequence[int],
        widths: Sequence[int],
        block: str = "basic",
        stem: str = "imagenet",
        norm: str = "batch",
        norm_group: int | None = None,
        remat: Literal["none", "blocks"] = "none",
        dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        for name, value, choices in (
            ("block", block, _BLOCKS),
            ("stem", stem, _STEMS),
            ("norm", norm, _NORMS),
        ):
            if value not in choices:
                raise ValueError(f"unknown {name} {value!r}; choose from {', '.join(choices)}.")
        if len(depths) != len(widths):
            raise ValueError(f"depths {tuple(depths)} and widths {tuple(widths)} must name the same stages.")
        if norm_group is not None and norm != "batch":
            raise ValueError(f"norm_group is {norm_group}, but norm {norm!r} has no batch; leave it None.")
        self.stem, self.reads, self.remat = stem, None if reads is None else tuple(reads), remat
        make_norm = _NORMS[norm] if norm_group is None else functools.partial(BatchNorm, group=norm_group)
        size, stride = _STEMS[stem]
        self.conv1 = Conv(channels, widths[0], size=size, stride=stride, dtype=dtype, rngs=rngs)
        self.norm1 = make_norm(widths[0], dtype=dtype, rngs=rngs)
        make_block = _BLOCKS[block]
        channels_in = widths[0]
        stages = []
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(
                    make_block(channels_in, width, stride=stride, norm=make_norm, dtype=dtype, rngs=rngs)
                )
                channels_in = width * make_block.expansion
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.width = channels_in

    @property
    def last_block(self) -> tuple[str, ...]:
        """Regexes of the paths that partial fine-tuning trains."""
        return (f"stages/{len(self.stages) - 1}/{len(self.stages[-1]) - 1}/",)

    def __call__(
        self, image: Float[Array, "b y x c"], *, train: bool = False, key: PRNGKeyArray | None = None
    ) -> dict[str, Float[Array, "..."]]:
        """Returns `embedding [b d]`, the mean over the map, and `map [b y x d]`."""
        x = self.first(image, train=train)
        for blocks in self.stages:
            for block in blocks:
                x = block(x, train=train) if self.remat == "none" else _again(block, x, train=train)
        return {"embedding": wide(x).mean((1, 2)).astype(x.dtype), "map": x}

    def first(self, image: Float[Array, "b y x c"], *, train: bool) -> Float[Array, "b y2 x2 c2"]:
        """What enters the first stage."""
        image = image if self.reads is None else image[..., jnp.array(self.reads)]
        x = jax.nn.relu(self.norm1(self.conv1(image), train=train))
        return _max_pool(x) if self.stem == "imagenet" else x


def _again(block, x, *, train):
    """`block(x)`, of which the backward pass finds `x` alone."""
    graph, params, stats = nnx.split(block, nnx.Param, nnx.BatchStat)

    @jax.checkpoint
    def pure(params, stats, x):
        merged = nnx.merge(graph, params, stats)
        return merged(x, train=train), nnx.state(merged, nnx.BatchStat)

    x, stats = pure(params, stats, x)
    nnx.update(block, stats)
    return x


def _max_pool(x):
    """3x3 maximum at stride 2; the border counts as minus infinity."""
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    )


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "resnet18": {"block": "basic", "depths": (2, 2, 2, 2), "widths": (64, 128, 256, 512)},
    "resnet50": {"block": "bottleneck", "depths": (3, 4, 6, 3), "widths": (64, 128, 256, 512)},
    "tiny": {
        "block": "basic",
        "depths": (1, 1, 1),
        "widths": (16, 32, 64),
        "stem": "small_stride2",
        "norm": "group",
    },
}
"""`resnet50` is the paper's; `tiny` is for images of about 32 pixels on a CPU."""
