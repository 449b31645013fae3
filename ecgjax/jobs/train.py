"""Trains one objective into a workdir. Run the same command again to resume after any interruption.

  python -m ecgjax train --config=configs/mae_ecg.py:demo --config.data.directory=DATA --workdir=RUN
  python -m ecgjax train --config=configs/ecg_cmr.py:demo --config.init_from.workdir=RUN --workdir=RUN2

The workdir receives config.json, input_spec.json, manifest.json, metrics.jsonl, tensorboard/, checkpoints/<step>/
and, once the last save is final, TRAINED. `--dry_run` checks everything that can be known beforehand;
`--profile=START:STOP` leaves a trace of the steps after START up to STOP in profile/.
SIGTERM or Ctrl-C saves and leaves with exit code 75; exit code 0 means trained. A loss that is not finite ends the run
with exit code 1, and WORKDIR/nonfinite/STEP.json holds the examples of that step's batch.

Several processes, one a host, run this same command; SLURM, GKE and Cloud TPUs tell them of each other, elsewhere
  --coordinator=HOST:PORT --processes=N --process=I
does. SIGTERM to one of them saves and ends all; where one dies, the others say so and leave with exit code 76.
"""

import os

from absl import flags

from ecgjax.core.flags import STALL_MINUTES, define_compile_cache, define_config, define_distributed


def define() -> None:
    """Declares the flags of this job."""
    define_config("Training")
    define_compile_cache()
    define_distributed()
    flags.DEFINE_string("workdir", None, "Directory of this run; local or gs://.")
    flags.DEFINE_bool("dry_run", False, "Check and print what would be trained, then stop.")
    flags.DEFINE_string(
        "profile", None, "START:STOP: trace the steps after START up to STOP into WORKDIR/profile."
    )
    flags.DEFINE_float(
        "stall_minutes",
        STALL_MINUTES,
        "A step that takes longer ends the process; starting, compiling, validating, saving may take six times that.",
        lower_bound=0.01,
    )


def run(args: flags.FlagValues) -> int:
    """Trains; returns the exit code."""
    if args.config is None or args.workdir is None:
        raise ValueError("train needs --config=FILE and --workdir=DIR; see `python -m ecgjax train --help`.")
    import jax
    from etils import epath

    from ecgjax.core import cluster, distributed, runtime
    from ecgjax.runs import training

    workdir = epath.Path(args.workdir)
    # Before the first compilation: later it would stay unused.
    own = None if args.dry_run else workdir / "compile_cache"
    runtime.start(compile_cache=args.compile_cache or own)
    distributed.start(args)
    cluster.check_gpus(os.environ, backend=jax.default_backend(), wanted=jax.config.jax_platforms)
    return training.train(
        args.config, workdir, dry_run=args.dry_run, profile=args.profile, stall_minutes=args.stall_minutes
    )
