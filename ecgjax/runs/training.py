"""One training run: from a config to a workdir that holds its checkpoints, and TRAINED at the end."""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
from etils import epath
from jax.sharding import Mesh

import ecgjax
from ecgjax.core import config as configs
from ecgjax.core import distributed, rng, runtime, trees
from ecgjax.core import mesh as meshes
from ecgjax.core.files import absolute, write_json
from ecgjax.core.flags import STALL_MINUTES
from ecgjax.core.interfaces import Objective, Summarising, Tree
from ecgjax.core.spec import InputSpec
from ecgjax.data import manifest as manifests
from ecgjax.runs import agreement, feed, initial, measuring, nonfinite, workdirs
from ecgjax.runs.assemble import DATA_FIELDS, SECTIONS, Assembly, Data, abstract_batch, abstract_key, assemble
from ecgjax.train import checkpoint, checkpoint_writing, loop, optim
from ecgjax.train import state as states
from ecgjax.train.checkpoint_writing import Checkpoints
from ecgjax.train.meter import NotFinite
from ecgjax.train.once import Once, counting
from ecgjax.train.profile import parse_range
from ecgjax.train.stall import Watchdog
from ecgjax.train.watch import Best, Stopping
from ecgjax.train.writer import MetricWriter


def train(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    *,
    dry_run: bool = False,
    profile: str | None = None,
    stall_minutes: float = STALL_MINUTES,
) -> int:
    """Assembles one run and trains it to the end; the exit code says whether it was interrupted."""
    with Watchdog(stall_minutes, workdir) as watchdog:
        return _train(config, workdir, dry_run=dry_run, profile=profile, watchdog=watchdog)


def _train(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    *,
    dry_run: bool,
    profile: str | None,
    watchdog: Watchdog,
) -> int:
    configs.check_sections(config, SECTIONS)
    config = configs.plain(config)
    configs.check_sections(config["data"], DATA_FIELDS, "config.data")
    configs.check_set(config, "data.directory", "steps")
    traced = None if profile is None else parse_range(profile, steps=config["steps"])
    for name in ("directory", "similarity"):
        if config["data"][name]:  # An evaluation job may run from elsewhere.
            config["data"][name] = os.fspath(absolute(config["data"][name]))
    initial.sections(config["init_from"])
    for section in (config["init_from"], *config["init_from"]["also"]):
        if section["workdir"]:
            section["workdir"] = os.fspath(absolute(section["workdir"]))
    manifest = manifests.read_manifest(config["data"]["directory"])
    agreement.check(agreement.items(config, workdir, {"dry_run": dry_run}))
    data = Data.of(manifest, config["data"]["thin"])
    run = assemble(config, data)
    objective, mesh, abstract = run.objective, run.mesh, run.state
    rhythm_fields = {k: config[k] for k in ("steps", "log_every", "validate_every", "save_every")}
    rhythm = configs.call(loop.Rhythm, rhythm_fields, "config")
    stopping = _watch(Stopping, config["stop"], "config.stop")
    section = {"name": "orbax", **config["checkpoint"]}
    best = _watch(Best, section.pop("best", None), "config.checkpoint.best")
    open_checkpoints = configs.bind(
        {"orbax": Checkpoints}, section, "config.checkpoint", workdir=workdir, best=best
    )
    checkpoint_writing.check_keep(open_checkpoints.keywords["keep"])
    batches = feed.train_batches(config, mesh)
    validation = feed.validation_batches(config, manifest, mesh)
    watched = {"config.stop.metric": stopping, "config.checkpoint.best.metric": best}
    metrics = {path: watch.metric for path, watch in watched.items() if watch is not None}
    _check_step(config, data, run, metrics)
    if not (workdir / "TRAINED").exists():
        checkpoint.check_resumable(workdir)
    fresh = not checkpoint.steps(workdir)
    sources = initial.open_sources(config, manifest.input_spec, abstract, mesh) if fresh else ()
    if dry_run:
        workdirs.check_workdir(workdir, config, manifest)
        _describe(config, manifest.input_spec, abstract, mesh, watched=(best, stopping))
        return 0

    with distributed.lead_first("workdir"):
        workdirs.open_workdir(workdir, config, manifest)
    if distributed.agreed("trained", (workdir / "TRAINED").exists()):
        runtime.say(f"{workdir} is trained already.")
        return 0
    checkpoints = open_checkpoints()
    restored = checkpoints.restore_latest(abstract)
    if restored is not None:
        state = restored.state
        batches.seek(restored.next_batch)
        if stopping is not None:
            stopping.resume(restored.meta.get("stop"))  # Absent where the run did not watch anything.
        runtime.say(f"{workdir}: resumed at step {int(state.step)}.")
    else:
        state = states.create(objective, run.tx, mesh, rng.stream(config["seed"], "init"), run.rules)
        if not fresh:  # Every checkpoint was damaged.
            sources = initial.open_sources(config, manifest.input_spec, abstract, mesh)
        state = initial.initialise(state, sources, workdir, frozen=objective.frozen_paths)
    runtime.say(
        f"{workdir}: {config['objective']['name']}, {trees.count(state.params):,} parameters, "
        f"{data.epoch(config)} training examples, {runtime.devices()}."
    )
    key = rng.stream(config["seed"], "step")
    meta = {
        "config": config,
        "input_spec": manifest.input_spec.to_json(),
        "labels": list(data.labels),
        "fingerprint": manifest.fingerprint,
        "version": ecgjax.__version__,
    }
    writer = MetricWriter(workdir, start_step=int(state.step))
    score = Once(run.eval_step, "eval step")
    fit = functools.partial(
        loop.fit,
        train_step=Once(run.train_step, "train step"),
        validate=loop.mean_over(
            score, validation, rng.stream(config["seed"], "validation"), mesh, summary=_summary(objective)
        ),
        batches=batches,
        key=key,
        mesh=mesh,
        rhythm=rhythm,
        checkpoints=checkpoints,
        writer=writer,
        meta=meta,
        rates=optim.rates(config["optimizer"], run.schedule),
        name=workdir.name,
        gauge=measuring.gauge(run, abstract_batch(config, data, run)),
        profile=measuring.profile(traced, workdir, step=int(state.step)),
        watchdog=watchdog,
        stopping=stopping,
    )
    try:
        with counting() as compilations:
            state = fit(state)
        runtime.say(f"compiled: {measuring.compiled(compilations)}.")
    except NotFinite as error:  # All processes have come here.
        checkpoints.close()
        nonfinite.stop(error, workdir, batches, manifest)
    except BaseException:
        if not distributed.several():  # The others may never come to the end of this save.
            checkpoints.close()
        raise
    else:  # A save under way is finished whatever stopped the loop.
        checkpoints.close()
    finally:
        batches.close()
        writer.close()
    watchdog.at("the end", rare=True)
    stopped = stopping is not None and stopping.stopped
    if int(state.step) < rhythm.steps and not stopped:
        return runtime.INTERRUPTED
    marker = {"step": int(state.step), "params": trees.digest(meshes.to_host(state.params))}
    if runtime.is_lead():
        write_json(workdir / "TRAINED", marker | ({"stopped_early": stopping.reason} if stopped else {}))
    return 0


