"""From a cohort to a prepared data directory: parallel, resumable after a kill, every reject counted."""

import contextlib
import csv
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from etils import epath

import ecgjax
from ecgjax.core import config as configs
from ecgjax.core.spec import InputSpec
from ecgjax.data import identifiers, manifest, schema
from ecgjax.data.build_shard import (
    Context,
    Task,
    build_shards,
    merge_moments,
    read_sidecar,
    sidecar_path,
)
from ecgjax.data.cohorts.base import Cohort, Item
from ecgjax.data.examples import Recipe
from ecgjax.data.manifest import Manifest, Shard, SplitSummary, TargetColumn
from ecgjax.data.shards import WRITER_OPTIONS, check_content, local_path
from ecgjax.formats.recording import LEADS
from ecgjax.signals import ecg as ecg_signals
from ecgjax.signals.input_specs import cmr_spec, complete, ecg_spec

SPLITS = ("train", "val", "test")
CONFIG_NAME = "config.json"
REJECTS_NAME = "rejects.csv"


def build(
    cohort: Cohort,
    directory: epath.PathLike,
    *,
    conditioning_ecg: Mapping[str, Any] | None,
    conditioning_cmr: Mapping[str, Any] | None,
    quality_ecg: Mapping[str, Any] | None = None,
    ecg_length: int = 5000,
    rate_hz: float = 500.0,
    leads: tuple[str, ...] = LEADS,
    band_hz: tuple[float, float] | None = None,
    window: Literal["start", "beat"] = "start",
    beats: int = 0,
    image: Mapping[str, Any] | None = None,
    cmr_height: int = 210,
    cmr_width: int = 210,
    pixel_mm: float = 1.8,
    examples_per_shard: int = 512,
    workers: int = 1,
    key: bytes | None = None,
    key_file: epath.PathLike | None = None,
    withdrawn: Iterable[str] = (),
    progress: bool = True,
) -> Manifest:
    """Writes shards, `rejects.csv` and, last, the manifest; returns the manifest.

    `conditioning_ecg` and `conditioning_cmr` are keyword arguments of `signals.ecg.condition` and
    `signals.cmr.three_phases`, whose defaults complete them; None leaves the modality out. `quality_ecg` are
    those of `signals.ecg.check`. A shard is a function of its items, the recipe
    and the key: neither `workers` nor an interruption changes a byte. Run again with the same arguments, it
    keeps every shard whose SHA-256 holds and builds the rest; with other arguments it refuses and names what
    differs.

    Without `key` or `key_file` a random key is made in `<directory>/private/key`. `withdrawn` lists raw
    identifiers of subjects to leave out. In the fingerprint a cohort is described by its fields where it is a
    dataclass, else by its `settings` where it has some.
    """
    directory = local_path(directory)
    _check_numbers(examples_per_shard=examples_per_shard, workers=workers, ecg_length=ecg_length)
    directory.mkdir(parents=True, exist_ok=True)
    _refuse_foreign(directory)
    if window == "start" and image is not None and image["mean"] is None:
        raise ValueError(
            "config.ecg.image.mean is not set: whole recordings take mean and std of the encoder that will read them; "
            "give --like=WORKDIR of its run, or both numbers."
        )
    recipe = Recipe(
        InputSpec(
            ecg=ecg_spec(
                conditioning_ecg,
                leads,
                rate_hz,
                ecg_length,
                band_hz=band_hz,
                window=window,
                beats=beats,
                image=image,
            ),
            cmr=cmr_spec(conditioning_cmr, cmr_height, cmr_width, pixel_mm),
        ),
        tuple(cohort.targets),
        complete(ecg_signals.check, quality_ecg or {}, "quality_ecg"),
    )
    with _only_builder(directory):
        secret = _key(directory, key, key_file)
        items, withdrawn_subjects = _items(cohort, withdrawn)
        _check_identifiers(items, secret)
        config = {
            "cohort": {"name": cohort.name, **_description(cohort), **_notes(cohort)},
            "targets": [dataclasses.asdict(target) for target in cohort.targets],
            "input_spec": recipe.input_spec.to_json(),
            "quality_ecg": dict(recipe.quality_ecg),
            "examples_per_shard": examples_per_shard,
            "items": {
                "count": len(items),
                "withdrawn_subjects": withdrawn_subjects,
                "hash": _hash(items, secret),
            },
            "key": identifiers.key_digest(secret),
            "format": {"schema_version": schema.VERSION, "writer_options": WRITER_OPTIONS},
        }
        config = json.loads(json.dumps(config))  # Tuples become lists, as in the copy on disk.
        digest = manifest.fingerprint(config)
        _same_config(directory, config)
        tasks = _tasks(items, examples_per_shard)
        context = Context(cohort, recipe, os.fspath(directory), secret, digest)
        _remove_leftovers(directory, tasks)
        todo = [task for task in tasks if not _is_finished(directory, task, digest)]
        build_shards(todo, context, workers=workers, progress=progress, done=len(tasks) - len(todo))
        sidecars = [read_sidecar(directory, task.file) for task in tasks]
        return _finish(directory, cohort, recipe, tasks, sidecars, config, digest, withdrawn_subjects)


