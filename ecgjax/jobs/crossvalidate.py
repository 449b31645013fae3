"""Judges what predicts a response in a small cohort, by repeated cross-validation of patients. Run again to go on.

  python -m ecgjax crossvalidate --config=configs/crt_response.py:comparators --config.data.directory=DATA --workdir=RUN
  python -m ecgjax crossvalidate --config=configs/crt_response.py:probe --config.data.directory=DATA \\
      --config.init_from.workdir=BEATS_RUN --workdir=RUN2

All patients of all splits of DATA take part, one prediction a patient, however many recordings it has. DATA is made by
`ecgjax prepare --like=BEATS_RUN`; other image or conditioning than the encoder was trained on is refused. Modes of a
network, `vit_*` for the encoder of an MMCL or masked run:

  probe     the run's encoder, frozen; L2-logistic regression on its embedding
  random    the same with fresh weights: the control that says whether the run has helped
  partial   last block and readout trained in every fold
  full      everything trained in every fold
  scratch   everything trained in every fold from fresh weights

Steps and rates stand in the config; no choice sees the test fold. Thresholds are chosen among training patients: by
inner folds, or, where a network is trained, on one inner fold that it is not trained on. `--config.labels=permuted`
gives every patient the response of another: a control that must not beat chance. `--config.split=given` takes the
splits of DATA, which a table may name, as folds, in place of folds drawn anew in every repeat.

The workdir receives folds/, a file for every finished one, results/crossvalidation/0.json and .npz, and
predictions.csv. SIGTERM or Ctrl-C leaves with exit code 75; the same command goes on after the last finished fold.
Predictions of several workdirs can be compared patient by patient where the data were prepared with one `--key_file`.
"""

from absl import flags

from ecgjax.core.flags import define_compile_cache, define_config


def define() -> None:
    """Declares the flags of this job."""
    define_config("Cross-validation")
    define_compile_cache()
    flags.DEFINE_string("workdir", None, "Directory of this cross-validation.")


def run(args: flags.FlagValues) -> int:
    """Cross-validates; returns the exit code."""
    if args.config is None or args.workdir is None:
        raise ValueError(
            "crossvalidate needs --config=FILE and --workdir=DIR; see `python -m ecgjax crossvalidate --help`."
        )
    from etils import epath

    from ecgjax.core import runtime
    from ecgjax.response import contest

    workdir = epath.Path(args.workdir)
    runtime.start(compile_cache=args.compile_cache or workdir / "compile_cache")
    return contest.crossvalidate(args.config, workdir)
