"""Networks: arrays in, named dict out."""

from collections.abc import Mapping

from flax import nnx

from ecgjax.models.leadwise import Leadwise
from ecgjax.models.resnet import ResNet
from ecgjax.models.stft_cnn import StftCnn, StftResNet, StftVit
from ecgjax.models.unet import UNet
from ecgjax.models.vit import Vit

ENCODERS: Mapping[str, type[nnx.Module]] = {
    "vit": Vit,
    "resnet": ResNet,
    "unet": UNet,
    "stft_cnn": StftCnn,
    "stft_resnet": StftResNet,
    "stft_vit": StftVit,
    "leadwise": Leadwise,
}
"""Encoders by the name that a config gives. Each has `width` and `last_block`, and returns its `embedding`."""
