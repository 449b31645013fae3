"""Trains one objective into a workdir. Run the same command again to resume after any interruption.

  python -m ecgjax train --config=configs/mae_ecg.py:demo --config.data.directory=DATA --workdir=RUN
  python -m ecgjax train --config=configs/ecg_cmr.py:demo --config.init_from.workdir=RUN --workdir=RUN2

The workdir receives config.json, input_spec.json, manifest.json, metrics.jsonl, tensorboard/, checkpoints/<step>/
and, once the last save is final, TRAINED. `--dry_run` checks everything that can be known beforehand.
SIGTERM or Ctrl-C saves and leaves with exit code 75; exit code 0 means trained.
"""

import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from absl import flags
from etils import epath
from jax.sharding import Mesh
from ml_collections import config_flags

import ecgjax
from ecgjax.core import config as configs
from ecgjax.core import mesh as meshes
from ecgjax.core import rng, runtime, trees
from ecgjax.core.files import absolute, write_json
from ecgjax.core.interfaces import Tree
from ecgjax.core.spec import InputSpec
from ecgjax.data import manifest as manifests
from ecgjax.data import pipeline
from ecgjax.jobs import initial, setup, workdirs
from ecgjax.train import checkpoint, loop, optim, step
from ecgjax.train import state as states
from ecgjax.train.checkpoint import Checkpoints
from ecgjax.train.watch import Best, Stopping
from ecgjax.train.writer import MetricWriter

INTERRUPTED = 75
"""Exit code (EX_TEMPFAIL) after a saved interruption: the same command goes on."""


def define() -> None:
    """Declares the flags of this job."""
    runtime.define_compile_cache()
    config_flags.DEFINE_config_file(
        "config", help_string="Training config: FILE or FILE:ARG.", lock_config=True
    )
    flags.DEFINE_string("workdir", None, "Directory of this run; local or gs://.")
    flags.DEFINE_bool("dry_run", False, "Check and print what would be trained, then stop.")


def run(args: flags.FlagValues) -> int:
    """Trains; returns the exit code."""
    if args.config is None or args.workdir is None:
        raise ValueError("train needs --config=FILE and --workdir=DIR; see `python -m ecgjax train --help`.")
    workdir = epath.Path(args.workdir)
    # Before the first compilation: later it would stay unused.
    own = None if args.dry_run else workdir / "compile_cache"
    runtime.start(compile_cache=args.compile_cache or own)
    return train(args.config, workdir, dry_run=args.dry_run)


