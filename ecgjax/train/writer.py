"""Metrics where people look for them: JSON lines, TensorBoard, a progress bar; lead process only."""

import json
import os
import pathlib
import tempfile
import time
from collections.abc import Mapping

from etils import epath
from tqdm import tqdm

from ecgjax.core import files, runtime

METRICS = "metrics.jsonl"
UPLOAD_EVERY_S = 60.0


class MetricWriter:
    """Writes scalars to `metrics.jsonl` and `tensorboard/` of a workdir.

    A resumed run drops what the interrupted one logged beyond the checkpoint, so that every step is logged once.
    Files of a bucket cannot grow: those of a gs:// workdir grow on the local disk, and are uploaded once a minute and
    before every checkpoint.
    """

    def __init__(self, workdir: epath.PathLike, *, start_step: int = 0):
        self._jsonl, self._board, self._local = None, None, None
        if not runtime.is_lead():
            return
        from tensorboardX import SummaryWriter

        self._workdir = workdir = epath.Path(workdir)
        before = _lines_up_to(workdir / METRICS, start_step)
        if "://" in os.fspath(workdir):
            self._local = tempfile.TemporaryDirectory(prefix="ecgjax_metrics_")
            workdir = epath.Path(self._local.name)
        (workdir / METRICS).write_text(before)
        self._path, self._jsonl = workdir / METRICS, (workdir / METRICS).open("a")
        # The suffix: two starts within a second must not share a file.
        self._board = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=start_step, filename_suffix=f".{start_step}"
        )
        self._uploaded = time.monotonic()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs scalars at a step; flushed, so that a killed run leaves what it said."""
        if self._jsonl is None:
            return
        self._jsonl.write(json.dumps({"step": step, "time": round(time.time(), 3), **scalars}) + "\n")
        # What it could not write it keeps.
        files.retried(self._jsonl.flush, f"writing {self._path}", self._path)
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)
        if time.monotonic() - self._uploaded > UPLOAD_EVERY_S:
            self.upload()

    def upload(self) -> None:
        """Brings a bucket up to date; a local workdir is so at any time."""
        if self._local is None:
            return
        self._board.flush()
        for path in pathlib.Path(self._local.name).rglob("*"):
            if path.is_file():
                target = self._workdir / path.relative_to(self._local.name)
                files.write_bytes(target, path.read_bytes())
        self._uploaded = time.monotonic()

    def close(self) -> None:
        """Flushes and closes both files."""
        if self._jsonl is not None:
            self._jsonl.close()
            self._board.close()
            if self._local is not None:
                self.upload()
                self._local.cleanup()


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


def _lines_up_to(path: epath.Path, start_step: int) -> str:
    """What the file holds up to `start_step`; a line cut short by a kill is dropped."""
    kept = []
    for line in path.read_text().splitlines() if start_step > 0 and path.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] <= start_step:
            kept.append(line + "\n")
    return "".join(kept)
