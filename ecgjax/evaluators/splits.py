"""The splits of a prepared data directory, as evaluators see them."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath
from jaxtyping import Float

from ecgjax.data.identifiers import as_hex
from ecgjax.data.manifest import read_manifest
from ecgjax.data.pipeline import evaluation_batches
from ecgjax.data.shards import read_split
from ecgjax.evaluators.base import Batch, Examples, Splits


def open_splits(
    directory: epath.PathLike,
    *,
    batch_size: int,
    crop: int | None = None,
    crops: int = 1,
    modalities: Sequence[str] | None = None,
) -> Splits:
    """Opens a data directory; predictions of `crops` evenly spaced crops of an ECG are averaged."""
    manifest = read_manifest(directory)
    ecg = manifest.input_spec.ecg

    def batches(split: str) -> Iterable[Batch]:
        return evaluation_batches(
            directory,
            batch_size=batch_size,
            split=split,
            crop=crop,
            crops=crops,
            modalities=modalities,
        )

    @functools.cache
    def examples(split: str) -> Examples:
        fields = read_split(directory, manifest, split, names=("subject", "record", "label"))
        return Examples(as_hex(fields["subject"]), as_hex(fields["record"]), fields["label"])

    def to_mv(split: str) -> tuple[Float[np.ndarray, "n l"], Float[np.ndarray, "n l"]]:
        fields = read_split(directory, manifest, split, names=("ecg_offset", "ecg_scale"))
        return fields["ecg_offset"], fields["ecg_scale"]

    def signals_mv(split: str) -> Float[np.ndarray, "n l t"]:
        offset, scale = to_mv(split)
        fields = read_split(directory, manifest, split, names=("ecg", "ecg_step"))
        conditioned = fields["ecg"] * fields["ecg_step"][:, None, None]
        return conditioned * scale[:, :, None] + offset[:, :, None]

    return Splits(
        targets=tuple(column.target for column in manifest.targets),
        rate_hz=ecg.rate_hz if ecg else float("nan"),
        batches=batches,
        examples=examples,
        signals_mv=signals_mv,
        to_mv=to_mv,
        cohort=manifest.cohort,
        image=ecg.image if ecg else None,
    )
