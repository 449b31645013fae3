"""Writes the embeddings of a checkpoint to Parquet and npz, with labels, split, InputSpec and checkpoint digest.

  python -m ecgjax export --workdir=RUN --output=EMBEDDINGS
  python -m ecgjax export --workdir=RUN --data=OTHER_DATA --splits=test --output=EMBEDDINGS
  python -m ecgjax export --workdir=RUN --splits=test --plot=LVEF    also draws PCA and t-SNE, coloured by a label

Subjects and records appear as the keyed hashes of the data directory, never as raw identifiers.
"""

from absl import flags
from etils import epath

from ecgjax.core import runtime, trees
from ecgjax.core.files import write_bytes
from ecgjax.data.manifest import read_manifest
from ecgjax.evaluators import export
from ecgjax.jobs import setup
from ecgjax.reports.embedding_map import embedding_map, find_label
from ecgjax.reports.page import png
from ecgjax.train import checkpoint


def define() -> None:
    """Declares the flags of this job."""
    runtime.define_compile_cache()
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
    workdir = epath.Path(args.workdir)
    own = workdir / "compile_cache" if workdir.exists() else None
    runtime.start(compile_cache=args.compile_cache or own)
    trained = setup.open_checkpoint(workdir, checkpoint.choose_step(workdir, args.step))
    splits = setup.splits_for(trained, args.data, crops=args.crops)
    keys = tuple(args.keys or [f"{modality}/embedding" for modality in trained.modalities])
    known = read_manifest(args.data or trained.meta["config"]["data"]["directory"]).splits
    unknown = [name for name in args.splits if name not in known or not known[name].examples]
    if unknown:
        raise ValueError(
            f"--splits: {unknown} hold no examples; choose from {[n for n in known if known[n].examples]}."
        )
    # Before the work, so that a misspelt label costs nothing.
    column = None if args.plot is None else find_label(args.plot, [t.name for t in splits.targets])
    table = export.collect(setup.predictor(trained, keys), splits, keys=keys, names=args.splits)
    directory = epath.Path(args.output or workdir / "export")
    paths = export.write(
        directory,
        table,
        targets=splits.targets,
        input_spec=trained.spec.to_json(),
        checkpoint=trees.digest(trained.params),
        step=trained.step,
        config=trained.meta["config"],
        crops=args.crops,
    )
    runtime.say(f"{len(table['subject'])} embeddings {list(keys)}: {paths[0]}, {paths[1]}")
    for key in keys if column is not None else ():
        target = splits.targets[column]
        figure = embedding_map(
            table[key],
            table["label"][:, column],
            label_name=target.name,
            kind=target.kind,
            unit=target.unit,
            title=f"{key}, {' + '.join(args.splits)}, step {trained.step}",
        )
        path = directory / f"{key.replace('/', '_')}-{target.name}.png"
        write_bytes(path, png(figure))
        runtime.say(f"map of {key}: {path}")
    return 0
