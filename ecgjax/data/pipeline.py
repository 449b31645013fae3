"""Batches of a prepared data directory, read by Grain; a training batch is known by its number."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import grain
import numpy as np
from etils import epath
from jaxtyping import Int

from ecgjax.data.assembly import (
    Batch,
    BatchData,
    EvaluationAssembly,
    Partners,
    TrainAssembly,
    open_examples,
)
from ecgjax.data.few_labels import labelled_positions
from ecgjax.data.manifest import read_manifest
from ecgjax.data.similarity import SimilarityRows
from ecgjax.data.thinning import thinned_positions


class TrainBatches(Iterator[Batch]):
    """Endless batches of this process, by number: iterating goes on from `next_batch`.

    A batch depends on its number alone, so that number is the whole position: the same for every process, however
    many there are, and for any number of workers. Workers start with the first batch that is asked for.
    """

    def __init__(
        self, positions: grain.MapDataset, make: TrainAssembly, *, workers: int, threads: int, prefetch: int
    ):
        self._positions, self._make, self._options = positions, make, (workers, threads, prefetch)
        self._iterator: grain.DatasetIterator | None = None
        self._next = 0

    @property
    def next_batch(self) -> int:
        """Number of the batch that comes next; what a checkpoint holds of the data."""
        return self._next

    def seek(self, number: int) -> None:
        """Goes on with batch `number`."""
        if number < 0:
            raise ValueError(f"Batch {number} is below 0.")
        self.close()
        self._next = number

    def __next__(self) -> Batch:
        if self._iterator is None:
            batches = self._positions.map_with_index(self._make)
            self._iterator = _iterate(batches[self._next :], *self._options)
        batch = next(self._iterator)
        self._next += 1
        return batch

    @property
    def split(self) -> str:
        """What they are drawn from."""
        return self._make.data.split

    @property
    def batch_size(self) -> int:
        """Rows of a global batch, those of other processes too."""
        return len(self._positions[0])

    def read(self, number: int, rows: np.ndarray) -> Batch:
        """Some rows of global batch `number`, whoever delivers them; leaves the position alone."""
        make = dataclasses.replace(self._make, data=dataclasses.replace(self._make.data, rows=rows))
        return make(number, self._positions[number])

    def close(self) -> None:
        """Ends the workers; the position stays."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def train_batches(
    directory: epath.PathLike,
    *,
    batch_size: int,
    seed: int,
    crop: int | None = None,
    reference_crop: bool = False,
    pairing: Literal["true", "permuted"] = "true",
    modalities: Sequence[str] | None = None,
    similarity: str | None = None,
    max_labels: int | None = None,
    thin: Mapping[str, float] | None = None,
    rows: np.ndarray | None = None,
    cache: bool = False,
    workers: int = 0,
    threads: int = 1,
    prefetch: int = 4,
) -> TrainBatches:
    """Endless shuffled batches of the train split, those of this process.

    `batch_size` is global; `rows` are those of every global batch that this process delivers, ascending, None for
    all. An epoch is floor(examples / batch_size) batches without a repeated example; what does not fill a batch is
    left out, anew in every epoch. Batch k depends on (directory, batch_size, crop, seed, k) alone, neither
    on `cache`, `workers`, `threads` nor on which rows are asked for. With workers the arrays are views of shared
    memory: copy them to the device before asking for the next.

    The ECG crop starts at a uniform integer in [0, length - crop]. `reference_crop` leaves the last of them
    out, as the reference implementation of MMCL does. `cache` decodes the split once into memory. `prefetch`
    counts batches; more `threads` pay on a slow disk only (with a warm one, 2 give 0.7 to 1 of what 1 gives).

    `pairing="permuted"` is the control that must learn nothing from pairs: every example keeps the CMR of one
    other subject, drawn once from `seed`; labels and subject stay those of the ECG.

    `similarity` is the path of a .npy [n n] that says how alike the n examples of the split are, in their order; a
    batch then holds `similarity [b n]`, the row of each example. Whole rows, so that columns can be picked by
    `index` wherever the batch is put together or cut; store float16 where n is large.

    `max_labels` leaves only so many labelled examples, of whole subjects: those that a linear probe of as many labels
    is fitted on. `thin` names labels and the share of the examples with each that is trained on, drawn once from
    `seed`. Finding either reads the split once.
    """
    data = _open(directory, "train", crop, modalities, batch_size, rows)
    _check_workers(workers, threads, prefetch, cache)
    if not 0 <= seed < 2**32:
        raise ValueError(f"config.seed: {seed} is outside 0 to 2**32 - 1.")
    if thin and max_labels is not None:
        raise ValueError(
            f"config.data: thin {dict(thin)} and max_labels {max_labels} both choose examples; set one of them."
        )
    chosen = None
    if max_labels is not None:
        chosen = labelled_positions(directory, data.manifest, data.split, max_labels)
    elif thin:
        chosen = thinned_positions(directory, data.manifest, data.split, thin, seed=seed)
    examples = data.examples if chosen is None else len(chosen)
    if batch_size > examples:
        raise ValueError(
            f"config.data.batch_size: a batch of {batch_size} is more than the {examples} examples of "
            f"split {data.split!r}, so no batch could be filled; "
            f"choose {examples} or fewer, or prepare more data."
        )
    if pairing not in ("true", "permuted"):
        raise ValueError(f"config.data.pairing: unknown {pairing!r}; choose 'true' or 'permuted'.")
    if pairing == "permuted" and set(data.modalities) != {"ecg", "cmr"}:
        raise ValueError(
            "config.data.pairing: 'permuted' needs both ECG and CMR, config.data.modalities are "
            f"{list(data.modalities)}; choose pairing 'true'."
        )
    examples_of = open_examples(directory, data, cache)
    partners = Partners(data.examples, seed) if pairing == "permuted" else None
    matrix = None if similarity is None else SimilarityRows(similarity, data.examples)
    positions = (
        grain.MapDataset.range(examples)
        .seed(seed)
        .shuffle()
        .batch(batch_size, drop_remainder=True, batch_fn=_as_positions)
        .repeat(None)
    )
    make = TrainAssembly(data, examples_of, seed, reference_crop, partners, matrix, chosen)
    return TrainBatches(positions, make, workers=workers, threads=threads, prefetch=prefetch)