def read_identifiers_file(path: epath.PathLike) -> tuple[str, ...]:
    """Raw subject identifiers, one a line; empty lines and lines from # on are left out."""
    lines = (line.split("#", 1)[0].strip() for line in epath.Path(path).read_text().splitlines())
    return tuple(line for line in lines if line)


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"config.{name}: {value} is below 1.")


def _refuse_foreign(directory: epath.Path) -> None:
    names = sorted(path.name for path in directory.iterdir())
    if names and not (directory / "build").exists() and set(names) - {"private"}:
        raise ValueError(
            f"{directory} holds {names[:5]} and is no data directory of ecgjax; "
            "choose an empty directory in config.directory."
        )


@contextlib.contextmanager
def _only_builder(directory: epath.Path) -> Iterator[None]:
    (directory / "build").mkdir(exist_ok=True)
    with open(directory / "build" / "lock", "w") as file:
        try:
            fcntl.flock(
                file, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # The kernel drops it with the process, however it ends.
        except OSError as error:
            raise ValueError(
                f"Another process is preparing {directory}; wait for it, or choose another directory."
            ) from error
        yield


def _key(directory: epath.Path, key: bytes | None, key_file: epath.PathLike | None) -> bytes:
    if key is not None and key_file is not None:
        raise ValueError("Both key and key_file are given; give one.")
    if key is not None:
        return key
    if key_file is not None:
        return identifiers.read_key(key_file)
    path = directory / "private" / "key"
    if path.exists():
        return identifiers.read_key(path)
    os.makedirs(path.parent, mode=0o700, exist_ok=True)
    return identifiers.create_key(path)


def _items(cohort: Cohort, withdrawn: Iterable[str]) -> tuple[list[Item], int]:
    items = list(cohort.items())
    splits: dict[str, tuple[int, str]] = {}
    records: dict[str, int] = {}
    for i, item in enumerate(items):  # Positions, not identifiers: these messages end up in logs.
        if item.split not in SPLITS:
            raise ValueError(
                f"Item {i} of cohort {cohort.name} is in split {item.split!r}; choose from {SPLITS}."
            )
        first, split = splits.setdefault(item.subject, (i, item.split))
        if split != item.split:
            raise ValueError(
                f"Items {first} and {i} of cohort {cohort.name} are of one subject but in splits {split!r} "
                f"and {item.split!r}; a subject must be in one split, or evaluation is on training subjects."
            )
        if item.record in records:
            raise ValueError(
                f"Items {records[item.record]} and {i} of cohort {cohort.name} have one record identifier."
            )
        records[item.record] = i
    gone = {str(subject).strip() for subject in withdrawn} & set(splits)
    kept = [item for item in items if item.subject not in gone]
    if not kept:
        raise ValueError(
            f"Cohort {cohort.name} has no items to prepare: it lists {len(items)}, "
            f"of {len(gone)} withdrawn subjects."
        )
    return kept, len(gone)


def _check_identifiers(items: Sequence[Item], key: bytes) -> None:
    identifiers.hash_identifiers({item.subject for item in items}, key=key, kind="subject")
    identifiers.hash_identifiers({item.record for item in items}, key=key, kind="record")


def _hash(items: Sequence[Item], key: bytes) -> str:
    digest = hashlib.sha256()
    for item in items:
        for text, kind in ((item.subject, "subject"), (item.record, "record"), (item.split, "split")):
            digest.update(identifiers.hash_identifier(text, key=key, kind=kind))
    return digest.hexdigest()


def _description(cohort: Cohort) -> dict[str, Any]:
    if not dataclasses.is_dataclass(cohort):
        return dict(getattr(cohort, "settings", {}))
    values = {field.name: getattr(cohort, field.name) for field in dataclasses.fields(cohort) if field.init}
    # Where the raw files lie is no property of the data set, and may name a person's directory.
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, str | int | float | bool | None | tuple | list | dict)
        and name not in ("targets", "directory")
        and not (isinstance(value, str) and os.path.isabs(value))
    }


def _notes(cohort: Cohort) -> dict[str, list[str]]:
    """What a cohort says that it left out, for cohorts that do."""
    notes = list(getattr(cohort, "notes", ()))
    return {"notes": notes} if notes else {}


def _same_config(directory: epath.Path, config: Mapping[str, Any]) -> None:
    path = directory / "build" / CONFIG_NAME
    if not path.exists():
        manifest.write_json(config, path)
        return
    try:
        before = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); empty {directory} and prepare again.") from error
    lines = configs.differences(before, config)
    if lines:
        raise ValueError(
            f"{directory} was prepared with another config; then -> now: {'; '.join(lines)}. "
            "Restore these values, or prepare into an empty directory."
        )


