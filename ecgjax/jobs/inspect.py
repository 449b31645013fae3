"""Says what a data directory or a workdir holds, and draws the first examples.

  python -m ecgjax inspect --data=DATA                     splits, InputSpec, targets, rejects
  python -m ecgjax inspect --data=DATA --verify            every byte of every shard; exit code 1 if one has changed
  python -m ecgjax inspect --data=DATA --pictures=DIR      ECG on paper, its images and CMR frames of test examples
  python -m ecgjax inspect --workdir=RUN                   objective, parameters, checkpoints, metrics, results

Nothing is written except the pictures.
"""

from absl import flags


def define() -> None:
    """Declares the flags of this job."""
    flags.DEFINE_string("data", None, "Data directory to describe.")
    flags.DEFINE_string("workdir", None, "Directory of a run to describe.")
    flags.DEFINE_bool("verify", False, "With --data: read every shard against its SHA-256.")
    flags.DEFINE_string("pictures", None, "With --data: directory for PNGs of the first examples.")
    flags.DEFINE_integer("examples", 4, "With --pictures: how many examples.", lower_bound=1)
    flags.DEFINE_string("split", "test", "With --pictures: split that the examples come from.")


def run(args: flags.FlagValues) -> int:
    """Describes; returns the exit code."""
    if (args.data is None) == (args.workdir is None):
        raise ValueError(
            "inspect needs --data=DIR or --workdir=DIR, one of them; see `python -m ecgjax inspect --help`."
        )
    if args.workdir is not None and (args.verify or args.pictures):
        raise ValueError("--verify and --pictures are about shards: give them with --data, not --workdir.")
    from etils import epath

    from ecgjax.core import runtime
    from ecgjax.data.manifest import read_manifest
    from ecgjax.runs import describing

    runtime.start()
    if args.workdir is not None:
        print("\n".join(describing.describe_workdir(epath.Path(args.workdir))))
        return 0
    directory = epath.Path(args.data)
    manifest = read_manifest(directory)
    print("\n".join(describing.describe_data(manifest)))
    if args.verify:
        sound, said = describing.verified(directory, manifest)
        print(said)
        if not sound:
            return 1
    if args.pictures:
        options = {"split": args.split, "examples": args.examples}
        for path in describing.draw(directory, manifest, args.pictures, **options):
            print(path)
    return 0
