"""`python -m ecgjax <verb>`: hands over to the job of that name."""

import importlib
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from absl import app, flags

import ecgjax
from ecgjax.core import cluster

VERBS = {
    "prepare": "raw recordings, or the synthetic cohort, to conditioned shards and a manifest",
    "inspect": "what a data directory or a workdir holds: counts, InputSpec, pictures",
    "train": "one training run into a workdir; run again to resume",
    "plan": "memory, collectives and predicted speed of a training step on TPU slices, without a TPU",
    "evaluate": "results of a workdir's checkpoints, once or following a run",
    "crossvalidate": "what predicts a response in a small cohort, judged by repeated cross-validation of patients",
    "convert": "published PyTorch weights to a workdir, or a workdir to PyTorch weights",
    "export": "embeddings of a checkpoint to Parquet and npz",
    "report": "tables, claims and figures of many workdirs as one HTML page",
}


SEVERAL = ("train",)
"""Verbs that run as one program on several processes."""


def main() -> None:
    """Console entry point."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help", "help"):
        _print(_overview())
        return
    if verb == "--version":
        _print(f"ecgjax {ecgjax.__version__}")
        return
    if verb not in VERBS:
        sys.exit(f"ecgjax: unknown verb {verb!r}; choose from {', '.join(VERBS)}.")
    job = importlib.import_module(f"ecgjax.jobs.{verb}")
    job.define()
    arguments = [f"ecgjax {verb}", *sys.argv[2:]]
    if {"-h", "--help"} & set(arguments):
        _print(_help(verb, job))
        return
    try:
        flags.FLAGS(arguments)
        if "config" in flags.FLAGS and flags.FLAGS.config is not None:
            flags.FLAGS.config.keys()  # A file that cannot be loaded says so only when it is used.
        if verb not in SEVERAL:
            cluster.check_alone(verb, os.environ)
        status = app.run(lambda _: _run(job), argv=arguments[:1])
    except KeyboardInterrupt:
        _leave(f"ecgjax {verb}: interrupted.")
        sys.exit(f"ecgjax {verb}: interrupted.")
    except Exception as error:
        expected = _for_the_user(error)
        said = f"ecgjax {verb}: {_message(error, arguments)}" if expected else traceback.format_exc()
        _leave(said, error)
        if not expected:
            raise
        sys.exit(said)
    sys.exit(status)


def _run(job) -> int:
    status = job.run(flags.FLAGS)
    if (distributed := _distributed()) is not None:
        distributed.finish()
    return status


def _leave(said: str, error: BaseException | None = None) -> None:
    if (distributed := _distributed()) is not None:
        distributed.leave(said, error)


def _distributed() -> ModuleType | None:
    """What ties several processes together; a verb that never got there has nobody to tell, and jax to spare."""
    return sys.modules.get("ecgjax.core.distributed")


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `| head` has read enough; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _for_the_user(error: BaseException) -> bool:
    """Whether the message alone says what to mend; anything else is a bug and keeps its traceback.

    That is a ValueError raised in this package, also from within a jax trace; a file that cannot be read or
    written; and whatever the reading of flags and configs has to say.
    """
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
    if {"ml_collections", "absl"} & set(raised_in.parts):
        return True
    if isinstance(error, OSError):
        return error.strerror is not None
    return isinstance(error, ValueError) and Path(__file__).resolve().parent in raised_in.parents


def _message(error: BaseException, arguments: Sequence[str]) -> str:
    """What is wrong, in the words of a command line."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip()
    if "failure to load" in text:
        given = [x.partition("=")[2] for x in arguments if x.startswith("--config=")]
        return f"--config={given[-1] if given else ''}: no such file; give FILE or FILE:ARG."
    if "Error whilst parsing config file" in text:  # ml_collections puts a whole traceback into the message.
        return text.splitlines()[-1].partition(": ")[2]
    if match := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', text):
        return f"{_argument(arguments, match[2])}: no such key. Did you mean {match[1]!r}?"
    if match := re.search(r"Attempting to lookup: (\S+)", text):
        return f"--config.{match[1]}: no such key; --config.{match[1].rpartition('.')[0]} is a value without keys."
    if match := re.search(r"Could not parse '([^']+)'|indices must be integers", text):
        given = [x.partition("=")[0] for x in arguments if x.startswith("--config.")]
        which = f"--config.{match[1]}" if match[1] else f"one of {', '.join(given)}"
        return f"{which}: a part of a tuple cannot be set alone; set all of it, in quotes."
    if isinstance(error, AttributeError | KeyError):  # A bare key, as ml_collections raises it.
        key = text.strip("'\"")
        return (
            f"{_argument(arguments, key)}: no such key in the config file; add it there to change a default."
        )
    return text


def _argument(arguments: Sequence[str], key: str) -> str:
    names = [x.partition("=")[0] for x in arguments]
    return next((x for x in names if key in x.lstrip("-").split(".")), key)


def _overview() -> str:
    lines = [f"  {verb:<15}{what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            "ecgjax: ECG and ECG-CMR representation learning in JAX",
            "",
            "usage: python -m ecgjax <verb> --config=configs/x.py:arg --config.key=value --workdir=DIR",
            "",
            *lines,
            "",
            "`python -m ecgjax <verb> --help` explains one verb. `bash launch/local.sh` and",
            "`bash launch/crt.sh` run them in order. `python -m ecgjax --version` says which ecgjax this is.",
        ]
    )


def _help(verb: str, job) -> str:
    rows = [
        f"  --{flag.name}: {flag.help}"
        + (f" (default: {flag.default})" if flag.default not in (None, "") else "")
        for flag in _flags_of(job)
    ]
    wrapped = [textwrap.fill(row, 100, subsequent_indent="      ") for row in rows]
    return "\n".join([f"ecgjax {verb}: {VERBS[verb]}", "", job.__doc__.strip(), "", *wrapped])


def _flags_of(job) -> list[flags.Flag]:
    modules = (job.__name__, "ecgjax.core.flags")
    found = [flag for name in modules for flag in flags.FLAGS.get_key_flags_for_module(name)]
    return sorted(found, key=lambda flag: flag.name != "config")


if __name__ == "__main__":
    main()
