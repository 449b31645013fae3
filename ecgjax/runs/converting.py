"""From published PyTorch weights to a workdir, and back."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

import ecgjax
from ecgjax.core import config as configs
from ecgjax.core import runtime, trees
from ecgjax.core.files import absolute, write_json, write_text
from ecgjax.core.interfaces import Tree
from ecgjax.data.manifest import read_manifest
from ecgjax.models.posemb import sincos_positions
from ecgjax.objectives import CONVERTED, OBJECTIVES
from ecgjax.runs import opening
from ecgjax.train import checkpoint
from ecgjax.weights import SAFETENSORS
from ecgjax.weights.conversion import Target, Wishes, describe, plan
from ecgjax.weights.files import read_safetensors, read_torch, write_safetensors, write_torch
from ecgjax.weights.fit import fit, unfit
from ecgjax.weights.states import inspect_state, state_of


def to_workdir(
    source: epath.PathLike,
    workdir: epath.Path,
    wishes: Wishes,
    *,
    data: epath.PathLike | None = None,
    dry_run: bool = False,
) -> None:
    """Makes `workdir` of a file of weights: config.json, input_spec.json, checkpoint 0, convert.txt, TRAINED."""
    where = os.fspath(source)
    if data and wishes.spec is None:
        wishes = dataclasses.replace(wishes, spec=read_manifest(data).input_spec)
    if workdir.exists() and any(workdir.iterdir()):
        raise ValueError(f"--to={workdir} is not empty; choose another directory.")
    read = read_safetensors if where.endswith(SAFETENSORS) else read_torch
    state, settings = state_of(read(source), where=where)
    found = inspect_state(state, where=where)
    runtime.say(describe(found, where=where))
    target = plan(found, state, settings, wishes, where=where)
    objective = configs.build(
        {**OBJECTIVES, **CONVERTED},
        target.objective,
        "config.objective",
        spec=target.spec,
        crop=target.crop,
        labels=(),
    )
    shapes = jax.eval_shape(objective.init, jax.random.key(0))
    params, extra, account = fit(state, *shapes, rows=target.rows, where=where)
    runtime.say(f"objective {target.objective['name']}: {account}")
    if dry_run:
        return
    params, extra = _draw_missing(objective, params, extra)
    config = _config(target, source, data)
    meta = {
        "config": config,
        "input_spec": target.spec.to_json(),
        "labels": [],
        "fingerprint": "",
        "version": ecgjax.__version__,
    }
    checkpoint.write_params(workdir, 0, params, extra, meta)
    write_json(workdir / "config.json", config)
    write_json(workdir / "input_spec.json", target.spec.to_json())
    text = f"{describe(found, where=epath.Path(where).name)}\nobjective {target.objective['name']}"
    write_text(workdir / "convert.txt", f"{text}\n{account.lines()}\n")
    write_json(workdir / "TRAINED", {"step": 0, "params": trees.digest(params)})
    runtime.say(f"{workdir}: {trees.count(params):,} parameters; account in convert.txt.")


def to_file(
    workdir: epath.Path,
    target: epath.PathLike,
    *,
    step: int | None = None,
    part: str | None = None,
    omit: list[str] | tuple[str, ...] = (),
    dry_run: bool = False,
) -> None:
    """Writes a checkpoint as PyTorch weights: {model: ...} of the ECG, {state_dict: ...} of the image, or of both."""
    if epath.Path(target).exists():
        raise ValueError(f"--to={target} exists; choose another name.")
    trained = opening.open_checkpoint(workdir, checkpoint.choose_step(workdir, step))
    chosen = part or (trained.modalities[0] if len(trained.modalities) == 1 else "all")
    modalities = trained.modalities if chosen == "all" else (chosen,)
    if missing := [m for m in modalities if m not in trained.params]:
        raise ValueError(
            f"--part={chosen}: {workdir} has no {missing[0]}, only {', '.join(trained.modalities)}."
        )
    if "cmr" in modalities:
        _check_image_encoder(trained)
    both = len(modalities) == 2
    kept = {m: _published_parts(trained.params[m], towers=both) for m in modalities}
    params, extra = (
        {m: {name: tree[m][name] for name in kept[m] if name in tree[m]} for m in modalities if m in tree}
        for tree in (trained.params, trained.extra)
    )
    if both and "online" in trained.params:
        params["online"] = trained.params["online"]
    section = opening.encoder_section(trained.meta["config"], "ecg") if "ecg" in modalities else None
    state = unfit(
        params,
        extra,
        patch_leads=section.get("patch_leads", 1) if section else 1,
        tables=_tables(trained, params, section, prefixed=both) if section else {},
        prefixed=both,
    )
    written = {*trees.flatten(params), *trees.flatten(extra)}
    unnamed = [
        leaf
        for tree in (trained.params, trained.extra)
        for leaf in trees.flatten(tree)
        if leaf not in written
    ]
    left_out = [name for name in state if any(re.search(pattern, name) for pattern in omit)]
    state = {name: value for name, value in state.items() if name not in left_out}
    account = [f"{len(state)} tensors, {sum(v.size for v in state.values()):,} values"]
    account += [f"  left out: {name}" for name in left_out]
    account += [f"  not written: {branch}" for branch in sorted({_branch(leaf) for leaf in unnamed})]
    account += [f"  {name} {value.shape}" for name, value in state.items()] if dry_run else []
    runtime.say("\n".join(account))
    if dry_run:
        return
    if os.fspath(target).endswith(SAFETENSORS):
        write_safetensors(target, state, metadata={"format": "pt", "made_by": f"ecgjax {ecgjax.__version__}"})
    else:
        write_torch(target, {"model" if modalities == ("ecg",) else "state_dict": state})
    runtime.say(f"{target}: step {trained.step} of {workdir}, {chosen}")


def _draw_missing(objective, params: Tree, extra: Tree) -> tuple[Tree, Tree]:
    """Draws the leaves that are still shapes; what the file gave is left out of the program."""
    both = (params, extra)
    missing = [n for n, leaf in trees.flatten(both).items() if isinstance(leaf, jax.ShapeDtypeStruct)]
    drawn: dict[str, np.ndarray] = {}
    if missing:

        @jax.jit
        def draw(key):
            leaves = trees.flatten(objective.init(key))
            return {name: leaves[name] for name in missing}

        drawn = jax.device_get(draw(jax.random.key(0)))
    return jax.tree.map(np.ascontiguousarray, trees.map_named(lambda n, leaf: drawn.get(n, leaf), both))


def _config(target: Target, source: epath.PathLike, data: epath.PathLike | None) -> dict[str, Any]:
    """What `evaluate` and `export` read of a training config, and where the weights came from."""
    content = epath.Path(source).read_bytes()
    return configs.plain(
        {
            "seed": 0,
            "steps": 0,
            "data": {
                "directory": os.fspath(absolute(data)) if data else None,
                "batch_size": 256,
                "crop": target.crop,
                "modalities": [m for m in ("ecg", "cmr") if getattr(target.spec, m) is not None],
            },
            "objective": dict(target.objective),
            "evaluators": dict(target.evaluators),
            "converted": {"file": epath.Path(source).name, "sha256": hashlib.sha256(content).hexdigest()},
        }
    )


def _published_parts(tower: Tree, *, towers: bool) -> list[str]:
    """Parts of a tower that published files hold; projection heads go along only where both towers are written."""
    downstream = "linear" in tower.get("head", {})
    heads = ["head"] if downstream or (towers and "fc2" in tower.get("head", {})) else []
    return ["encoder", "decoder", "projector", "predictor", *heads]


def _branch(leaf: str) -> str:
    return "/".join(leaf.split("/")[:2])


def _tables(trained: opening.Trained, params: Tree, section, *, prefixed: bool) -> dict[str, np.ndarray]:
    """Positions that are no parameter of ours, by torch name."""
    config = trained.meta["config"]
    rows, columns = opening.token_rows(config, trained.spec), config["data"]["crop"] // section["patch"]

    def table(width: int, fields: Mapping[str, Any]) -> np.ndarray:
        frequencies = fields.get("frequencies", "float64")
        return sincos_positions(leads=rows, columns=columns, width=width, frequencies=frequencies)[None]

    tables = {}
    if "positions" not in params["ecg"]["encoder"]:
        name = "encoder_ecg.pos_embed" if prefixed else "pos_embed"
        tables[name] = table(section["width"], section)
    if "decoder" in params["ecg"]:
        width = params["ecg"]["decoder"]["mask_token"].shape[-1]
        tables["decoder_pos_embed"] = table(width, config["objective"]["decoder"])
    return tables


def _check_image_encoder(trained: opening.Trained) -> None:
    """Raises where the image encoder is of a kind that the published names do not describe."""
    section = opening.encoder_section(trained.meta["config"], "cmr") or {"stem": None, "norm": None}
    stem, norm = section.get("stem", "imagenet"), section.get("norm", "batch")
    if (stem, norm) != ("imagenet", "batch"):
        raise ValueError(
            f"the CMR encoder has stem {stem!r} and norm {norm!r}; the published names are those of a residual network "
            f"of stem 'imagenet' and norm 'batch'. Choose --part=ecg."
        )
