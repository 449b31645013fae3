"""Writes the embeddings of a checkpoint to Parquet and npz, with labels, split, InputSpec and checkpoint digest.

  python -m ecgjax export --workdir=RUN --output=EMBEDDINGS
  python -m ecgjax export --workdir=RUN --data=OTHER_DATA --splits=test --output=EMBEDDINGS
  python -m ecgjax export --workdir=RUN --splits=test --plot=LVEF    also draws PCA and t-SNE, coloured by a label

Subjects and records appear as the keyed hashes of the data directory, never as raw identifiers.
"""

from absl import flags

from ecgjax.core.flags import define_compile_cache


def define() -> None:
    """Declares the flags of this job."""
    define_compile_cache()
    flags.DEFINE_string("workdir", None, "Directory of the run.")
    flags.DEFINE_string("output", None, "Directory to write; default: WORKDIR/export.")
    flags.DEFINE_string("data", None, "Data directory; default: the one the run was trained on.")
    flags.DEFINE_string("step", "last", "Checkpoint: a number, `last`, or `best` by validation.")
    flags.DEFINE_list("splits", ["train", "val", "test"], "Splits to export.")
    flags.DEFINE_list("keys", None, "Predictions to export; default: the embedding of every modality.")
    flags.DEFINE_integer("crops", 4, "Evenly spaced crops of an ECG whose embeddings are averaged.")
    flags.DEFINE_string("plot", None, "Label by which to colour a map of every exported prediction.")


def run(args: flags.FlagValues) -> int:
    """Exports; returns the exit code."""
    if args.workdir is None:
        raise ValueError("export needs --workdir=DIR; see `python -m ecgjax export --help`.")
    from etils import epath

    from ecgjax.core import runtime
    from ecgjax.runs import exporting

    workdir = epath.Path(args.workdir)
    own = workdir / "compile_cache" if workdir.exists() else None
    runtime.start(compile_cache=args.compile_cache or own)
    exporting.export(
        workdir,
        epath.Path(args.output or workdir / "export"),
        data=args.data,
        step=args.step,
        splits=args.splits,
        keys=args.keys,
        crops=args.crops,
        plot=args.plot,
    )
    return 0
