"""Networks: arrays in, named dict out."""

from collections.abc import Mapping

from flax import nnx

from ecgjax.models.resnet import ResNet
from ecgjax.models.unet import UNet
from ecgjax.models.vit import Vit

ENCODERS: Mapping[str, type[nnx.Module]] = {"vit": Vit, "resnet": ResNet, "unet": UNet}
"""Encoders by the name that a config gives."""
