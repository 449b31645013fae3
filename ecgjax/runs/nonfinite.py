"""What a run leaves behind where its loss was not finite: the batch of that step, example by example."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
from etils import epath

from ecgjax.core import distributed, runtime
from ecgjax.core.files import write_json
from ecgjax.data.manifest import Manifest
from ecgjax.data.pipeline import TrainBatches
from ecgjax.train.meter import NotFinite

_ROWS = 256
"""Read at once: a global batch need not fit into the memory of one host."""


def stop(error: NotFinite, workdir: epath.Path, batches: TrainBatches, manifest: Manifest) -> NoReturn:
    """Ends a run, with the examples that led there in WORKDIR/nonfinite/STEP.json."""
    path = workdir / "nonfinite" / f"{error.step}.json"
    if runtime.is_lead():
        write_report(path, error, batches, manifest)
    distributed.barrier("nonfinite")  # Whoever leaves first ends the others.
    raise ValueError(
        f"{error} The examples of its batch, and which of them are not finite or extreme, are in {path}. What was "
        f"saved before is whole: the same command goes on from there."
    ) from error


def write_report(path: epath.Path, error: NotFinite, batches: TrainBatches, manifest: Manifest) -> None:
    """Writes every example of the batch by its ids, with what its arrays hold.

    Examples are as the step saw them before augmentation, which its key draws anew where the step is run again.
    """
    examples = list(_examples(batches, error.step - 1, manifest))
    write_json(
        path,
        {
            "step": error.step,
            "batch": error.step - 1,
            "loss": str(error.loss),  # JSON has no NaN.
            "grad_norm": str(error.grad_norm),
            "not_finite": [example["index"] for example in examples if not example["finite"]],
            "examples": examples,
        },
    )


def _examples(batches: TrainBatches, number: int, manifest: Manifest) -> Iterator[dict[str, Any]]:
    for start in range(0, batches.batch_size, _ROWS):
        rows = np.arange(start, min(start + _ROWS, batches.batch_size))
        batch = batches.read(number, rows)
        for i in range(len(rows)):
            yield _facts({name: value[i] for name, value in batch.items()}, manifest, batches.split)


def _facts(example: Mapping[str, np.ndarray], manifest: Manifest, split: str) -> dict[str, Any]:
    """Ids as shards have them, and what a culprit betrays itself by."""
    index = int(example["index"])
    shard, record = manifest.split(split).locate(index)
    signals = {name: example[name] for name in ("ecg", "cmr") if name in example}
    facts = {
        "index": index,
        "shard": shard,
        "record": record,
        "subject": example["subject"].astype("<u4").tobytes().hex(),
        "finite": all(bool(np.isfinite(signal).all()) for signal in signals.values()),
    }
    if "ecg" in signals:
        facts["largest_ecg"] = _number(np.abs(signals["ecg"]).max())
    if "cmr" in signals:
        facts["cmr_range"] = [_number(signals["cmr"].min()), _number(signals["cmr"].max())]
    return facts


def _number(value: np.floating) -> float | str:
    return float(value) if np.isfinite(value) else str(value)
