"""Runs launch scripts with programs in front of PATH that only record how they were called."""

import dataclasses
import json
import os
import pathlib
import stat
import subprocess
import sys

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"

_FAKE = """#!{python}
import json, os, pathlib, sys
here = pathlib.Path({directory!r})
kept = {{k: v for k, v in os.environ.items() if k.startswith(("SLURM_", "ECGJAX_"))}}
call = {{"argv": [{name!r}, *sys.argv[1:]], "environment": kept, "stdin": sys.stdin.read() if {reads} else ""}}
with open(here / "calls.jsonl", "a") as file:
    file.write(json.dumps(call) + "\\n")
answers = here / "{name}.answers"
(said, code), *rest = json.loads(answers.read_text()) or [("", 0)]
answers.write_text(json.dumps(rest))
sys.stdout.write(said)
sys.exit(code)
"""


@dataclasses.dataclass(frozen=True)
class Fakes:
    """Programs that record their calls in `directory`."""

    directory: pathlib.Path

    def add(self, name: str, *answers: tuple[str, int], reads: bool = False) -> None:
        """A program that gives `answers` (what it says, its exit code), one a call, and then nothing."""
        fields = {"directory": str(self.directory), "name": name, "reads": reads}
        self.write(name, _FAKE.format(python=sys.executable, **fields))
        (self.directory / f"{name}.answers").write_text(json.dumps(answers))

    def write(self, name: str, text: str) -> None:
        """A program with this text."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def calls(self, name: str | None = None) -> list[dict]:
        """What was called, in order."""
        log = self.directory / "calls.jsonl"
        calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [call for call in calls if name in (None, call["argv"][0])]

    def run(self, script, *arguments, timeout=60, **variables) -> subprocess.CompletedProcess:
        """Runs a script of launch/ with these variables and hardly any others."""
        environment = {"PATH": f"{self.directory}:{os.environ['PATH']}", "TMPDIR": str(self.directory)}
        return subprocess.run(
            ["bash", str(LAUNCH / script if isinstance(script, str) else script), *arguments],
            env=environment | {k: str(v) for k, v in variables.items()},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def commands(said: str) -> list[list[str]]:
    """The command lines that --dry printed, read back by a shell."""
    lines = [line for line in said.splitlines() if line and not line.startswith("#")]
    show = ["show() { printf '%s\\0' \"$@\"; printf '\\1'; }", *(f"show {line}" for line in lines)]
    read = subprocess.run(["bash", "-c", "\n".join(show)], capture_output=True, text=True, check=True).stdout
    return [part.split("\0")[:-1] for part in read.split("\1")[:-1]]
