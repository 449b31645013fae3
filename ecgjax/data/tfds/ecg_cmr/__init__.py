"""The dataset `ecg_cmr` of TensorFlow Datasets; the builder must live in a package of its name."""

from ecgjax.data.tfds.ecg_cmr.ecg_cmr_dataset_builder import Builder

__all__ = ["Builder"]
