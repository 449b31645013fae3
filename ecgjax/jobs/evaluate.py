"""Puts the evaluators of a config to the checkpoints of a workdir; a job of its own beside or after training.

  python -m ecgjax evaluate --workdir=RUN                    the newest checkpoint
  python -m ecgjax evaluate --workdir=RUN --steps=0,last     the weights that training started from, and the newest
  python -m ecgjax evaluate --workdir=RUN --steps=best       the best by validation, where the run kept it
  python -m ecgjax evaluate --workdir=RUN --follow           every checkpoint as it appears, until TRAINED
  python -m ecgjax evaluate --workdir=RUN --evaluator=linear_probe --evaluator_setting=inputs=hand_features

Model, objective, data directory and evaluators come from the checkpoint itself. Results land in
RUN/results/<evaluator>/<step>.json and .npz; steps that have them are skipped. One evaluator's failure is recorded
and does not stop the others; the exit code is 1 if any failed.
"""

import ast
from typing import Any

from absl import flags

from ecgjax.core.flags import define_compile_cache


def define() -> None:
    """Declares the flags of this job."""
    define_compile_cache()
    flags.DEFINE_string("workdir", None, "Directory of the run to evaluate.")
    flags.DEFINE_string("data", None, "Data directory; default: the one the run was trained on.")
    flags.DEFINE_list(
        "steps",
        ["last"],
        "Steps to evaluate: numbers, `last`, `best` (see config.checkpoint.best), or `all`.",
    )
    flags.DEFINE_bool("follow", False, "Wait for further checkpoints until training is done.")
    flags.DEFINE_integer("timeout", 3600, "With --follow: seconds without a new checkpoint before giving up.")
    flags.DEFINE_multi_string("evaluator", None, "Only these; default: those of the run's config.")
    flags.DEFINE_multi_string(
        "evaluator_setting", [], "KEY=VALUE for the one evaluator named, such as inputs=('hand_features',)."
    )
    flags.DEFINE_integer("crops", 4, "Evenly spaced crops of an ECG whose predictions are averaged.")


def run(args: flags.FlagValues) -> int:
    """Evaluates; returns the exit code."""
    if args.workdir is None:
        raise ValueError("evaluate needs --workdir=DIR; see `python -m ecgjax evaluate --help`.")
    settings = _settings(args.evaluator_setting, args.evaluator)
    from etils import epath

    from ecgjax.core import runtime
    from ecgjax.runs import evaluating

    workdir = epath.Path(args.workdir)
    own = workdir / "compile_cache" if workdir.exists() else None
    runtime.start(compile_cache=args.compile_cache or own)
    options = {"data": args.data, "evaluators": args.evaluator, "settings": settings, "crops": args.crops}
    if args.follow:
        failed = evaluating.follow(workdir, timeout_s=args.timeout, **options)
    else:
        steps = evaluating.chosen(workdir, args.steps)
        failed = sum(evaluating.evaluate(workdir, step, **options) for step in steps)
    return 1 if failed else 0


def _settings(pairs: list[str], evaluators: list[str] | None) -> dict[str, Any]:
    if pairs and (evaluators is None or len(evaluators) != 1):
        raise ValueError("--evaluator_setting needs exactly one --evaluator.")
    settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"--evaluator_setting: expected KEY=VALUE, got {pair!r}.")
        try:
            settings[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            settings[key] = text
    return settings
