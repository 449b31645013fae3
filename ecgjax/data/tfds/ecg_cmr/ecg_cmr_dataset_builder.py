"""TFDS builder over a prepared data directory; its generator copies examples, it conditions nothing."""

import json
import re
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from ecgjax.data.manifest import Manifest, read_manifest
from ecgjax.data.shards import ShardSource, verify

_DESCRIPTION = """Conditioned ECG and CMR examples of one cohort, prepared by ecgjax.

`ecg` is int16; `ecg * ecg_step` is the model input, and times `ecg_scale` plus `ecg_offset` it is millivolt.
`cmr` holds end-systole, mid and end-diastole as channels. NaN in `label` means missing. `subject` and
`record` are keyed hashes. The manifest of ecgjax is the metadata."""


class Builder(tfds.core.GeneratorBasedBuilder):
    """Takes `prepared`, a data directory of ecgjax; the cohort becomes the config name."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, prepared: str, **settings):
        self._prepared = prepared
        self._manifest = read_manifest(prepared)
        name = re.sub(r"\W+", "_", self._manifest.cohort)
        config = tfds.core.BuilderConfig(
            name=f"{name}_{self._manifest.fingerprint[:8]}", description=f"Cohort {self._manifest.cohort}."
        )
        super().__init__(config=config, **settings)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=features(self._manifest),
            disable_shuffling=True,  # Positions stay those of the shards.
            metadata=tfds.core.MetadataDict(manifest=json.dumps(self._manifest.to_json())),
        )

    def _split_generators(self, dl_manager) -> dict:
        verify(self._prepared, self._manifest, progress=False)
        return {
            name: self._generate_examples(name)
            for name, split in self._manifest.splits.items()
            if split.examples
        }

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        source = ShardSource(self._prepared, self._manifest, split)
        for position in range(len(source)):
            yield position, self._manifest.schema.views(source[position])


def features(manifest: Manifest) -> tfds.features.FeaturesDict:
    """The fields as bytes: a plain int16 tensor would be stored as int64 list, thrice the size."""
    return tfds.features.FeaturesDict(
        {
            field.name: tfds.features.Tensor(
                shape=tuple(field.shape),
                dtype=np.dtype(field.dtype),
                encoding="bytes" if field.shape else "none",
            )
            for field in manifest.schema.fields
        }
    )
