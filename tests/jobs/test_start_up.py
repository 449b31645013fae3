"""What a command line imports before it is known to be right: nothing that takes seconds."""

import subprocess
import sys

import pytest

from ecgjax.__main__ import VERBS

HEAVY = (
    "jax",
    "numpy",
    "scipy",
    "matplotlib",
    "sklearn",
    "orbax",
    "flax",
    "grain",
    "tensorflow_datasets",
    "pyarrow",
)

SCRIPT = """
import sys
from ecgjax import __main__
sys.argv = ["ecgjax", *sys.argv[1:]]
try:
    __main__.main()
except SystemExit as end:
    print(end.code, file=sys.stderr)
finally:
    print("imported:", *(name for name in {heavy} if name in sys.modules))
"""


def imported(*arguments):
    """The heavy modules that a command has imported when it ends, and all that it said."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(heavy=HEAVY), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    *said, last = ended.stdout.splitlines()
    return last.removeprefix("imported:").split(), "\n".join(said) + ended.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_imports_nothing_heavy(verb):
    modules, said = imported(verb, "--help")
    assert modules == []
    assert said.startswith(f"ecgjax {verb}: {VERBS[verb]}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--version"], "ecgjax 0."),
        (["trian"], "unknown verb 'trian'"),
        (["train", "--workdri=x"], "Unknown command line flag 'workdri'"),
        (["train", "--config=configs/nope.py", "--workdir=x"], "--config=configs/nope.py: no such file"),
        (["report", "--config=configs/report.py:nope"], "configs/report.py:nope: unknown"),
        (["train", "--config=configs/mae_ecg.py:demo", "--config.stepz=3"], "--config.stepz: no such key"),
        (["evaluate"], "evaluate needs --workdir=DIR"),
        (["convert", "--from=a.pth", "--to=b.pth"], "one is a workdir, the other a file"),
    ],
)
def test_a_wrong_command_line_is_told_before_anything_heavy_is_imported(arguments, message):
    modules, said = imported(*arguments)
    assert modules == []
    assert message in said
