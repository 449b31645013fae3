"""Metrics where people look for them: JSON lines, TensorBoard, a progress bar; lead process only."""

import json
import time
from collections.abc import Mapping

from etils import epath
from tqdm import tqdm

from ecgjax.core import files, runtime


class MetricWriter:
    """Writes scalars to `metrics.jsonl` and `tensorboard/` of a workdir.

    A resumed run drops what the interrupted one logged beyond the checkpoint, so that every step is logged once.
    """

    def __init__(self, workdir: epath.PathLike, *, start_step: int = 0):
        self._jsonl, self._board = None, None
        if not runtime.is_lead():
            return
        from tensorboardX import SummaryWriter

        workdir = epath.Path(workdir)
        path = workdir / "metrics.jsonl"
        _truncate(path, start_step)
        self._path, self._jsonl = path, path.open("a")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs scalars at a step; flushed, so that a killed run leaves what it said."""
        if self._jsonl is None:
            return
        self._jsonl.write(json.dumps({"step": step, "time": round(time.time(), 3), **scalars}) + "\n")
        files.retried(
            self._jsonl.flush, f"writing {self._path}", self._path
        )  # What it could not write it keeps.
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both files."""
        if self._jsonl is not None:
            self._jsonl.close()
            self._board.close()


class Progress:
    """A bar with steps, ETA, and what the meter notes: loss, step time, examples/s, waiting, MFU and memory."""

    def __init__(self, *, total: int, start: int, name: str):
        self._bar = tqdm(
            total=total, initial=start, desc=name, unit="step", disable=not runtime.is_lead(), mininterval=1.0
        )

    def advance(self, steps: int, notes: Mapping[str, str] | None = None) -> None:
        """Moves the bar; `notes` replace what stands beside it."""
        if notes:
            self._bar.set_postfix(notes, refresh=False)
        self._bar.update(steps)

    def close(self) -> None:
        """Leaves the bar's last state on the screen."""
        self._bar.close()


def _truncate(path: epath.Path, start_step: int) -> None:
    """Keeps the lines up to `start_step`; a line cut short by a kill is dropped."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] <= start_step and start_step > 0:
            kept.append(line)
    path.write_text("".join(line + "\n" for line in kept))
