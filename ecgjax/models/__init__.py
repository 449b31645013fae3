"""Networks: arrays in, named dict out."""

from collections.abc import Mapping

from flax import nnx

from ecgjax.models.resnet import ResNet
from ecgjax.models.vit import Vit

ENCODERS: Mapping[str, type[nnx.Module]] = {"vit": Vit, "resnet": ResNet}
"""Encoders by the name that a config gives."""
