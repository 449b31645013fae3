"""Every recipe: it is what it was when last looked at, it names only what exists, and its model can be built."""

import importlib.util
import os
import pathlib
import re

import jax
import pytest

from ecgjax.core import config as configs
from ecgjax.core import trees
from ecgjax.core.spec import CmrSpec, EcgSpec, ImageSpec, InputSpec
from ecgjax.evaluators import EVALUATORS
from ecgjax.response import fold_config
from ecgjax.response.contest import CONTENDERS
from ecgjax.response.crossvalidation.run import CrossValidation
from ecgjax.runs.assemble import DATA_FIELDS, SECTIONS, make_objective
from ecgjax.train import optim

ROOT = pathlib.Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests" / "golden" / "configs"
RECORDING = "ECGJAX_RECORD_CONFIGS"
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def load(path):
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recipes():
    """(file, recipe) of every config file, from the error that lists them."""
    found = []
    for path in sorted((ROOT / "configs").glob("*.py")):
        module = load(path)
        if hasattr(module, "get_config"):
            with pytest.raises(ValueError, match="choose from") as error:
                module.get_config("?")
            names = str(error.value).partition("choose from ")[2].rstrip(".").split(", ")
            found += [(path.stem, name) for name in names]
    return found


RECIPES = recipes()


def config_of(file, recipe):
    return configs.plain(load(ROOT / "configs" / f"{file}.py").get_config(recipe))


JUDGING = [pair for pair in RECIPES if "crossvalidation" in config_of(*pair)]
TRAINING = [pair for pair in RECIPES if "objective" in config_of(*pair) and pair not in JUDGING]


def lines(tree, path=""):
    """`key: value` lines, sorted, one a leaf."""
    if isinstance(tree, dict) and tree:
        return [line for key in sorted(tree) for line in lines(tree[key], f"{path}.{key}" if path else key)]
    if isinstance(tree, list) and any(isinstance(item, dict | list) for item in tree):
        return [line for i, item in enumerate(tree) for line in lines(item, f"{path}[{i}]")]
    return [f"{path}: {tree!r}"]


@pytest.mark.parametrize(("file", "recipe"), RECIPES)
def test_a_recipe_is_the_recorded_one(file, recipe):
    """A change of a default shows here; record what is meant with ECGJAX_RECORD_CONFIGS=1 and explain it."""
    text = "\n".join(lines(config_of(file, recipe))) + "\n"
    path = RECORDED / f"{file}.{recipe}.txt"
    if os.environ.get(RECORDING):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_no_recorded_recipe_is_left_over():
    assert {path.stem for path in RECORDED.glob("*.txt")} == {f"{file}.{recipe}" for file, recipe in RECIPES}


@pytest.mark.parametrize(("file", "recipe"), RECIPES)
def test_the_docstring_of_its_file_explains_every_recipe(file, recipe):
    assert re.search(rf"`{re.escape(recipe)}`", load(ROOT / "configs" / f"{file}.py").__doc__)


PHENOTYPES = ("LVEDV", "LVESV", "LVEF", "LVM", "WT", "RVEDV", "RVEF")
BEATS = ("N", "L", "R", "S", "V", "F", "P")
IMAGE = ImageSpec(span=1024, win=128, hop=16, n_fft=512, bins=64, frames=64, mean=-4.0, std=1.5)
CONDITIONS = ("LVH", "DCM", "MI", "LBBB", "AF", "CAD", "diabetes")


def labels():
    """Columns as wide as UK Biobank's CMR table, and the conditions that recipes name."""
    names = (*PHENOTYPES, *(f"phenotype {i}" for i in range(82 - len(PHENOTYPES))))
    regression = [{"name": name, "kind": "regression", "mean": 0.0, "std": 1.0} for name in names]
    binary = {"kind": "binary", "mean": None, "std": None, "prevalence": 0.1}
    return (*regression, *({"name": name, **binary} for name in (*CONDITIONS, *BEATS)))


def spec(crop):
    """The inputs that a recipe of this crop expects: windows round beats, or the demo's at 100 Hz, others at 500."""
    if crop == IMAGE.span:
        return InputSpec(EcgSpec(("MLII",), 360.0, crop, "normalised", {}, window="beat", image=IMAGE))
    rate, size = (500.0, 210) if crop > 1000 else (100.0, 32)
    cmr = CmrSpec(("ES", "mid", "ED"), size, size, 1.8, "0 to 1", {})
    return InputSpec(EcgSpec(LEADS, rate, int(10 * rate), "normalised", {}), cmr)


@pytest.mark.parametrize(("file", "recipe"), TRAINING)
def test_a_training_recipe_can_be_built(file, recipe):
    config = config_of(file, recipe)
    configs.check_sections(config, SECTIONS)
    configs.check_sections(config["data"], DATA_FIELDS, "config.data")
    crop = config["data"]["crop"]
    if "online" in config["objective"]:
        config["objective"]["online"]["label"] = "CAD"  # Left to the user.
    objective = make_objective(config["objective"], spec=spec(crop), crop=crop, labels=labels())
    tx, schedule = optim.build(
        config["optimizer"],
        steps=config["steps"] or 40_000,
        frozen=objective.frozen_paths,
        batch_size=config["data"]["batch_size"],
        steps_per_epoch=7,
    )
    params, _ = jax.eval_shape(objective.init, jax.random.key(0))
    assert trees.count(jax.eval_shape(tx.init, params))
    assert float(schedule(20)) > 0
    for section in (config["init_from"], *config["init_from"]["also"]):
        for pattern, _ in section["rules"]:
            re.compile(pattern)
    for name, evaluator in config["evaluators"].items():
        configs.build(EVALUATORS, {"name": name, **evaluator}, f"config.evaluators.{name}")


@pytest.mark.parametrize(("file", "recipe"), JUDGING)
def test_a_recipe_of_crossvalidation_names_only_what_exists(file, recipe):
    config = config_of(file, recipe)
    config["data"]["directory"] = "DATA"
    if "mode" in config:
        config["init_from"]["workdir"] = "RUN"
        optim.build(config["optimizer"], steps=config["steps"], batch_size=config["data"]["batch_size"])
        for pattern, _ in config["init_from"]["rules"]:
            re.compile(pattern)
    assert fold_config.check(config) == ("mode" in config)
    settings = configs.call(CrossValidation, config["crossvalidation"], "config.crossvalidation")
    names = list(config["contenders"]) if "mode" not in config else [config["name"]]
    assert {*settings.curve_of, *filter(None, [settings.reference])} <= set(names)
    for name, section in config["contenders"].items():
        configs.bind(CONTENDERS, section, f"config.contenders.{name}")
