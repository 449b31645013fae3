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
from ecgjax.core.files import absolute, read_json, write_json, write_text
from ecgjax.core.interfaces import Tree
from ecgjax.core.spec import InputSpec
from ecgjax.data import manifest as manifests
from ecgjax.data import pipeline
from ecgjax.jobs import setup
from ecgjax.train import checkpoint, loop, optim, step
from ecgjax.train import state as states
from ecgjax.train.checkpoint import Checkpoints
from ecgjax.train.transfer import transfer
from ecgjax.train.writer import MetricWriter

INTERRUPTED = 75
"""Exit code (EX_TEMPFAIL) after a saved interruption: the same command goes on."""

_HARMLESS = ("log_every", "validate_every", "save_every", "mesh", "checkpoint", "evaluators", "data.cache")
"""Sections that may change on resume: they do not change what is trained."""


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
    configs.check_sections(config["init_from"], ("workdir", "step", "rules"), "config.init_from")
    configs.check_set(config, "data.directory", "steps")
    for section, field in (("data", "directory"), ("data", "similarity"), ("init_from", "workdir")):
        if config[section][field]:  # An evaluation job may run from elsewhere.
            config[section][field] = os.fspath(absolute(config[section][field]))
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
        steps_per_epoch=max(manifest.split("train").examples // batch_size, 1),
    )
    rhythm_fields = {k: config[k] for k in ("steps", "log_every", "validate_every", "save_every")}
    rhythm = configs.call(loop.Rhythm, rhythm_fields, "config")
    section = {"name": "orbax", **config["checkpoint"]}
    open_checkpoints = configs.bind({"orbax": Checkpoints}, section, "config.checkpoint", workdir=workdir)
    checkpoint.check_keep(open_checkpoints.keywords["keep"])
    iterator = _train_iterator(config)
    validation = _validation_batches(config, manifest, mesh)
    abstract = states.abstract_state(objective, tx, mesh)
    train_step, eval_step = step.compile_steps(objective, tx, mesh)
    _check_step(config, manifest, abstract, train_step)
    fresh = not checkpoint.steps(workdir)
    source = _source(config, manifest.input_spec, abstract, mesh) if fresh else None
    if dry_run:
        _describe(config, manifest.input_spec, abstract, mesh)
        return 0

    _open_workdir(workdir, config, manifest)
    if (workdir / "TRAINED").exists():
        runtime.say(f"{workdir} is trained already.")
        return 0
    checkpoints = open_checkpoints()
    restored = checkpoints.restore_latest(abstract, iterator)
    if restored is not None:
        state = restored.state
        runtime.say(f"{workdir}: resumed at step {int(state.step)}.")
    else:
        state = states.create(objective, tx, mesh, rng.stream(config["seed"], "init"))
        if source is None:  # Every checkpoint was damaged.
            source = _source(config, manifest.input_spec, abstract, mesh)
        if source is not None:
            state = _initialise(state, source, config, manifest.input_spec, workdir)
    runtime.say(
        f"{workdir}: {config['objective']['name']}, {trees.count(state.params):,} parameters, "
        f"{manifest.split('train').examples} training examples, {runtime.devices()}."
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
    )
    try:
        state = fit(state)
    finally:  # A save under way is finished whatever stopped the loop.
        writer.close()
        checkpoints.close()
    if int(state.step) < rhythm.steps:
        return INTERRUPTED
    if runtime.is_lead():
        write_json(workdir / "TRAINED", {"step": int(state.step), "params": trees.digest(state.params)})
    return 0


def _check_step(
    config: Mapping[str, Any], manifest: manifests.Manifest, state: states.TrainState, train_step
) -> None:
    """Traces one step on shapes alone, so that what only the loss can know is said before any work."""
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
    if config["data"]["similarity"]:
        examples = manifest.split("train").examples
        batch["similarity"] = jax.ShapeDtypeStruct((size, examples), "float32")
    train_step.eval_shape(state, batch, jax.eval_shape(lambda: jax.random.key(0)))


def _train_iterator(config: Mapping[str, Any]):
    return configs.call(
        pipeline.train_batches,
        config["data"],
        "config.data",
        seed=config["seed"],
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
    )


