"""What a cross-validation config leaves to a run: the encoder whose weights, or only whose shape, its folds take."""

import os
from collections.abc import Mapping
from typing import Any

from ecgjax.core import config as configs
from ecgjax.core.files import absolute
from ecgjax.core.spec import InputSpec
from ecgjax.objectives.encoders import with_variant
from ecgjax.runs import initial
from ecgjax.train import checkpoint

COMMON = ("seed", "response", "labels", "split", "data", "crossvalidation", "contenders")
"""What every config holds at its top level; one without a network nothing else."""

NETWORK = (
    *COMMON,
    *("name", "mode", "steps", "objective", "optimizer", "accumulate", "grad_cache", "mesh", "init_from"),
)

MODES = {"probe": "full", "random": "full", "partial": "partial", "full": "full", "scratch": "full"}
"""Modes of a network, and the mode of the fine-tuning objective that each is built with."""

FROZEN = ("probe", "random")
"""Modes that train no network: a logistic regression reads its embedding."""

FRESH = ("random", "scratch")
"""Modes that take the shape of the run's encoder and none of its weights."""

_SET_HERE = {"mode": "config.mode", "task": "config.response", "targets": "config.response"}


def check(config: Mapping[str, Any]) -> bool:
    """Raises where the sections are not those of a cross-validation; returns whether there is a network."""
    network = "mode" in config
    configs.check_sections(config, NETWORK if network else COMMON)
    fields = ("directory", "batch_size", "crop", "crops") if network else ("directory",)
    configs.check_sections(config["data"], fields, "config.data")
    configs.check_set(config, "data.directory", "response")
    for field, known in (("labels", ("true", "permuted")), ("split", ("drawn", "given"))):
        if config[field] not in known:
            raise ValueError(
                f"config.{field}: unknown {config[field]!r}; choose {known[0]!r} or {known[1]!r}."
            )
    if not network:
        if not config["contenders"]:
            raise ValueError(
                "config.contenders is empty, and no config.mode names a network; name a contender."
            )
        return False
    if config["mode"] not in MODES:
        raise ValueError(f"config.mode: unknown {config['mode']!r}; choose from {', '.join(MODES)}.")
    for field, where in _SET_HERE.items():
        if field in config["objective"]:
            raise ValueError(f"config.objective.{field}: {where} says it; leave it out here.")
    if isinstance(config["objective"].get("class_weights"), str):
        raise ValueError(
            f"config.objective.class_weights is {config['objective']['class_weights']!r}, a count of all patients, "
            f"those of the test fold too; give numbers, or ()."
        )
    configs.check_set(config, "steps")
    if config["steps"] < 1:
        raise ValueError(f"config.steps is {config['steps']}; it must be at least 1.")
    if not initial.sections(config["init_from"]) or not config["init_from"]["workdir"]:
        raise ValueError(
            f"config.init_from.workdir: not set; mode {config['mode']} takes the shape of its encoder from a run: give "
            f"it as --config.init_from.workdir=RUN."
        )
    return True


def completed(config: Mapping[str, Any], spec: InputSpec) -> dict[str, Any]:
    """The training config of every fold on data of `spec`: encoder and crop as the source run has them.

    A `leadwise` encoder shares the run's among the leads, any other is the run's own; fields that the config gives
    stay. Raises where the data look otherwise to an encoder than those it was trained on, fresh weights included: a
    control is one on the same input.
    """
    source = config["init_from"]
    workdir = os.fspath(absolute(source["workdir"]))
    step = checkpoint.choose_step(workdir, source["step"])
    meta = checkpoint.read_meta(workdir, step)
    theirs, trained = _encoder(meta["config"], workdir), InputSpec.from_json(meta["input_spec"])
    objective = dict(config["objective"])
    own = {name: value for name, value in objective["encoder"].items() if value is not None}
    kind, beats = own.get("name"), trained.ecg is not None and trained.ecg.window == "beat"
    if (kind == "leadwise") != beats or not (beats or kind == theirs["name"]):
        raise ValueError(
            f"config.objective.encoder.name is {kind!r}, but {workdir} holds a {theirs['name']} of "
            f"{'beats' if beats else 'whole recordings'}; choose the recipe for its kind of encoder."
        )
    if config["mode"] in FROZEN:
        _check_trained(own)
    encoder = {**own, "encoder": {**theirs, **own.get("encoder", {})}} if beats else {**theirs, **own}
    mode = MODES[config["mode"]]
    objective |= {"encoder": encoder, "mode": mode, "task": "classification", "targets": [config["response"]]}
    initial.check_input(objective, spec, trained, f"config.init_from.workdir {workdir}")
    data = dict(config["data"]) | {"max_labels": None}
    if data["crop"] is None:
        data["crop"] = spec.ecg.length if spec.ecg.image is not None else meta["config"]["data"]["crop"]
    if not 1 <= data["crop"] <= spec.ecg.length:
        raise ValueError(
            f"config.data.crop: {data['crop']} samples are not within 1 to {spec.ecg.length}, the ECG length of "
            f"{data['directory']}."
        )
    if data["crops"] < 1:
        raise ValueError(f"config.data.crops is {data['crops']}; it must be at least 1.")
    if data["crop"] == spec.ecg.length:
        data["crops"] = 1  # All crops would be the same.
    rooted = {**source, "workdir": workdir, "step": step}
    if config["mode"] in FRESH:
        rooted = {**rooted, "workdir": "", "also": []}
    return {**config, "objective": objective, "data": data, "init_from": rooted}


def _check_trained(encoder: Mapping[str, Any]) -> None:
    """Raises where beats or leads are pooled by weights that a mode which trains nothing would leave as drawn."""
    for field, instead in (("pool", "median"), ("join", "concatenate")):
        if encoder.get("name") == "leadwise" and encoder.get(field) == "attention":
            raise ValueError(
                f"config.objective.encoder.{field} is 'attention', whose weights no run on single beats has and the "
                f"modes {' and '.join(FROZEN)} do not train; choose {instead!r}, or mode 'partial', 'full' or "
                f"'scratch'."
            )


def _encoder(config: Mapping[str, Any], workdir: str) -> dict[str, Any]:
    """The section of a run's ECG encoder, sizes of its variant filled in."""
    for name in ("ecg", "encoder"):
        section = config["objective"].get(name)
        if section:
            return with_variant(section, f"config.objective.{name}")
    raise ValueError(f"config.init_from.workdir: {workdir} holds no ECG encoder; name a run that does.")
