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
import time
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags
from etils import epath

import ecgjax
from ecgjax.core import config as configs
from ecgjax.core import runtime, trees
from ecgjax.evaluators import EVALUATORS
from ecgjax.evaluators.base import results_path
from ecgjax.jobs import setup
from ecgjax.train import checkpoint

_POLL_S = 2.0


def define() -> None:
    """Declares the flags of this job."""
    runtime.define_compile_cache()
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
    workdir = epath.Path(args.workdir)
    own = workdir / "compile_cache" if workdir.exists() else None
    runtime.start(compile_cache=args.compile_cache or own)
    failed = 0
    for step in _steps(workdir, args):
        try:
            failed += evaluate(
                workdir,
                step,
                data=args.data,
                evaluators=args.evaluator,
                settings=_settings(args.evaluator_setting, args.evaluator),
                crops=args.crops,
            )
        except ValueError:
            if not args.follow or step in checkpoint.steps(workdir):
                raise
            runtime.say(f"{workdir} step {step}: training removed it while it was read; skipped.")
    return 1 if failed else 0


def evaluate(
    workdir: epath.Path,
    step: int,
    *,
    data: str | None = None,
    evaluators: list[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    crops: int = 4,
) -> int:
    """Runs the evaluators on one checkpoint and writes their results; returns how many failed."""
    trained = setup.open_checkpoint(workdir, step)
    sections = dict(trained.meta["config"]["evaluators"])
    if evaluators:
        sections = {name: sections.get(name, {}) for name in evaluators}
        if settings:
            sections[evaluators[0]] = {**sections[evaluators[0]], **settings}
    splits = setup.splits_for(trained, data, crops=crops)
    digest = trees.digest(trained.params)
    failed = 0
    for name, section in sections.items():
        evaluator = configs.build(EVALUATORS, {"name": name, **section}, f"config.evaluators.{name}")
        if results_path(workdir, evaluator.name, step).exists():
            runtime.say(f"{workdir} step {step} {evaluator.name}: has results already.")
            continue
        began = time.perf_counter()
        try:
            results = evaluator.run(setup.predictor(trained, evaluator.keys), splits)
        except (ValueError, RuntimeError) as error:
            runtime.say(f"{workdir} step {step} {evaluator.name}: FAILED: {error}")
            failed += 1
            continue
        path = results.write(
            workdir,
            step=step,
            checkpoint=digest,
            objective=trained.meta["config"]["objective"]["name"],
            input_spec=trained.spec.to_json(),
            version=ecgjax.__version__,
            crops=crops,
        )
        runtime.say(f"{path}: {_summary(results)} in {time.perf_counter() - began:.1f} s")
        if results.text:
            runtime.say(results.text)
    return failed


def _steps(workdir: epath.Path, args: flags.FlagValues) -> Iterator[int]:
    """The steps asked for; following, the newest that has not been seen, until TRAINED."""
    if not args.follow:
        if "all" in args.steps:
            checkpoint.choose_step(workdir)
            yield from checkpoint.steps(workdir)
            return
        for text in args.steps:
            if text not in ("last", "best") and not text.isdigit():
                raise ValueError(f"--steps: expected numbers, `last`, `best` or `all`, got {text!r}.")
            yield checkpoint.choose_step(workdir, text)
        return
    seen: set[int] = set()
    waited_since = time.monotonic()
    while True:
        done = (workdir / "TRAINED").exists()  # Read before the steps: the last save precedes the marker.
        fresh = [step for step in checkpoint.steps(workdir) if step not in seen]
        for step in fresh:
            seen.add(step)
            if step in checkpoint.steps(workdir):  # Retention may have taken it meanwhile.
                yield step
            waited_since = time.monotonic()
        if done and not fresh:
            return
        if time.monotonic() - waited_since > args.timeout:
            raise ValueError(
                f"{workdir}: no new checkpoint for {args.timeout} s and no TRAINED marker; is training still "
                f"running? Raise --timeout to wait longer."
            )
        if not fresh:
            time.sleep(_POLL_S)


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


def _summary(results) -> str:
    means = {}
    for metric in ("r2", "auroc"):
        values = [row.value for row in results.rows if row.metric == metric and not row.control]
        if values:
            means[f"mean {metric}"] = sum(values) / len(values)
    shown = means or dict(list(results.scalars.items())[:3])
    return ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
