"""Puts the evaluators of a config to the checkpoints of a workdir, once or as they appear."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

import ecgjax
from ecgjax.core import config as configs
from ecgjax.core import runtime, trees
from ecgjax.core.result_files import results_path
from ecgjax.evaluators import EVALUATORS
from ecgjax.runs import opening
from ecgjax.train import checkpoint

_POLL_S = 2.0


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
    trained = opening.open_checkpoint(workdir, step)
    sections = dict(trained.meta["config"]["evaluators"])
    if evaluators:
        sections = {name: sections.get(name, {}) for name in evaluators}
        if settings:
            sections[evaluators[0]] = {**sections[evaluators[0]], **settings}
    splits = opening.splits_for(trained, data, crops=crops)
    digest = trees.digest(trained.params)
    failed = 0
    for name, section in sections.items():
        evaluator = configs.build(EVALUATORS, {"name": name, **section}, f"config.evaluators.{name}")
        if results_path(workdir, evaluator.name, step).exists():
            runtime.say(f"{workdir} step {step} {evaluator.name}: has results already.")
            continue
        began = time.perf_counter()
        try:
            results = evaluator.run(opening.predictor(trained, evaluator.keys), splits)
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


def chosen(workdir: epath.Path, which: Sequence[str]) -> list[int]:
    """The steps that `which` asks for: numbers, `last`, `best`, or `all`."""
    if "all" in which:
        checkpoint.choose_step(workdir)
        return checkpoint.steps(workdir)
    for text in which:
        if text not in ("last", "best") and not text.isdigit():
            raise ValueError(f"--steps: expected numbers, `last`, `best` or `all`, got {text!r}.")
    return [checkpoint.choose_step(workdir, text) for text in which]


def follow(workdir: epath.Path, *, timeout_s: int, **options: Any) -> int:
    """Evaluates every checkpoint as it appears, until TRAINED; `options` are those of `evaluate`."""
    failed = 0
    for step in _appearing(workdir, timeout_s):
        try:
            failed += evaluate(workdir, step, **options)
        except ValueError:
            if step in checkpoint.steps(workdir):
                raise
            runtime.say(f"{workdir} step {step}: training removed it while it was read; skipped.")
    return failed


def _appearing(workdir: epath.Path, timeout_s: int) -> Iterator[int]:
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
        if time.monotonic() - waited_since > timeout_s:
            raise ValueError(
                f"{workdir}: no new checkpoint for {timeout_s} s and no TRAINED marker; is training still "
                f"running? Raise --timeout to wait longer."
            )
        if not fresh:
            time.sleep(_POLL_S)


def _summary(results) -> str:
    means = {}
    for metric in ("r2", "auroc"):
        values = [row.value for row in results.rows if row.metric == metric and not row.control]
        if values:
            means[f"mean {metric}"] = sum(values) / len(values)
    shown = means or dict(list(results.scalars.items())[:3])
    return ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