def _validation_batches(config: Mapping[str, Any], manifest: manifests.Manifest, mesh: Mesh):
    """Whole batches only: a contrastive loss depends on the number of negatives, so padding would change it."""
    data, examples = config["data"], manifest.split("val").examples
    size = min(data["batch_size"], examples // mesh.size * mesh.size)
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


def _open_workdir(workdir: epath.Path, config: Mapping[str, Any], manifest: manifests.Manifest) -> None:
    """Creates the workdir, or checks that it belongs to this config and data."""
    saved = workdir / "config.json"
    if not saved.exists() or not checkpoint.steps(workdir):  # Nothing saved, nothing to protect.
        strangers = (
            sorted(p.name for p in workdir.iterdir() if p.name != "compile_cache") if workdir.exists() else []
        )
        if strangers and not saved.exists():
            raise ValueError(
                f"{workdir} is not empty and holds no config.json ({', '.join(strangers[:5])}); it is not a workdir "
                f"of ecgjax: choose another directory."
            )
        if runtime.is_lead():
            write_json(workdir / "input_spec.json", manifest.input_spec.to_json())
            write_json(workdir / "manifest.json", manifest.to_json())
            write_json(workdir / "config.json", config)
        return
    changed = configs.differences(read_json(saved), config)
    harmful = [line for line in changed if not line.startswith(tuple(f"config.{name}" for name in _HARMLESS))]
    if harmful:
        raise ValueError(
            f"{workdir} belongs to another config:\n  "
            + "\n  ".join(harmful)
            + "\nResume with the config it was "
            "started with, or choose another --workdir."
        )
    for line in changed:
        runtime.say(f"resuming with {line}")
    before = manifests.Manifest.from_json(read_json(workdir / "manifest.json")).fingerprint
    if before != manifest.fingerprint:
        raise ValueError(
            f"{workdir} was trained on data of fingerprint {before[:12]}, {config['data']['directory']} has "
            f"{manifest.fingerprint[:12]}; restore the data, or choose another --workdir."
        )


def _source(
    config: Mapping[str, Any], spec: InputSpec, state: states.TrainState, mesh: Mesh
) -> setup.Trained | None:
    """The checkpoint to start from, tried on the shapes of `state`; None where the config names none."""
    section = config["init_from"]
    if not section["workdir"]:
        return None
    source_dir = epath.Path(section["workdir"])
    source = setup.open_checkpoint(source_dir, checkpoint.choose_step(source_dir, section["step"]), mesh)
    if "ecg" in source.params and (lines := spec.differences(source.spec, "ecg")):
        raise ValueError(
            f"config.init_from.workdir {source_dir} was trained on other ECG input: {'; '.join(lines)}."
        )
    _transfer(state.params, source, config, spec)
    return source


def _transfer(params: Tree, source: setup.Trained, config: Mapping[str, Any], spec: InputSpec):
    rules = [tuple(rule) for rule in config["init_from"]["rules"]]
    return transfer(params, source.params, rules=rules, rows=setup.token_rows(config, spec))


def _initialise(
    state, source: setup.Trained, config: Mapping[str, Any], spec: InputSpec, workdir: epath.Path
):
    """Copies weights of another run by path rules; the account of every leaf is printed and kept."""
    params, account = _transfer(state.params, source, config, spec)
    params = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), params, state.params)
    text = f"initialised from {config['init_from']['workdir']} step {source.step}: {account}"
    runtime.say(text)
    if runtime.is_lead():
        write_text(workdir / "init_from.txt", text + "\n" + "\n".join(account.copied) + "\n")
    return state._replace(params=params)


def _describe(config: Mapping[str, Any], spec: InputSpec, state: Tree, mesh: Mesh) -> None:
    """What the dry run prints."""
    runtime.say(f"config: {config}")
    runtime.say(f"input: {spec}")
    runtime.say(f"mesh: {dict(mesh.shape)} on {runtime.devices()}")
    for name, leaf in trees.flatten(state.params).items():
        runtime.say(f"  {name} {tuple(leaf.shape)} {leaf.dtype} {leaf.sharding.spec}")
    runtime.say(
        f"{trees.count(state.params):,} parameters, {trees.count(state.opt_state):,} optimiser values, "
        f"{trees.count(state.extra):,} statistics: the config is sound; nothing was written."
    )
