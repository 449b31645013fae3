"""Data prepared for the encoder of a run: what the run decides, what the recipe keeps, what is refused."""

import dataclasses

import pytest
from etils import epath

from configs import prepare as recipes
from ecgjax.core import config as configs
from ecgjax.core.spec import EcgSpec, ImageSpec, InputSpec
from ecgjax.runs import initial, like, preparing

IMAGE = ImageSpec(span=128, win=32, hop=8, n_fft=64, bins=16, frames=16, mean=-4.0, std=1.5)
RANGE = {"baseline_lambda": None, "clip_sigma": None, "normalise": "range"}
SINGLE = EcgSpec(("MLII",), 360.0, 128, "95 % ranges", RANGE, band_hz=(0.5, 40.0), window="beat", image=IMAGE)
WHOLE = EcgSpec(("I", "II"), 100.0, 250, "standard deviations", {"clip_sigma": 4.0})
SPECS = {"beats": InputSpec(SINGLE), "whole": InputSpec(WHOLE)}


@pytest.fixture
def section():
    """The `ecg` of a recipe of ten seconds of twelve leads with their beats."""
    made = configs.plain(recipes.get_config("ptbxl500").ecg)
    return made | {"beats": 20}


def test_single_leads_decide_how_a_lead_looks_and_nothing_else(section):
    made = like.with_settings(section, SPECS["beats"], "/run", {})
    assert {name: made[name] for name in ("rate_hz", "band_hz", "conditioning")} == {
        "rate_hz": 360.0,
        "band_hz": [0.5, 40.0],
        "conditioning": RANGE,
    }
    assert made["image"] == dataclasses.asdict(IMAGE)
    assert (made["leads"], made["window"], made["beats"]) == ([], "start", 20)
    assert made["length"] == 3600  # Ten seconds, as before.
    assert made["quality"] == section["quality"]


def test_whole_recordings_decide_leads_length_and_beats_too(section):
    section |= {"image": dataclasses.asdict(IMAGE), "band_hz": (0.5, 40.0)}
    made = like.with_settings(section, SPECS["whole"], "/run", {})
    assert made == {
        "leads": ["I", "II"],
        "rate_hz": 100.0,
        "length": 250,
        "band_hz": None,
        "window": "start",
        "beats": 0,
        "image": None,
        "conditioning": {"clip_sigma": 4.0},
        "quality": {},
    }


@pytest.mark.parametrize(
    ("run", "given", "message"),
    [
        (
            "beats",
            {"rate_hz": 500.0},
            r"config\.ecg\.rate_hz is 500\.0, but /run was trained with 360\.0; leave",
        ),
        (
            "beats",
            {"band_hz": (0.5, 45.0)},
            r"config\.ecg\.band_hz is \(0\.5, 45\.0\), but .* \[0\.5, 40\.0\]",
        ),
        ("beats", {"image.win": 64}, r"config\.ecg\.image\.win is 64, but /run was trained with 32"),
        (
            "beats",
            {"conditioning.normalise": "group"},
            r"normalise is group, but /run was trained with range",
        ),
        ("whole", {"image.win": 64}, r"config\.ecg\.image\.win is 64, but /run was trained with None"),
        ("whole", {"length": 3600}, r"config\.ecg\.length is 3600, but /run was trained with 250"),
        ("whole", {"leads": ("II", "I")}, r"config\.ecg\.leads"),
    ],
)
def test_what_the_user_sets_otherwise_is_refused(section, run, given, message):
    with pytest.raises(ValueError, match=message):
        like.with_settings(section, SPECS[run], "/run", given)


def test_what_the_user_sets_alike_or_the_run_leaves_open_is_kept(section):
    section |= {"length": 1800, "rate_hz": 360.0}
    given = {"length": 1800, "rate_hz": 360.0, "band_hz": (0.5, 40.0), "image.win": 32}
    assert like.with_settings(section, SPECS["beats"], "/run", given)["length"] == 1800


def test_a_cohort_without_ecg_is_like_no_run(tmp_path):
    config = recipes.get_config("tiny")
    with config.ignore_type():
        config.ecg = None
    with pytest.raises(ValueError, match=r"--like: the config prepares no ECG"):
        preparing.prepare(config, epath.Path(tmp_path / "data"), like_run="/run")


def check(spec, source, *, encoder="leadwise"):
    objective = {"name": "finetune", "encoder": {"name": encoder}}
    initial.check_input(objective, InputSpec(spec), InputSpec(source), "config.init_from.workdir /run")


TWELVE = dataclasses.replace(SINGLE, leads=("I", "V1", "V6"), length=3600, window="start", beats=20)


def test_an_encoder_of_single_leads_may_start_a_leadwise_one_and_no_other():
    check(TWELVE, SINGLE)
    with pytest.raises(ValueError, match=r"trained on other ECG input; data -> run: .*ecg\.leads"):
        check(TWELVE, SINGLE, encoder="vit")
    with pytest.raises(ValueError, match=r"trained on other ECG input; data -> run: .*ecg\.length"):
        check(TWELVE, dataclasses.replace(TWELVE, length=1800))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": dataclasses.replace(IMAGE, win=64)},
            r"ecg\.image\.win: 64 -> 32\. Prepare the data with",
        ),
        ({"image": dataclasses.replace(IMAGE, mean=-3.0)}, r"ecg\.image\.mean: -3\.0 -> -4\.0\. "),
        ({"image": None}, r"ecg\.image: None -> \{.*--like"),
        ({"rate_hz": 250.0}, r"ecg\.rate_hz: 250\.0 -> 360\.0\. "),
        ({"band_hz": None}, r"ecg\.band_hz: None -> \[0\.5, 40\.0\]\. "),
        ({"conditioning": {}}, r"ecg\.conditioning\.normalise: absent -> range"),
    ],
)
def test_other_parameters_of_the_image_or_the_signal_are_refused_by_name(change, message):
    with pytest.raises(
        ValueError, match=rf"config\.init_from\.workdir /run was trained on single leads.*{message}"
    ):
        check(dataclasses.replace(TWELVE, **change), SINGLE)
