"""The examples of a prepared data directory as a TensorFlow Datasets source, without TensorFlow."""

from ecgjax.data.tfds.convert import build_tfds

__all__ = ["build_tfds"]
