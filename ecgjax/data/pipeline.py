"""Batches of a prepared data directory, as Grain iterators whose position can be saved and restored."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import grain
import numpy as np
from etils import epath
from jaxtyping import Int

from ecgjax.data.few_labels import labelled_positions
from ecgjax.data.manifest import Manifest, read_manifest
from ecgjax.data.shards import ShardSource, read_split
from ecgjax.data.similarity import SimilarityRows

Batch = dict[str, np.ndarray]

_MODALITY_FIELDS = {"ecg": ("ecg", "ecg_step"), "cmr": ("cmr",)}
_CROP_STREAM = 0x63726F70  # Keeps the crop draws apart from anything else that is seeded with (seed, step).
_PARTNER_STREAM = 0x70616972


def train_batches(
    directory: epath.PathLike,
    *,
    batch_size: int,
    seed: int,
    split: str = "train",
    crop: int | None = None,
    reference_crop: bool = False,
    pairing: Literal["true", "permuted"] = "true",
    modalities: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    similarity: str | None = None,
    max_labels: int | None = None,
    shard_index: int = 0,
    shard_count: int = 1,
    cache: bool = False,
    workers: int = 0,
    threads: int = 1,
    prefetch: int = 4,
) -> grain.DatasetIterator:
    """Endless shuffled batches of this process.

    `batch_size` is global: process `shard_index` of `shard_count` gets rows
    [shard_index * local, (shard_index + 1) * local) of every global batch. An epoch is
    floor(examples / batch_size) batches without a repeated example; what does not fill a batch is left out,
    anew in every epoch. Batch k depends on (directory, split, batch_size, crop, seed, k) alone, neither on
    `cache`, `workers`, `threads` nor on `shard_count`: with `workers=0` the state is {"next_index": k}, so
    that `set_state(state_at(k))` resumes with any number of processes. With workers the state fits the same
    number of workers only, and the arrays are views of shared memory: copy them to the device before asking
    for the next.

    The ECG crop starts at a uniform integer in [0, length - crop]. `reference_crop` leaves the last of them
    out, as the reference implementation of MMCL does. `cache` decodes the split once into memory. `prefetch`
    counts batches; more `threads` pay on a slow disk only (with a warm one, 2 give 0.7 to 1 of what 1 gives).
    `targets` picks label columns; None gives all.

    `pairing="permuted"` is the control that must learn nothing from pairs: every example keeps the CMR of one
    other subject, drawn once from `seed`; labels and subject stay those of the ECG.

    `similarity` is the path of a .npy [n n] that says how alike the n examples of the split are, in their order; a
    batch then holds `similarity [b n]`, the row of each example. Whole rows, so that columns can be picked by
    `index` wherever the batch is put together or cut; store float16 where n is large.

    `max_labels` leaves only so many labelled examples, of whole subjects: those that a linear probe of as many labels
    is fitted on. Finding them reads the split once.
    """
    data = _open(directory, split, crop, modalities, targets, batch_size, shard_index, shard_count)
    _check_workers(workers, threads, prefetch, cache)
    if not 0 <= seed < 2**32:
        raise ValueError(f"config.seed: {seed} is outside 0 to 2**32 - 1.")
    chosen = (
        None
        if max_labels is None
        else labelled_positions(directory, data.manifest, split, data.columns, max_labels)
    )
    examples = data.examples if chosen is None else len(chosen)
    if batch_size > examples:
        raise ValueError(
            f"config.data.batch_size: a batch of {batch_size} is more than the {examples} examples of "
            f"split {split!r}, so no batch could be filled; "
            f"choose {examples} or fewer, or prepare more data."
        )
    if pairing not in ("true", "permuted"):
        raise ValueError(f"config.data.pairing: unknown {pairing!r}; choose 'true' or 'permuted'.")
    if pairing == "permuted" and set(data.modalities) != {"ecg", "cmr"}:
        raise ValueError(
            "config.data.pairing: 'permuted' needs both ECG and CMR, config.data.modalities are "
            f"{list(data.modalities)}; choose pairing 'true'."
        )
    rows = _rows(directory, data, cache)
    partners = _Partners(data.examples, seed) if pairing == "permuted" else None
    matrix = None if similarity is None else SimilarityRows(similarity, data.examples)
    batches = (
        grain.MapDataset.range(examples)
        .seed(seed)
        .shuffle()
        .batch(batch_size, drop_remainder=True, batch_fn=_as_positions)
        .repeat(None)
        .map_with_index(_TrainBatch(data, rows, seed, reference_crop, partners, matrix, chosen))
    )
    return _iterate(batches, workers, threads, prefetch)


def evaluation_batches(
    directory: epath.PathLike,
    *,
    batch_size: int,
    split: str,
    crop: int | None = None,
    crops: int = 1,
    position: Literal["first", "centre"] = "first",
    modalities: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    shard_index: int = 0,
    shard_count: int = 1,
    cache: bool = False,
    workers: int = 0,
    threads: int = 1,
    prefetch: int = 4,
) -> grain.DatasetIterator:
    """Every example of a split once, in order; all processes get the same number of batches.

    One crop an example lies at `position` ("first" starts at sample 0); with `crops` above 1 every example
    takes that many consecutive rows, whose crops are evenly spaced from the first to the last legal start.
    Rows that fill the last batch have `mask` False, `index` -1, `subject` 0, NaN labels, and signals of the
    last example, so that they are as harmless to a network as real ones.
    """
    data = _open(directory, split, crop, modalities, targets, batch_size, shard_index, shard_count)
    _check_workers(workers, threads, prefetch, cache)
    if crops < 1:
        raise ValueError(f"config.data.crops: {crops} is below 1.")
    starts = crop_starts(data.length, data.crop, crops=crops, position=position)
    rows = _rows(directory, data, cache)
    batches = grain.MapDataset.range(-(-data.examples * crops // batch_size)).map(
        _EvaluationBatch(data, rows, batch_size, starts)
    )
    return _iterate(batches, workers, threads, prefetch)


def state_at(step: int) -> dict[str, int]:
    """The state of a training iterator with `workers=0` that will return batch `step` next."""
    if step < 0:
        raise ValueError(f"Step {step} is below 0.")
    return {"next_index": step}


def steps_per_epoch(manifest: Manifest, *, split: str, batch_size: int) -> int:
    """Whole batches in one pass over `split`."""
    return manifest.split(split).examples // batch_size


def crop_starts(
    length: int, crop: int, *, crops: int, position: Literal["first", "centre"] = "first"
) -> Int[np.ndarray, "crops"]:
    """First samples of the crops of evaluation."""
    last = length - crop
    if crops == 1:
        return np.array([0 if position == "first" else last // 2])
    return np.rint(np.linspace(0, last, crops)).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class _Data:
    """What both kinds of batch need to know; checked against the manifest."""

    manifest: Manifest
    split: str
    examples: int
    length: int
    crop: int
    modalities: tuple[str, ...]
    columns: tuple[int, ...]
    local: int
    shard_index: int

    @property
    def names(self) -> tuple[str, ...]:
        names = tuple(name for modality in self.modalities for name in _MODALITY_FIELDS[modality])
        return (*names, *(("label",) if self.columns else ()), "subject")

    @property
    def slice(self) -> slice:
        return slice(self.shard_index * self.local, (self.shard_index + 1) * self.local)


@dataclasses.dataclass(frozen=True)
class _Stored:
    """Examples read from their shards at every use."""

    source: ShardSource
    data: _Data

    def __call__(self, position: int) -> Mapping[str, np.ndarray]:
        return self.data.manifest.schema.views(self.source[position], self.data.names)


@dataclasses.dataclass(frozen=True)
class _Cached:
    """Examples of a split that was decoded before."""

    arrays: Mapping[str, np.ndarray]

    def __call__(self, position: int) -> Mapping[str, np.ndarray]:
        return {name: values[position] for name, values in self.arrays.items()}


_Rows = Callable[[int], Mapping[str, np.ndarray]]


class _Partners:
    """For every position that of another subject: the next one round a random circle of all positions."""

    def __init__(self, examples: int, seed: int):
        self._circle = np.random.default_rng((seed, _PARTNER_STREAM)).permutation(examples)
        self._place = np.argsort(self._circle)

    def __call__(
        self, position: int, example: Mapping[str, np.ndarray], rows: _Rows
    ) -> Mapping[str, np.ndarray]:
        for step in range(1, len(self._circle)):
            partner = rows(int(self._circle[(self._place[position] + step) % len(self._circle)]))
            if not np.array_equal(
                partner["subject"], example["subject"]
            ):  # A subject may have several records.
                return partner
        raise ValueError("config.data.pairing: the split has one subject only, so nobody to permute with.")


@dataclasses.dataclass(frozen=True)
class _TrainBatch:
    """Positions of a global batch to the arrays of this process."""

    data: _Data
    rows: _Rows
    seed: int
    reference_crop: bool
    partners: _Partners | None
    matrix: SimilarityRows | None
    chosen: np.ndarray | None

    def __call__(self, step: int, positions: np.ndarray) -> Batch:
        if self.chosen is not None:
            positions = self.chosen[positions]
        # Drawn for the global batch, so that a row's crop does not depend on how many processes share it.
        offsets = self.data.length - self.data.crop + (0 if self.reference_crop else 1)
        generator = np.random.default_rng((self.seed, _CROP_STREAM, step))
        starts = generator.integers(0, max(offsets, 1), size=len(positions))
        local = self.data.slice
        batch = _assemble(
            self.data,
            self.rows,
            positions[local],
            starts[local],
            np.ones(self.data.local, np.bool_),
            self.partners,
        )
        if self.matrix is not None:
            batch["similarity"] = self.matrix(positions[local])
        return batch


@dataclasses.dataclass(frozen=True)
class _EvaluationBatch:
    """Number of a global batch to the arrays of this process."""

    data: _Data
    rows: _Rows
    batch_size: int
    starts: np.ndarray

    def __call__(self, number: int) -> Batch:
        crops = len(self.starts)
        row = number * self.batch_size + np.arange(self.batch_size)[self.data.slice]
        mask = row < self.data.examples * crops
        row = np.minimum(row, self.data.examples * crops - 1)
        batch = _assemble(self.data, self.rows, row // crops, self.starts[row % crops], mask)
        batch["label"][~mask] = np.nan
        batch["subject"][~mask] = 0
        batch["index"][~mask] = -1
        return batch


def _assemble(
    data: _Data,
    rows: _Rows,
    positions: np.ndarray,
    starts: np.ndarray,
    mask: np.ndarray,
    partners: _Partners | None = None,
) -> Batch:
    size, schema = len(positions), data.manifest.schema
    batch = {
        "label": np.empty((size, len(data.columns)), np.float32),
        "subject": np.empty((size, 2), np.uint32),
        "index": positions.astype(np.int32),
        "mask": mask,
    }
    if "ecg" in data.modalities:
        batch["ecg"] = np.empty((size, schema.field("ecg").shape[0], data.crop), np.float32)
    if "cmr" in data.modalities:
        batch["cmr"] = np.empty((size, *schema.field("cmr").shape), np.float32)
    columns = list(data.columns)
    for i, (position, start) in enumerate(zip(positions.tolist(), starts.tolist(), strict=True)):
        example = rows(position)
        if "ecg" in batch:  # int16 times float32 is the dequantised signal; only the crop is touched.
            np.multiply(
                example["ecg"][:, start : start + data.crop], example["ecg_step"], out=batch["ecg"][i]
            )
        if "cmr" in batch:
            partner = example if partners is None else partners(position, example, rows)
            batch["cmr"][i] = partner["cmr"]
        if columns:
            batch["label"][i] = example["label"][columns]
        batch["subject"][i] = example["subject"].view("<u4")
    return batch


def _as_positions(positions: Sequence[int]) -> np.ndarray:
    return np.asarray(positions, np.int64)


def _open(
    directory: epath.PathLike,
    split: str,
    crop: int | None,
    modalities: Sequence[str] | None,
    targets: Sequence[str] | None,
    batch_size: int,
    shard_index: int,
    shard_count: int,
) -> _Data:
    manifest = read_manifest(directory)
    examples = manifest.split(split).examples
    modalities = manifest.modalities if modalities is None else tuple(modalities)
    absent = [name for name in modalities if name not in manifest.modalities]
    if absent or not modalities:
        raise ValueError(
            f"config.data.modalities: asked for {list(modalities)}, "
            f"{directory} has {list(manifest.modalities)}."
        )
    names = manifest.target_names
    unknown = [name for name in targets or () if name not in names]
    if unknown:
        raise ValueError(f"config.data.targets: unknown {unknown}; {directory} has {list(names)}.")
    if batch_size < 1 or not 0 <= shard_index < shard_count or batch_size % shard_count:
        raise ValueError(
            f"config.data.batch_size: a global batch of {batch_size} cannot be shared equally by "
            f"{shard_count} processes (this is number {shard_index}); choose a multiple of {shard_count}."
        )
    length = manifest.input_spec.ecg.length if "ecg" in modalities else 0
    if crop is not None and "ecg" in modalities and not 1 <= crop <= length:
        raise ValueError(
            f"config.data.crop: {crop} samples are not within 1 to {length}, the ECG length of {directory}."
        )
    return _Data(
        manifest=manifest,
        split=split,
        examples=examples,
        length=length,
        crop=length if crop is None or "ecg" not in modalities else crop,
        modalities=modalities,
        columns=tuple(names.index(name) for name in (names if targets is None else targets)),
        local=batch_size // shard_count,
        shard_index=shard_index,
    )


def _check_workers(workers: int, threads: int, prefetch: int, cache: bool) -> None:
    if workers < 0 or threads < 1 or prefetch < threads:
        raise ValueError(
            "config.data: workers must be at least 0, threads at least 1, prefetch at least threads; "
            f"got workers={workers}, threads={threads}, prefetch={prefetch}."
        )
    if workers and cache:
        raise ValueError(
            f"config.data.cache: {workers} worker processes would each hold a copy of the split; "
            "set config.data.workers=0, which is faster with a cache, or config.data.cache=False."
        )


def _rows(directory: epath.PathLike, data: _Data, cache: bool) -> _Rows:
    if cache:
        return _Cached(read_split(directory, data.manifest, data.split, names=data.names))
    return _Stored(ShardSource(directory, data.manifest, data.split), data)


def _iterate(batches: grain.MapDataset, workers: int, threads: int, prefetch: int) -> grain.DatasetIterator:
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    iterator = batches.to_iter_dataset(options)
    if workers:
        iterator = iterator.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=prefetch)
        )
    return iter(iterator)
