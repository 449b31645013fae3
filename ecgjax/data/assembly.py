"""From the positions of a batch to its arrays: crops, partners, labels, whoever delivers which rows."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from etils import epath

from ecgjax.data.manifest import Manifest
from ecgjax.data.shards import ShardSource, read_split
from ecgjax.data.similarity import SimilarityRows

Batch = dict[str, np.ndarray]

_MODALITY_FIELDS = {"ecg": ("ecg", "ecg_step"), "cmr": ("cmr",)}
_BESIDE = {"beats": np.int32, "rr": np.float32}  # Stored with the ECG where the data set has it.
_CROP_STREAM = 0x63726F70  # Keeps the crop draws apart from anything else that is seeded with (seed, step).
_PARTNER_STREAM = 0x70616972


@dataclasses.dataclass(frozen=True)
class BatchData:
    """What both kinds of batch need to know; checked against the manifest."""

    manifest: Manifest
    split: str
    examples: int
    length: int
    crop: int
    modalities: tuple[str, ...]
    rows: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """The stored fields that a batch is made of."""
        names = tuple(name for modality in self.modalities for name in _MODALITY_FIELDS[modality])
        names += tuple(field.name for field in self.manifest.schema.fields if field.name in _BESIDE)
        return (*names, *(("label",) if self.manifest.targets else ()), "subject")


@dataclasses.dataclass(frozen=True)
class Stored:
    """Examples read from their shards at every use."""

    source: ShardSource
    data: BatchData

    def __call__(self, position: int) -> Mapping[str, np.ndarray]:
        """The fields of one example."""
        return self.data.manifest.schema.views(self.source[position], self.data.names)


@dataclasses.dataclass(frozen=True)
class Cached:
    """Examples of a split that was decoded before."""

    arrays: Mapping[str, np.ndarray]

    def __call__(self, position: int) -> Mapping[str, np.ndarray]:
        """The fields of one example."""
        return {name: values[position] for name, values in self.arrays.items()}


Examples = Callable[[int], Mapping[str, np.ndarray]]


class Partners:
    """For every position that of another subject: the next one round a random circle of all positions."""

    def __init__(self, examples: int, seed: int):
        self._circle = np.random.default_rng((seed, _PARTNER_STREAM)).permutation(examples)
        self._place = np.argsort(self._circle)

    def __call__(
        self, position: int, example: Mapping[str, np.ndarray], examples: Examples
    ) -> Mapping[str, np.ndarray]:
        """The example whose CMR the one at `position` is shown with."""
        for step in range(1, len(self._circle)):
            partner = examples(int(self._circle[(self._place[position] + step) % len(self._circle)]))
            if not np.array_equal(
                partner["subject"], example["subject"]
            ):  # A subject may have several records.
                return partner
        raise ValueError("config.data.pairing: the split has one subject only, so nobody to permute with.")


@dataclasses.dataclass(frozen=True)
class TrainAssembly:
    """Positions of a global batch to the arrays of this process."""

    data: BatchData
    examples: Examples
    seed: int
    reference_crop: bool
    partners: Partners | None
    matrix: SimilarityRows | None
    chosen: np.ndarray | None

    def __call__(self, step: int, positions: np.ndarray) -> Batch:
        """Batch `step`, whose examples lie at `positions` of the split, or of those chosen from it."""
        if self.chosen is not None:
            positions = self.chosen[positions]
        # Drawn for the global batch, so that a row's crop does not depend on how many processes share it.
        offsets = self.data.length - self.data.crop + (0 if self.reference_crop else 1)
        generator = np.random.default_rng((self.seed, _CROP_STREAM, step))
        starts = generator.integers(0, max(offsets, 1), size=len(positions))
        positions, starts = positions[self.data.rows], starts[self.data.rows]
        mask = np.ones(len(positions), np.bool_)
        batch = _assemble(self.data, self.examples, positions, starts, mask, self.partners)
        if self.matrix is not None:
            batch["similarity"] = self.matrix(positions)
        return batch


@dataclasses.dataclass(frozen=True)
class EvaluationAssembly:
    """Number of a global batch to the arrays of this process."""

    data: BatchData
    examples: Examples
    batch_size: int
    starts: np.ndarray

    def __call__(self, number: int) -> Batch:
        """Batch `number`; rows beyond the last example are masked."""
        crops = len(self.starts)
        row = number * self.batch_size + self.data.rows
        mask = row < self.data.examples * crops
        row = np.minimum(row, self.data.examples * crops - 1)
        batch = _assemble(self.data, self.examples, row // crops, self.starts[row % crops], mask)
        batch["label"][~mask] = np.nan
        batch["subject"][~mask] = 0
        batch["index"][~mask] = -1
        return batch


def _assemble(
    data: BatchData,
    examples: Examples,
    positions: np.ndarray,
    starts: np.ndarray,
    mask: np.ndarray,
    partners: Partners | None = None,
) -> Batch:
    size, schema = len(positions), data.manifest.schema
    batch = {
        "label": np.empty((size, len(data.manifest.targets)), np.float32),
        "subject": np.empty((size, 2), np.uint32),
        "index": positions.astype(np.int32),
        "mask": mask,
    }
    if "ecg" in data.modalities:
        batch["ecg"] = np.empty((size, schema.field("ecg").shape[0], data.crop), np.float32)
    if "cmr" in data.modalities:
        batch["cmr"] = np.empty((size, *schema.field("cmr").shape), np.float32)
    beside = [name for name in data.names if name in _BESIDE]
    for name in beside:
        batch[name] = np.empty((size, *schema.field(name).shape), _BESIDE[name])
    for i, (position, start) in enumerate(zip(positions.tolist(), starts.tolist(), strict=True)):
        example = examples(position)
        if "ecg" in batch:  # int16 times float32 is the dequantised signal; only the crop is touched.
            np.multiply(
                example["ecg"][:, start : start + data.crop], example["ecg_step"], out=batch["ecg"][i]
            )
        if "cmr" in batch:
            partner = example if partners is None else partners(position, example, examples)
            batch["cmr"][i] = partner["cmr"]
        if data.manifest.targets:
            batch["label"][i] = example["label"]
        for name in beside:
            batch[name][i] = example[name]
        batch["subject"][i] = example["subject"].view("<u4")
    return batch


def open_examples(directory: epath.PathLike, data: BatchData, cache: bool) -> Examples:
    """How examples are read: from their shards at every use, or all of them now."""
    if cache:
        return Cached(read_split(directory, data.manifest, data.split, names=data.names))
    return Stored(ShardSource(directory, data.manifest, data.split), data)