def _tasks(items: Sequence[Item], examples_per_shard: int) -> list[Task]:
    tasks = []
    for split in SPLITS:
        of_split = [item for item in items if item.split == split]
        count = -(-len(of_split) // examples_per_shard)
        for i in range(count):
            chunk = tuple(of_split[i * examples_per_shard : (i + 1) * examples_per_shard])
            tasks.append(Task(f"{split}-{i:05d}-of-{count:05d}.array_record", split, chunk))
    return tasks


def _remove_leftovers(directory: epath.Path, tasks: Sequence[Task]) -> None:
    """Temporary files of a killed builder; nobody else writes here while the lock is held."""
    known = {task.file for task in tasks}
    for folder in (directory, directory / "build"):
        for path in folder.iterdir():
            stem, suffix, rest = path.name.partition(".array_record")
            if stem.startswith(".") and stem[1:] + suffix in known and rest.endswith((".tmp", ".partial")):
                path.unlink()


def _is_finished(directory: epath.Path, task: Task, digest: str) -> bool:
    if not sidecar_path(directory, task.file).exists():
        return False
    try:
        sidecar = read_sidecar(directory, task.file)
        if sidecar["fingerprint"] != digest:
            return False
        shard = Shard(task.file, sidecar["examples"], sidecar["bytes"], sidecar["sha256"])
    except (ValueError, KeyError):  # A damaged sidecar: its shard is built again.
        return False
    return shard.examples == 0 or not check_content(directory, shard)


def _finish(directory, cohort, recipe, tasks, sidecars, config, digest, withdrawn_subjects) -> Manifest:
    rejects = [
        (reject["record"], task.split, reject["kind"], reject["message"])
        for task, sidecar in zip(tasks, sidecars, strict=True)
        for reject in sidecar["rejects"]
    ]
    _write_rejects(directory, rejects)
    counts = Counter(kind for _, _, kind, _ in rejects)
    examples = sum(sidecar["examples"] for sidecar in sidecars)
    if examples == 0:
        raise ValueError(
            f"All {len(rejects)} items of cohort {cohort.name} were rejected: {dict(counts)}. "
            f"{directory / REJECTS_NAME} has the reason for each; mend the cohort or the conditioning, "
            "and prepare into an empty directory."
        )
    splits = {}
    for split in SPLITS:
        mine = [(t, s) for t, s in zip(tasks, sidecars, strict=True) if t.split == split]
        splits[split] = SplitSummary(
            sum(s["examples"] for _, s in mine),
            len({subject for _, s in mine for subject in s["subjects"]}),
            tuple(Shard(t.file, s["examples"], s["bytes"], s["sha256"]) for t, s in mine if s["examples"]),
        )
    moments = [
        s["moments"] for t, s in zip(tasks, sidecars, strict=True) if t.split == "train" and s["examples"]
    ]
    result = Manifest(
        cohort=cohort.name,
        input_spec=_standardised(recipe.input_spec, sidecars),
        schema=recipe.schema,
        targets=tuple(
            _column(target, [shard[i] for shard in moments]) for i, target in enumerate(cohort.targets)
        ),
        splits=splits,
        config=config,
        fingerprint=digest,
        rejects=dict(sorted(counts.items())),
        withdrawn=withdrawn_subjects,
        code_version=ecgjax.__version__,
    )
    manifest.write_manifest(result, directory)
    return result


def _standardised(spec: InputSpec, sidecars: Sequence[Mapping[str, Any]]) -> InputSpec:
    """The spec with the mean and the deviation of its image over the train split, where the config left them open."""
    if spec.ecg is None or spec.ecg.image is None or spec.ecg.image.mean is not None:
        return spec
    count, mean, squares = functools.reduce(
        merge_moments, (sidecar["pixels"] for sidecar in sidecars), (0, 0.0, 0.0)
    )
    if count == 0 or squares == 0:
        raise ValueError(
            f"config.ecg.image.mean is not set and the train split has {count:g} pixels to measure it on; give mean "
            f"and std, or prepare train examples."
        )
    image = dataclasses.replace(spec.ecg.image, mean=mean, std=float(np.sqrt(squares / count)))
    return dataclasses.replace(spec, ecg=dataclasses.replace(spec.ecg, image=image))


def _column(target, moments: Sequence[Sequence[int | float]]) -> TargetColumn:
    """The column's statistics from the moments of the shards in their order."""
    count, mean, squares = functools.reduce(merge_moments, moments, (0, 0.0, 0.0))
    if count == 0:
        return TargetColumn(target, None, None, None, 0)
    std = float(np.sqrt(squares / count))
    return TargetColumn(target, mean, std, mean if target.kind == "binary" else None, count)


def _write_rejects(directory: epath.Path, rejects: Sequence[tuple[str, str, str, str]]) -> None:
    temporary = directory / f".{REJECTS_NAME}.tmp"
    with open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("record", "split", "kind", "message"))
        writer.writerows(rejects)
    temporary.replace(directory / REJECTS_NAME)
