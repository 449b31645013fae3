"""A trace of a few steps of training, for TensorBoard or Perfetto."""

import pathlib
import re
import tempfile

import jax
from etils import epath

from ecgjax.core import files, runtime
from ecgjax.core.interfaces import Tree


class Profile:
    """Traces the steps after step `start` up to step `stop` into a directory, one a process; none where equal.

    The trace is made on the local disk and copied when it is whole: the profiler knows no gs://.
    """

    def __init__(self, directory: epath.PathLike = "", *, start: int = 0, stop: int = 0):
        self._directory, self._start, self._stop = epath.Path(directory), start, stop
        self._local: tempfile.TemporaryDirectory | None = None

    def at(self, step: int, state: Tree) -> None:
        """Starts or ends the trace where `step` steps are taken; waits for the device only there."""
        if self._local is None and self._start <= step < self._stop:
            jax.block_until_ready(state)  # The steps before belong to no trace.
            self._local = tempfile.TemporaryDirectory(prefix="ecgjax_profile_")
            jax.profiler.start_trace(self._local.name)
            runtime.say(f"profiling steps {step + 1} to {self._stop}.")
        elif self._local is not None and step >= self._stop:
            jax.block_until_ready(state)
            self._finish()

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_) -> None:
        if self._local is not None:  # The run ended, or was interrupted, inside the range.
            self._finish()

    def _finish(self) -> None:
        jax.profiler.stop_trace()
        # Processes of one host would write one name.
        own = f"process-{jax.process_index()}" if jax.process_count() > 1 else ""
        with self._local as local:
            for path in pathlib.Path(local).rglob("*"):
                if path.is_file():
                    files.write_bytes(self._directory / own / path.relative_to(local), path.read_bytes())
        self._local, self._stop = None, 0
        runtime.say(
            f"profile: {self._directory}; open it with `tensorboard --logdir={self._directory}` and the plugin "
            f"tensorboard-plugin-profile, or drop its *.trace.json.gz on ui.perfetto.dev."
        )


def parse_range(text: str, *, steps: int) -> tuple[int, int]:
    """START:STOP of `--profile`: the trace holds the steps after START up to STOP."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        raise ValueError(f"--profile is {text!r}; give START:STOP, two step numbers such as 20:25.")
    start, stop = int(match[1]), int(match[2])
    if stop <= start:
        raise ValueError(f"--profile={text} ends before it starts; STOP must be larger than START.")
    if stop > steps:
        raise ValueError(f"--profile={text} ends beyond config.steps = {steps}; choose STOP up to there.")
    return start, stop
