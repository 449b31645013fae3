"""Makes a workdir of published PyTorch weights, or PyTorch weights of a workdir.

  python -m ecgjax convert --from=signal_encoder_mmcl.pth --to=RUN
  python -m ecgjax convert --from=checkpoint-399.pth --to=RUN --pooling=cls --data=DATA
  python -m ecgjax convert --from=RUN --to=encoder.pth --part=ecg
  python -m ecgjax convert --from=RUN --to=encoder.safetensors --omit=fc_norm

The workdir is one that `evaluate` and `export` read and that `train` starts from (--config.init_from.workdir=RUN).
Sizes follow from the shapes in the file; attention heads from the table of published models, or --heads. A file with a
decoder becomes objective `masked`, one with both towers and their heads `cross_modal`, any other `encoder`, which can
be evaluated, exported and started from, not trained. Every tensor is accounted for in RUN/convert.txt.

Nothing in a file is executed: a pickle is read as data, and objects that are no tensors are refused. Where the file
does not say how its ECG were conditioned, the paper's way at 500 Hz is taken; --data=DATA takes that of a data set.
"""

from absl import flags

from ecgjax.weights import SAFETENSORS, TORCH, is_weights


def define() -> None:
    """Declares the flags of this job."""
    flags.DEFINE_string("from", None, f"File ({', '.join(TORCH)}, {SAFETENSORS}), or a workdir.")
    flags.DEFINE_string("to", None, "Workdir to make (new or empty), or file to write.")
    flags.DEFINE_bool("dry_run", False, "Print the account and write nothing.")
    flags.DEFINE_enum(
        "pooling",
        None,
        ["mean", "attention", "cls", "mean_of_normed"],
        "How tokens become the embedding; default: as the file was trained (mean, mean_of_normed with a decoder).",
    )
    flags.DEFINE_list("leads", None, "Leads in the file's order; default: the twelve standard ones.")
    flags.DEFINE_float("rate_hz", 500.0, "Samples a second that the weights were trained on.")
    flags.DEFINE_integer("length", 5000, "Samples of a whole ECG.")
    flags.DEFINE_integer(
        "crop", None, "Samples that the encoder reads; default: as far as its positions reach."
    )
    flags.DEFINE_integer("heads", None, "Attention heads of the encoder; default: by its width and depth.")
    flags.DEFINE_integer("decoder_heads", None, "The same of the decoder.")
    flags.DEFINE_string("data", None, "Prepared data directory whose InputSpec the workdir takes.")
    flags.DEFINE_integer("step", None, "Of a workdir: the checkpoint; default: the newest.")
    flags.DEFINE_enum(
        "part", None, ["ecg", "cmr", "all"], "Of a workdir: what to write; default: all it has."
    )
    flags.DEFINE_list("omit", [], "Of a workdir: regexes of torch names to leave out, such as fc_norm.")


def run(args: flags.FlagValues) -> int:
    """Converts; returns the exit code."""
    source, target = args["from"].value, args.to
    if source is None or target is None:
        raise ValueError("convert needs --from=X and --to=Y; see `python -m ecgjax convert --help`.")
    if is_weights(source) == is_weights(target):
        raise ValueError(
            f"--from={source} --to={target}: one is a workdir, the other a file ending in {', '.join(TORCH)} or "
            f"{SAFETENSORS}."
        )
    if args.data and (args["leads"].present or args["rate_hz"].present or args["length"].present):
        raise ValueError(
            "--data says leads, rate and length already; leave out --leads, --rate_hz, --length."
        )
    from etils import epath

    from ecgjax.core import runtime
    from ecgjax.runs import converting

    runtime.start()
    if is_weights(source):
        names = ("pooling", "leads", "rate_hz", "length", "crop", "heads", "decoder_heads")
        wishes = converting.Wishes(**{name: args[name].value for name in names})
        converting.to_workdir(source, epath.Path(target), wishes, data=args.data, dry_run=args.dry_run)
    else:
        options = {"step": args.step, "part": args.part, "omit": args.omit, "dry_run": args.dry_run}
        converting.to_file(epath.Path(source), target, **options)
    return 0
