"""The text that says what is in a data set and how it was made."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from ecgjax.core import files
from ecgjax.core.spec import InputSpec
from ecgjax.data.cohorts.base import Target
from ecgjax.data.schema import Schema

NAME = "manifest.json"
VERSION = 1


@dataclasses.dataclass(frozen=True)
class TargetColumn:
    """One label column with its statistics over the train split, NaN left out.

    `mean` and population `std` are None where no train example has the label; `prevalence` is the mean of a
    binary label, else None; `count` is the number of labelled train examples.
    """

    target: Target
    mean: float | None
    std: float | None
    prevalence: float | None
    count: int

    def to_json(self) -> dict[str, Any]:
        """Returns a plain dict."""
        own = {"mean": self.mean, "std": self.std, "prevalence": self.prevalence, "count": self.count}
        return {**dataclasses.asdict(self.target), **own}


@dataclasses.dataclass(frozen=True)
class Shard:
    """One ArrayRecord file, by name within the data directory."""

    file: str
    examples: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """What a split holds, in the order of its positions."""

    examples: int
    subjects: int
    shards: tuple[Shard, ...]

    def locate(self, position: int) -> tuple[str, int]:
        """Shard file, and number of the record in it, of the example at `position`."""
        for shard in self.shards:
            if position < shard.examples:
                return shard.file, position
            position -= shard.examples
        raise IndexError(f"Position is {position} beyond the {self.examples} examples.")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything that reading, training and evaluation need to know about a data directory.

    `config` is the whole configuration of `prepare`; `fingerprint` stands for it and for the list of items.
    `rejects` counts rejected records by kind, `withdrawn` counts subjects left out on request.
    """

    cohort: str
    input_spec: InputSpec
    schema: Schema
    targets: tuple[TargetColumn, ...]
    splits: Mapping[str, SplitSummary]
    config: Mapping[str, Any]
    fingerprint: str
    rejects: Mapping[str, int]
    withdrawn: int
    code_version: str

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that every example has."""
        return tuple(name for name in ("ecg", "cmr") if getattr(self.input_spec, name) is not None)

    @property
    def target_names(self) -> tuple[str, ...]:
        """The label columns in order."""
        return tuple(column.target.name for column in self.targets)

    def split(self, name: str) -> SplitSummary:
        """The split called `name`; raises ValueError where it is absent or empty."""
        summary = self.splits.get(name)
        if summary is None or summary.examples == 0:
            sizes = {key: value.examples for key, value in self.splits.items()}
            raise ValueError(
                f"split {name!r} of cohort {self.cohort} has no examples; it holds "
                f"{sizes}. Choose another split, or prepare the data with one."
            )
        return summary

    def to_json(self) -> dict[str, Any]:
        """Returns plain dicts and lists."""
        return {
            "version": VERSION,
            "cohort": self.cohort,
            "input_spec": self.input_spec.to_json(),
            "fields": self.schema.to_json(),
            "targets": [column.to_json() for column in self.targets],
            "splits": {
                name: {
                    "examples": split.examples,
                    "subjects": split.subjects,
                    "shards": [dataclasses.asdict(shard) for shard in split.shards],
                }
                for name, split in self.splits.items()
            },
            "config": dict(self.config),
            "fingerprint": self.fingerprint,
            "rejects": dict(self.rejects),
            "withdrawn": self.withdrawn,
            "code_version": self.code_version,
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Manifest":
        """Reverses `to_json`; raises ValueError for another version."""
        if tree.get("version") != VERSION:
            raise ValueError(
                f"the manifest has version {tree.get('version')!r}, this ecgjax reads version {VERSION}; "
                "prepare the data again into an empty directory, or use the ecgjax that wrote it."
            )
        return cls(
            cohort=tree["cohort"],
            input_spec=InputSpec.from_json(tree["input_spec"]),
            schema=Schema.from_json(tree["fields"]),
            targets=tuple(_column(entry) for entry in tree["targets"]),
            splits={
                name: SplitSummary(
                    split["examples"], split["subjects"], tuple(Shard(**shard) for shard in split["shards"])
                )
                for name, split in tree["splits"].items()
            },
            config=tree["config"],
            fingerprint=tree["fingerprint"],
            rejects=tree["rejects"],
            withdrawn=tree["withdrawn"],
            code_version=tree["code_version"],
        )


def read_manifest(directory: epath.PathLike) -> Manifest:
    """Reads `directory`/manifest.json; raises ValueError where it is missing, foreign or damaged."""
    path = epath.Path(directory) / NAME
    if not path.exists():
        raise ValueError(
            f"{path} does not exist: {directory} is no prepared data directory, or `ecgjax prepare` has not "
            "finished; run it (again), or correct config.data.directory."
        )
    try:
        tree = json.loads(path.read_text())
        if not isinstance(tree, dict):
            raise ValueError(f"expected a JSON object, found {type(tree).__name__}.")
        return Manifest.from_json(tree)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no manifest of ecgjax: {error!r}; correct config.data.directory."
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: no JSON ({error}); it was cut short or edited. Run `ecgjax prepare` again with the "
            "same config: it keeps intact shards and writes the manifest anew."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_manifest(manifest: Manifest, directory: epath.PathLike) -> None:
    """Writes `directory`/manifest.json so that readers see the old one, the new one, or none."""
    write_json(manifest.to_json(), epath.Path(directory) / NAME)


def write_json(tree: Any, path: epath.Path) -> None:
    """Writes JSON whole or not at all; keys keep their order, in which the splits are listed."""
    files.write_text(path, json.dumps(tree, indent=1, allow_nan=False) + "\n")


def fingerprint(config: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of `config`; equal exactly where the configurations are equal."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _column(entry: Mapping[str, Any]) -> TargetColumn:
    target = Target(entry["name"], entry["kind"], entry["unit"], entry["control"])
    return TargetColumn(target, entry["mean"], entry["std"], entry["prevalence"], entry["count"])
