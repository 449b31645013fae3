"""Turns a cohort into conditioned ArrayRecord shards and a manifest. Run again after a kill: finished shards stay.

  python -m ecgjax prepare --config=configs/prepare.py:synthetic --directory=DATA
  python -m ecgjax prepare --config=configs/prepare.py:ptbxl --config.cohort.directory=PTBXL --directory=DATA

Damaged records are left out, counted by kind in the manifest, and listed with their reason in rejects.csv. Subject
and record identifiers are stored as keyed hashes; the key stays in DATA/private, which training never needs: keep
it apart from the shards you share. `--withdrawn=FILE` names subjects, one a line, who must not be in the data.

`--like=WORKDIR` prepares data for the encoder of a run: rate, band, conditioning and image, with its mean and
deviation, are those the run was trained on, so that both fit each other. For a run on whole recordings leads and length
are as well. What the command line sets otherwise is refused.

  python -m ecgjax prepare --config=configs/prepare.py:synthetic_crt --like=BEATS_RUN --directory=CRT_DATA

Two preparations of one cohort, for two encoders, give a patient one name where both get the same `--key_file`; only
then can their predictions be compared patient by patient.
"""

import os

from absl import flags
from ml_collections import config_flags

from ecgjax.core.flags import define_config


def define() -> None:
    """Declares the flags of this job."""
    define_config("Preparation")
    flags.DEFINE_string("directory", None, "Data directory to write.")
    flags.DEFINE_integer("workers", None, "Processes; default: one a core.")
    flags.DEFINE_string("key_file", None, "Secret for hashing identifiers; default: made in DATA/private.")
    flags.DEFINE_string(
        "like", None, "Run whose encoder shall read the data; its settings of the ECG are taken."
    )
    flags.DEFINE_string("withdrawn", None, "File of subject identifiers to leave out, one a line.")


def run(args: flags.FlagValues) -> int:
    """Prepares; returns the exit code."""
    if args.config is None or args.directory is None:
        raise ValueError(
            "prepare needs --config=FILE and --directory=DIR; see `python -m ecgjax prepare --help`."
        )
    from etils import epath

    from ecgjax.core import runtime
    from ecgjax.runs import preparing

    runtime.start()
    preparing.prepare(
        args.config,
        epath.Path(args.directory),
        workers=args.workers or os.cpu_count() or 1,
        key_file=args.key_file,
        withdrawn=args.withdrawn,
        like_run=args.like,
        given=config_flags.get_override_values(args["config"]),
    )
    return 0
