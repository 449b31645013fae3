"""`python -m ecgjax <verb>`: hands over to the job of that name."""

import importlib
import sys
import textwrap
import traceback
from pathlib import Path

from absl import app, flags

VERBS = {
    "prepare": "raw recordings, or the synthetic cohort, to conditioned shards and a manifest",
    "inspect": "what a data directory or a workdir holds: counts, InputSpec, pictures",
    "train": "one training run into a workdir; run again to resume",
    "evaluate": "results of a workdir's checkpoints, once or following a run",
    "export": "embeddings of a checkpoint to Parquet and npz",
    "report": "tables, claims and figures of many workdirs as one HTML page",
}


def main() -> None:
    """Console entry point."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help", "help"):
        print(_overview())
        return
    if verb not in VERBS:
        sys.exit(f"ecgjax: unknown verb {verb!r}; choose from {', '.join(VERBS)}.")
    job = importlib.import_module(f"ecgjax.jobs.{verb}")
    job.define()
    arguments = [f"ecgjax {verb}", *sys.argv[2:]]
    if {"-h", "--help"} & set(arguments):
        print(_help(verb, job))
        return
    try:
        flags.FLAGS(arguments)
        status = app.run(lambda _: job.run(flags.FLAGS), argv=arguments[:1])
    except (ValueError, KeyError, AttributeError, TypeError, OSError, flags.Error) as error:
        if not _ours(error):
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        sys.exit(f"ecgjax {verb}: {message}")
    sys.exit(status)


def _ours(error: BaseException) -> bool:
    """Whether the message was written for the user: raised in this package or by the reading of flags."""
    if isinstance(error, flags.Error):
        return True
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    ours = Path(__file__).resolve().parent
    config_reading = {"config_flags.py", "config_dict.py", "config_path.py"}
    return ours in raised_in.resolve().parents or raised_in.name in config_reading


def _overview() -> str:
    lines = [f"  {verb:<10}{what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            "ecgjax: ECG and ECG-CMR representation learning in JAX",
            "",
            "usage: python -m ecgjax <verb> --config=configs/x.py:arg --config.key=value --workdir=DIR",
            "",
            *lines,
            "",
            "`python -m ecgjax <verb> --help` explains one verb. `bash launch/local.sh` runs them all, in order.",
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
    shared = flags.FLAGS.get_key_flags_for_module("ecgjax.core.runtime")
    return [*flags.FLAGS.get_key_flags_for_module(job.__name__), *shared]


if __name__ == "__main__":
    main()
