"""All examples of a small data set in memory, whatever their split: for folds of patients that cut across splits."""

import dataclasses
from collections.abc import Iterator, Mapping

import grain
import numpy as np
from etils import epath
from jaxtyping import Float, Int

from ecgjax.data.assembly import Batch, BatchData, Cached, EvaluationAssembly, TrainAssembly
from ecgjax.data.identifiers import as_hex
from ecgjax.data.manifest import Manifest, read_manifest
from ecgjax.data.pipeline import TrainBatches, crop_starts
from ecgjax.data.shards import read_split

_FIELDS = ("ecg", "ecg_step", "beats", "rr", "label", "subject", "record")


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """The ECGs of a data directory with their labels, split after split in the order of the manifest.

    `label` [r m] has the columns of the manifest. Batches are those of `data.pipeline`, of chosen examples.
    """

    manifest: Manifest
    arrays: Mapping[str, np.ndarray]

    @property
    def subject(self) -> np.ndarray:
        """Whose each example is, hashed, as hex."""
        return as_hex(self.arrays["subject"])

    @property
    def split(self) -> np.ndarray:
        """The split of each example, by name."""
        splits = self.manifest.splits
        return np.repeat(list(splits), [split.examples for split in splits.values()])

    @property
    def label(self) -> Float[np.ndarray, "r m"]:
        """Label columns, NaN where missing."""
        return self.arrays["label"]

    def __len__(self) -> int:
        return len(self.arrays["subject"])

    def train_batches(
        self,
        chosen: Int[np.ndarray, " k"],
        label: Float[np.ndarray, "r m"],
        *,
        batch_size: int,
        crop: int,
        seed: int,
    ) -> TrainBatches:
        """Endless shuffled batches of the examples at `chosen`, with `label` in place of the stored ones.

        Whoever trains gives the labels that training may see, and no others.
        """
        if batch_size > len(chosen):
            raise ValueError(
                f"config.data.batch_size is {batch_size}, but a fold trains on {len(chosen)} recordings; choose "
                f"{len(chosen)} or fewer, or fewer folds."
            )
        positions = (
            grain.MapDataset.range(len(chosen))
            .seed(seed)
            .shuffle()
            .batch(batch_size, drop_remainder=True, batch_fn=lambda numbers: np.asarray(numbers, np.int64))
            .repeat(None)
        )
        examples = Cached({**self.arrays, "label": label.astype(np.float32)})
        make = TrainAssembly(self._data(batch_size, crop), examples, seed, False, None, None, chosen)
        return TrainBatches(positions, make, workers=0, threads=1, prefetch=2)

    def evaluation_batches(
        self, chosen: Int[np.ndarray, " k"], *, batch_size: int, crop: int, crops: int
    ) -> Iterator[Batch]:
        """Every example at `chosen` once a crop, in order; all batches of one size, the last padded (`mask` False)."""
        data = dataclasses.replace(self._data(batch_size, crop), examples=len(chosen))
        starts = crop_starts(data.length, crop, crops=crops)
        make = EvaluationAssembly(data, _Chosen(Cached(self.arrays), chosen), batch_size, starts)
        for number in range(-(-len(chosen) * crops // batch_size)):
            yield make(number)

    def _data(self, batch_size: int, crop: int) -> BatchData:
        length = self.manifest.input_spec.ecg.length
        return BatchData(
            manifest=self.manifest,
            split="all",
            examples=len(self),
            length=length,
            crop=crop,
            modalities=("ecg",),
            rows=np.arange(batch_size),
        )


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """Examples by their place among those chosen."""

    examples: Cached
    chosen: np.ndarray

    def __call__(self, position: int) -> Mapping[str, np.ndarray]:
        return self.examples(int(self.chosen[position]))


def open_pool(directory: epath.PathLike) -> Pool:
    """Reads every example of every split; raises where the data hold no ECG or no label."""
    manifest = read_manifest(directory)
    if manifest.input_spec.ecg is None:
        raise ValueError(f"config.data.directory: {directory} holds no ECG; prepare data that do.")
    if not manifest.targets:
        raise ValueError(
            f"config.data.directory: {directory} holds no labels; prepare a cohort that has them."
        )
    names = tuple(field.name for field in manifest.schema.fields if field.name in _FIELDS)
    splits = [
        read_split(directory, manifest, name, names=names)
        for name, split in manifest.splits.items()
        if split.examples
    ]
    return Pool(manifest, {name: np.concatenate([split[name] for split in splits]) for name in names})