def _watch(what, section: Mapping[str, Any] | None, path: str):
    """Builds what watches a validation metric; None where the section names none."""
    if section is None or section.get("metric") is None:
        return None
    return configs.call(what, section, path)


def _summary(objective: Objective) -> Callable[[Mapping[str, float]], dict[str, float]]:
    """What the objective reports of its mean validation metrics; most report just these."""
    return objective.summary if isinstance(objective, Summarising) else dict


def _check_step(config: Mapping[str, Any], data: Data, run: Assembly, metrics: Mapping[str, str]) -> None:
    """Traces one step on shapes alone, so that what only the loss can know is said before any work.

    The first step takes this trace: shapes and shardings are its own. `metrics` are names of validation metrics, by
    the config path that asks for them.
    """
    batch, key = abstract_batch(config, data, run), abstract_key(run)
    if metrics:
        seen = {name: array for name, array in batch.items() if name != "similarity"}  # Of training alone.
        means = dict.fromkeys(run.eval_step.eval_shape(run.state, seen, key), 0.0)
        known = [f"val_{name}" for name in _summary(run.objective)(means)]
        for path, name in metrics.items():
            if name not in known:
                raise ValueError(f"{path} is {name!r}; validation knows {', '.join(known)}.")
    run.train_step.eval_shape(run.state, batch, key)


def _describe(config: Mapping[str, Any], spec: InputSpec, state: Tree, mesh: Mesh, *, watched: tuple) -> None:
    """What the dry run prints."""
    runtime.say(f"config: {config}")
    runtime.say(f"input: {spec}")
    runtime.say(f"mesh: {dict(mesh.shape)} on {runtime.devices()}")
    if config["accumulate"] > 1:
        size = config["data"]["batch_size"] // config["accumulate"]
        runtime.say(
            f"batch: {config['accumulate']} microbatches of {size} examples; a contrastive loss has its negatives, "
            f"and batch norm its statistics, within one of them"
        )
    if config["grad_cache"] > 1:
        runtime.say(
            f"encoders: {config['grad_cache']} parts of a batch, one after the other; batch norm has its statistics "
            f"within one of them, a contrastive loss its negatives in all"
        )
    for watch in watched:
        if watch is not None:
            runtime.say(f"watching: {watch}")
    for name, leaf in trees.flatten(state.params).items():
        runtime.say(f"  {name} {tuple(leaf.shape)} {leaf.dtype} {leaf.sharding.spec}")
    runtime.say(
        f"{trees.count(state.params):,} parameters, {trees.count(state.opt_state):,} optimiser values, "
        f"{trees.count(state.extra):,} statistics: the config is sound; nothing was written."
    )
