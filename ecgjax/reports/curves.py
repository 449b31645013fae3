"""What a run logged, and whether a contrastive loss ever left the level of knowing nothing."""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np
from etils import epath

FLAT = 0.01
"""A loss within this share of ln(batch) has learned next to nothing."""


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """Loss by step; `ln_batch` is None where the loss is no InfoNCE."""

    name: str
    step: np.ndarray
    loss: np.ndarray
    val_step: np.ndarray
    val_loss: np.ndarray
    ln_batch: float | None


def read_curve(workdir: epath.PathLike, *, name: str) -> Curve:
    """Reads `metrics.jsonl`; a line cut short by a kill is left out. FileNotFoundError names what is missing."""
    path = epath.Path(workdir) / "metrics.jsonl"
    if not path.exists():
        raise FileNotFoundError(str(path))
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    train, val = ([r for r in records if key in r] for key in ("loss", "val_loss"))
    levels = [r[key] for r in records for key in ("ln_batch",) if key in r]
    return Curve(
        name,
        np.array([r["step"] for r in train]),
        np.array([r["loss"] for r in train], float),
        np.array([r["step"] for r in val]),
        np.array([r["val_loss"] for r in val], float),
        levels[-1] if levels else None,
    )


def flat_warnings(curves: Sequence[Curve]) -> list[str]:
    """One line for every contrastive run whose last loss lies within 1 % of ln(batch), or above."""
    lines = []
    for curve in curves:
        if curve.ln_batch is None or not len(curve.loss):
            continue
        # The mean of the last tenth: a single batch may dip by chance.
        last = float(np.mean(curve.loss[-max(1, len(curve.loss) // 10) :]))
        if last > (1 - FLAT) * curve.ln_batch:
            lines.append(
                f"{curve.name}: the loss ended at {last:.3f}, ln(batch) is {curve.ln_batch:.3f}: it learned next to "
                "nothing about pairs. Train longer, raise the learning rate, or use weaker augmentation."
            )
    return lines
