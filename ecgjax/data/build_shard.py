"""One shard of a data directory, and the processes that build many; imports no jax."""

import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import json
import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float32

from ecgjax.data.cohorts.base import Cohort, Item, RejectedError
from ecgjax.data.examples import ReasonedRejection, Recipe, without_identifiers
from ecgjax.data.identifiers import hash_identifier
from ecgjax.data.manifest import write_json
from ecgjax.data.shards import write_shard
from ecgjax.signals.stft import log_image

_POLL_SECONDS = 0.2
_WORKER_ENVIRONMENT = {
    # As many workers as cores: the threads of a BLAS would take each other's time.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc would give every temporary array of 100 kB back to the kernel: a tenth of the time in page faults.
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
}
"""Environment of worker processes where the caller has not set it; libraries read it when they are loaded."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One shard to build: its file name and its items."""

    file: str
    split: str
    items: tuple[Item, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What every task of a build shares."""

    cohort: Cohort
    recipe: Recipe
    directory: str
    key: bytes
    fingerprint: str


def build_shards(
    tasks: Sequence[Task], context: Context, *, workers: int, progress: bool, done: int = 0
) -> None:
    """Builds the shards of `tasks`; returns when all are on disk. `done` counts shards kept from before."""
    total = sum(len(task.items) for task in tasks)
    with _progress_bar(total, progress, f"prepare {context.cohort.name} ({done} shards kept)") as advance:
        if workers == 1 or len(tasks) <= 1:
            for task in tasks:
                build_shard(task, context, advance)
        else:
            _build_in_processes(tasks, context, min(workers, len(tasks)), advance)


def build_shard(task: Task, context: Context, advance: Callable[[int], None]) -> None:
    """Writes the shard and then its sidecar, each complete or not at all."""
    directory = epath.Path(context.directory)
    subjects, labels, rejects = [], [], []
    ecg = context.recipe.input_spec.ecg
    measured = task.split == "train" and ecg is not None and ecg.image is not None and ecg.image.mean is None
    pixels = (0, 0.0, 0.0)

    def records() -> Iterator[bytes]:
        nonlocal pixels
        encode = context.recipe.schema.encode
        for item in task.items:
            try:
                example = _example(item, context)
            except ReasonedRejection as rejection:
                record = hash_identifier(item.record, key=context.key, kind="record").hex()
                message = without_identifiers(str(rejection), item)
                rejects.append({"record": record, "kind": rejection.kind, "message": message})
            else:
                subjects.append(example["subject"].tobytes().hex())
                labels.append(example.get("label", np.empty(0, np.float32)))
                if measured:
                    image = log_image(example["ecg"] * np.float64(example["ecg_step"]), ecg.image)
                    pixels = merge_moments(pixels, (image.size, image.mean(), image.var() * image.size))
                yield encode(example)
            advance(1)

    shard = write_shard(directory / task.file, records())
    if shard.examples == 0:
        (directory / task.file).unlink()
    write_json(
        {
            "fingerprint": context.fingerprint,
            "examples": shard.examples,
            "bytes": shard.bytes,
            "sha256": shard.sha256,
            "subjects": subjects,
            "rejects": rejects,
            "moments": _moments(np.stack(labels)) if labels else [],
            "pixels": [float(value) for value in pixels],
        },
        sidecar_path(directory, task.file),
    )


def sidecar_path(directory: epath.Path, file: str) -> epath.Path:
    """Where what is known about a finished shard is kept."""
    return directory / "build" / f"{file}.json"


def read_sidecar(directory: epath.Path, file: str) -> dict[str, Any]:
    """What is known about a finished shard."""
    return json.loads(sidecar_path(directory, file).read_text())


def _example(item: Item, context: Context) -> dict[str, np.ndarray]:
    try:
        try:
            acquisition = context.cohort.load(item)
        except RejectedError as error:
            raise ReasonedRejection(getattr(error, "kind", "damaged"), str(error)) from error
        return context.recipe.example(acquisition, item, key=context.key)
    except ReasonedRejection:
        raise
    except Exception as error:
        record = hash_identifier(item.record, key=context.key, kind="record").hex()
        raise RuntimeError(
            f"Record {record} of split {item.split} stopped the build with {type(error).__name__}: "
            f"{without_identifiers(str(error), item)}. This is no damaged record (the cohort raises "
            "RejectedError for those): mend the cause and run again; finished shards are kept."
        ) from error


def merge_moments(
    mine: Sequence[int | float], more: Sequence[int | float]
) -> tuple[int | float, float, float]:
    """Count, mean and sum of squared deviations of two sets together (Chan et al. 1979)."""
    (count, mean, squares), (added, other, deviations) = mine, more
    if not added:
        return count, mean, squares
    total, delta = count + added, other - mean
    return total, mean + delta * added / total, squares + deviations + delta * delta * count * added / total


def _moments(labels: Float32[np.ndarray, "n m"]) -> list[tuple[int, float, float]]:
    """Count, mean and sum of squared deviations of every column, NaN left out."""
    moments = []
    for column in labels.T.astype(np.float64):
        known = column[~np.isnan(column)]
        mean = float(known.mean()) if len(known) else 0.0
        moments.append((len(known), mean, float(np.sum((known - mean) ** 2))))
    return moments


def _build_in_processes(
    tasks: Sequence[Task], context: Context, workers: int, advance: Callable[[int], None]
) -> None:
    spawn = multiprocessing.get_context("spawn")  # A fork would copy jax's threads and locks.
    counter = spawn.Value("q", 0)
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=spawn, initializer=_start_worker, initargs=(context, counter)
    )
    shown = 0
    try:
        with _environment(_WORKER_ENVIRONMENT):  # Submitting starts the workers.
            # Longest first, or a full shard that begins last leaves the other workers idle.
            ordered = sorted(tasks, key=lambda task: len(task.items), reverse=True)
            pending = {executor.submit(_build_in_worker, task) for task in ordered}
        while pending:
            finished, pending = concurrent.futures.wait(
                pending, timeout=_POLL_SECONDS, return_when=concurrent.futures.FIRST_EXCEPTION
            )
            advance(counter.value - shown)
            shown = counter.value
            for future in finished:
                future.result()
        advance(counter.value - shown)
    except concurrent.futures.process.BrokenProcessPool as error:
        raise ValueError(
            f"A worker process died, mostly for want of memory with {workers} workers; "
            "run again with fewer (config.workers): finished shards are kept."
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables that are not set; takes them away again."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


_worker: tuple[Context, Any] | None = None


def _start_worker(context: Context, counter: Any) -> None:
    global _worker
    _worker = context, counter
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent closes nothing that an idle worker waits on, so workers watch for its end."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _build_in_worker(task: Task) -> None:
    context, counter = _worker

    def advance(count: int) -> None:
        with counter.get_lock():
            counter.value += count

    build_shard(task, context, advance)


@contextlib.contextmanager
def _progress_bar(total: int, progress: bool, title: str) -> Iterator[Callable[[int], None]]:
    if not progress:
        yield lambda count: None
        return
    from tqdm import tqdm

    interval = 0.2 if sys.stderr.isatty() else 10.0  # A log file keeps every line.
    with tqdm(total=total, desc=title, unit="item", smoothing=0.1, mininterval=interval) as bar:
        yield bar.update
