"""What a plan takes its data to be: those of a directory, or those that a recipe of `prepare` would make."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgjax.core import config as configs
from ecgjax.core.spec import InputSpec
from ecgjax.data import manifest as manifests
from ecgjax.data import thinning
from ecgjax.data.cohorts import COHORTS
from ecgjax.formats.recording import LEADS
from ecgjax.runs import preparing
from ecgjax.runs.assemble import Data
from ecgjax.signals.input_specs import cmr_spec, ecg_spec


def data_of(config: Mapping[str, Any], recipe: str) -> tuple[Data, str]:
    """The data and a sentence that says where they come from; raises where the config wants what they lack.

    config.data.directory decides where it is set, else `recipe`, such as configs/prepare.py:paper.
    """
    directory, thin = config["data"]["directory"], config["data"]["thin"]
    if directory:
        data, origin = Data.of(manifests.read_manifest(directory), thin), f"as in {directory}"
    else:
        data = _of_recipe(recipe, thin)
        origin = f"assumed: as {recipe} would make them (--input=FILE:ARG for others)"
    _check(config, data.spec, origin)
    return data, f"data {origin}: {_words(data)}."


def _of_recipe(recipe: str, thin: Mapping[str, float]) -> Data:
    """What needs no recordings: shapes, label columns, and the number of train items before any is rejected.

    Means and deviations of labels, which no program depends on but as constants, are taken as 0 and 1.
    """
    config = configs.plain(_load(recipe))
    configs.check_sections(config, preparing.SECTIONS, "--input")
    ecg, cmr = config["ecg"], config["cmr"]
    cohort = configs.build(COHORTS, config["cohort"], "--input.cohort")
    spec = InputSpec(
        ecg=ecg
        and ecg_spec(
            ecg["conditioning"],
            ecg["leads"] or LEADS,
            ecg["rate_hz"],
            ecg["length"],
            **{name: ecg[name] for name in ("band_hz", "window", "beats", "image")},
        ),
        cmr=cmr and cmr_spec(cmr["conditioning"], cmr["height"], cmr["width"], cmr["pixel_mm"]),
    )
    examples = sum(item.split == "train" for item in cohort.items())
    columns = tuple(
        manifests.TargetColumn(target, 0.0, 1.0, 0.5 if target.kind == "binary" else None, examples).to_json()
        for target in cohort.targets
    )
    return Data(spec, thinning.marked(columns, thin), examples)


def _load(recipe: str):
    path, _, argument = recipe.partition(":")
    if not Path(path).is_file():
        raise ValueError(
            f"--input={recipe}: no such file; give FILE or FILE:ARG, such as configs/prepare.py:paper."
        )
    module_spec = importlib.util.spec_from_file_location("ecgjax_plan_input", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module.get_config(argument) if argument else module.get_config()


def _check(config: Mapping[str, Any], spec: InputSpec, origin: str) -> None:
    wanted = config["data"]["modalities"]
    lacking = [name for name in wanted if getattr(spec, name, None) is None]
    if lacking:
        raise ValueError(f"config.data.modalities: asked for {lacking}, which the data lack ({origin}).")
    if "ecg" in wanted and not 1 <= config["data"]["crop"] <= spec.ecg.length:
        raise ValueError(
            f"config.data.crop: {config['data']['crop']} samples are not within 1 to {spec.ecg.length} ({origin})."
        )


def _words(data: Data) -> str:
    parts = []
    if (ecg := data.spec.ecg) is not None:
        parts.append(f"ECG {len(ecg.leads)} leads x {ecg.length} at {ecg.rate_hz:g} Hz")
    if (cmr := data.spec.cmr) is not None:
        parts.append(f"CMR {cmr.height} x {cmr.width} x {len(cmr.frames)}")
    return f"{', '.join(parts)}, {len(data.labels)} labels, {data.examples} train examples"