def evaluation_batches(
    directory: epath.PathLike,
    *,
    batch_size: int,
    split: str,
    crop: int | None = None,
    crops: int = 1,
    modalities: Sequence[str] | None = None,
    rows: np.ndarray | None = None,
    cache: bool = False,
    threads: int = 1,
    prefetch: int = 4,
) -> grain.DatasetIterator:
    """Every example of a split once, in order; all processes get the same number of batches.

    One crop an example starts at sample 0; with `crops` above 1 every example takes that many consecutive rows,
    whose crops are evenly spaced from the first to the last legal start.
    Rows that fill the last batch have `mask` False, `index` -1, `subject` 0, NaN labels, and signals of the
    last example, so that they are as harmless to a network as real ones.
    """
    data = _open(directory, split, crop, modalities, batch_size, rows)
    _check_workers(0, threads, prefetch, cache)
    if crops < 1:
        raise ValueError(f"{crops} crops an example; ask for at least 1.")
    starts = crop_starts(data.length, data.crop, crops=crops)
    batches = grain.MapDataset.range(-(-data.examples * crops // batch_size)).map(
        EvaluationAssembly(data, open_examples(directory, data, cache), batch_size, starts)
    )
    return _iterate(batches, 0, threads, prefetch)


def crop_starts(length: int, crop: int, *, crops: int) -> Int[np.ndarray, "crops"]:
    """First samples of the crops of evaluation: 0, or evenly spaced up to the last that fits."""
    return np.rint(np.linspace(0, length - crop, crops)).astype(np.int64)


def _as_positions(positions: Sequence[int]) -> np.ndarray:
    return np.asarray(positions, np.int64)


def _open(
    directory: epath.PathLike,
    split: str,
    crop: int | None,
    modalities: Sequence[str] | None,
    batch_size: int,
    rows: np.ndarray | None,
) -> BatchData:
    manifest = read_manifest(directory)
    examples = manifest.split(split).examples
    modalities = manifest.modalities if modalities is None else tuple(modalities)
    absent = [name for name in modalities if name not in manifest.modalities]
    if absent or not modalities:
        raise ValueError(
            f"config.data.modalities: asked for {list(modalities)}, "
            f"{directory} has {list(manifest.modalities)}."
        )
    if batch_size < 1:
        raise ValueError(f"config.data.batch_size: {batch_size} is below 1.")
    rows = np.arange(batch_size) if rows is None else np.asarray(rows)
    if not len(rows) or rows[0] < 0 or rows[-1] >= batch_size or np.any(np.diff(rows) < 1):
        raise ValueError(f"Rows {rows.tolist()} are not some of 0 to {batch_size - 1}, ascending.")
    length = manifest.input_spec.ecg.length if "ecg" in modalities else 0
    if crop is not None and "ecg" in modalities and not 1 <= crop <= length:
        raise ValueError(
            f"config.data.crop: {crop} samples are not within 1 to {length}, the ECG length of {directory}."
        )
    if (
        "ecg" in modalities
        and (spec := manifest.input_spec.ecg).image is not None
        and crop not in (None, length)
    ):
        raise ValueError(
            f"config.data.crop is {crop}, but examples of {spec.length} samples are cut round their beats; set it to "
            f"{spec.length}."
        )
    return BatchData(
        manifest=manifest,
        split=split,
        examples=examples,
        length=length,
        crop=length if crop is None or "ecg" not in modalities else crop,
        modalities=modalities,
        rows=rows,
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


def _iterate(batches: grain.MapDataset, workers: int, threads: int, prefetch: int) -> grain.DatasetIterator:
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    iterator = batches.to_iter_dataset(options)
    if workers:
        iterator = iterator.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=prefetch)
        )
    return iter(iterator)