def train(config: ml_collections.ConfigDict, workdir: epath.Path, *, dry_run: bool = False) -> int:
    """Assembles one run and trains it to the end; the exit code says whether it was interrupted."""
    configs.check_sections(config, setup.SECTIONS)
    config = configs.plain(config)
    configs.check_sections(config["data"], setup.DATA_FIELDS, "config.data")
    configs.check_set(config, "data.directory", "steps")
    for name in ("directory", "similarity"):
        if config["data"][name]:  # An evaluation job may run from elsewhere.
            config["data"][name] = os.fspath(absolute(config["data"][name]))
    initial.sections(config["init_from"])
    for section in (config["init_from"], *config["init_from"]["also"]):
        if section["workdir"]:
            section["workdir"] = os.fspath(absolute(section["workdir"]))
    manifest = manifests.read_manifest(config["data"]["directory"])
    mesh = configs.call(meshes.make_mesh, config["mesh"], "config.mesh")
    meshes.check_batch_size(config["data"]["batch_size"], mesh)
    objective = setup.make_objective(
        config["objective"],
        spec=manifest.input_spec,
        crop=config["data"]["crop"],
        labels=setup.label_columns(manifest),
    )
    batch_size = config["data"]["batch_size"]
    tx, schedule = optim.build(
        config["optimizer"],
        steps=config["steps"],
        frozen=objective.frozen_paths,
        batch_size=batch_size,
        steps_per_epoch=max(_examples(config, manifest) // batch_size, 1),
    )
    step.check_accumulate(config["accumulate"], batch_size=batch_size, mesh=mesh)
    step.check_grad_cache(
        config["grad_cache"],
        objective=objective,
        name=config["objective"]["name"],
        accumulate=config["accumulate"],
        batch_size=batch_size,
        mesh=mesh,
    )
    rhythm_fields = {k: config[k] for k in ("steps", "log_every", "validate_every", "save_every")}
    rhythm = configs.call(loop.Rhythm, rhythm_fields, "config")
    stopping = _watch(Stopping, config["stop"], "config.stop")
    section = {"name": "orbax", **config["checkpoint"]}
    best = _watch(Best, section.pop("best", None), "config.checkpoint.best")
    open_checkpoints = configs.bind(
        {"orbax": Checkpoints}, section, "config.checkpoint", workdir=workdir, best=best
    )
    checkpoint.check_keep(open_checkpoints.keywords["keep"])
    iterator = _train_iterator(config)
    validation = _validation_batches(config, manifest, mesh)
    abstract = states.abstract_state(objective, tx, mesh)
    parts = {name: config[name] for name in ("accumulate", "grad_cache")}
    train_step, eval_step = step.compile_steps(objective, tx, mesh, **parts)
    watched = {"config.stop.metric": stopping, "config.checkpoint.best.metric": best}
    metrics = {path: watch.metric for path, watch in watched.items() if watch is not None}
    _check_step(config, manifest, abstract, train_step, eval_step, metrics)
    fresh = not checkpoint.steps(workdir)
    sources = initial.open_sources(config, manifest.input_spec, abstract, mesh) if fresh else ()
    if dry_run:
        _describe(config, manifest.input_spec, abstract, mesh, watched=(best, stopping))
        return 0

    workdirs.open_workdir(workdir, config, manifest)
    if (workdir / "TRAINED").exists():
        runtime.say(f"{workdir} is trained already.")
        return 0
    checkpoints = open_checkpoints()
    restored = checkpoints.restore_latest(abstract, iterator)
    if restored is not None:
        state = restored.state
        if stopping is not None:
            stopping.resume(restored.meta.get("stop"))  # Absent where the run did not watch anything.
        runtime.say(f"{workdir}: resumed at step {int(state.step)}.")
    else:
        state = states.create(objective, tx, mesh, rng.stream(config["seed"], "init"))
        if not fresh:  # Every checkpoint was damaged.
            sources = initial.open_sources(config, manifest.input_spec, abstract, mesh)
        state = initial.initialise(state, sources, workdir, frozen=objective.frozen_paths)
    runtime.say(
        f"{workdir}: {config['objective']['name']}, {trees.count(state.params):,} parameters, "
        f"{_examples(config, manifest)} training examples, {runtime.devices()}."
    )
    key = rng.stream(config["seed"], "step")
    meta = {
        "config": config,
        "input_spec": manifest.input_spec.to_json(),
        "labels": list(setup.label_columns(manifest)),
        "fingerprint": manifest.fingerprint,
        "version": ecgjax.__version__,
    }
    writer = MetricWriter(workdir, start_step=int(state.step))
    fit = functools.partial(
        loop.fit,
        train_step=train_step,
        validate=loop.mean_over(eval_step, validation, rng.stream(config["seed"], "validation"), mesh),
        iterator=iterator,
        key=key,
        mesh=mesh,
        rhythm=rhythm,
        checkpoints=checkpoints,
        writer=writer,
        meta=meta,
        learning_rate=schedule,
        name=workdir.name,
        stopping=stopping,
    )
    try:
        state = fit(state)
    finally:  # A save under way is finished whatever stopped the loop.
        writer.close()
        checkpoints.close()
    stopped = stopping is not None and stopping.stopped
    if int(state.step) < rhythm.steps and not stopped:
        return INTERRUPTED
    if runtime.is_lead():
        marker = {"step": int(state.step), "params": trees.digest(state.params)}
        write_json(workdir / "TRAINED", marker | ({"stopped_early": stopping.reason} if stopped else {}))
    return 0


def _watch(what, section: Mapping[str, Any] | None, path: str):
    """Builds what watches a validation metric; None where the section names none."""
    if section is None or section.get("metric") is None:
        return None
    return configs.call(what, section, path)


def _check_step(
    config: Mapping[str, Any],
    manifest: manifests.Manifest,
    state: states.TrainState,
    train_step,
    eval_step,
    metrics: Mapping[str, str],
) -> None:
    """Traces one step on shapes alone, so that what only the loss can know is said before any work.

    `metrics` are names of validation metrics, by the config path that asks for them.
    """
    wanted = config["data"]["modalities"]
    missing = [m for m in ("ecg", "cmr") if m in state.params and m not in wanted]
    if missing:
        raise ValueError(
            f"config.data.modalities is {wanted}, but objective {config['objective']['name']} reads {missing} as well."
        )
    size, spec = config["data"]["batch_size"], manifest.input_spec
    batch = {
        "label": jax.ShapeDtypeStruct((size, len(manifest.targets)), "float32"),
        "subject": jax.ShapeDtypeStruct((size, 2), "uint32"),
        "index": jax.ShapeDtypeStruct((size,), "int32"),
        "mask": jax.ShapeDtypeStruct((size,), "bool"),
    }
    if "ecg" in wanted:
        shape = (size, len(spec.ecg.leads), config["data"]["crop"])
        batch["ecg"] = jax.ShapeDtypeStruct(shape, "float32")
    if "cmr" in wanted:
        shape = (size, spec.cmr.height, spec.cmr.width, len(spec.cmr.frames))
        batch["cmr"] = jax.ShapeDtypeStruct(shape, "float32")
    key = jax.eval_shape(lambda: jax.random.key(0))
    if metrics:
        known = [f"val_{name}" for name in eval_step.eval_shape(state, batch, key)]
        for path, name in metrics.items():
            if name not in known:
                raise ValueError(f"{path} is {name!r}; validation knows {', '.join(known)}.")
    if config["data"]["similarity"]:  # Comes with training batches only.
        examples = manifest.split("train").examples
        batch["similarity"] = jax.ShapeDtypeStruct((size, examples), "float32")
    train_step.eval_shape(state, batch, key)


def _examples(config: Mapping[str, Any], manifest: manifests.Manifest) -> int:
    """Of one epoch; of so many labels, which end with a whole subject, a few may stay unused."""
    examples, limit = manifest.split("train").examples, config["data"]["max_labels"]
    return examples if limit is None else min(examples, limit)


def _train_iterator(config: Mapping[str, Any]):
    fields = {name: value for name, value in config["data"].items() if name != "validation_batch"}
    return configs.call(
        pipeline.train_batches,
        fields,
        "config.data",
        seed=config["seed"],
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
    )


def _validation_batches(config: Mapping[str, Any], manifest: manifests.Manifest, mesh: Mesh):
    """Whole batches only: a contrastive loss depends on the number of negatives, so padding would change it.

    A metric that is no mean over examples, such as AUROC, is that of the split where one batch holds all of it:
    `validation_batch` may be any number up to there, and beyond it means just that.
    """
    data, examples = config["data"], manifest.split("val").examples
    wanted = data["batch_size"] if data["validation_batch"] is None else data["validation_batch"]
    size = min(wanted, examples) // mesh.size * mesh.size
    if wanted < mesh.size:
        raise ValueError(
            f"config.data.validation_batch is {wanted}; it must be at least {mesh.size}, one example a device."
        )
    if size == 0:
        raise ValueError(
            f"split val holds {examples} examples, fewer than {mesh.size} devices; prepare more."
        )
    open_batches = functools.partial(
        pipeline.evaluation_batches,
        data["directory"],
        split="val",
        batch_size=size,
        crop=data["crop"],
        modalities=data["modalities"],
        cache=data["cache"],
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
    )

    def batches():
        for number, batch in enumerate(open_batches()):
            if number < examples // size:
                yield batch

    return batches


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
