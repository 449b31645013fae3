import dataclasses
import json

import pytest

from ecgjax.core.spec import PER_LEAD, CmrSpec, EcgSpec, ImageSpec, InputSpec

ECG = EcgSpec(("I", "II"), 100.0, 1000, "mV", {"clip_sigma": None, "window": (1, 2)})
CMR = CmrSpec(("ES", "mid", "ED"), 32, 32, 4.4, "0 to 1", {"min_slices": 1})


@pytest.mark.parametrize("spec", [InputSpec(ECG, CMR), InputSpec(ecg=ECG), InputSpec(cmr=CMR)])
def test_a_spec_survives_json(spec):
    text = json.dumps(spec.to_json())
    again = InputSpec.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert not again.differences(spec, "ecg")
    assert not again.differences(spec, "cmr")


def test_every_field_that_differs_is_named():
    other = InputSpec(dataclasses.replace(ECG, rate_hz=500.0, leads=("I", "V1")), CMR)
    lines = InputSpec(ECG, CMR).differences(other, "ecg")
    assert lines == ["ecg.leads: ['I', 'II'] -> ['I', 'V1']", "ecg.rate_hz: 100.0 -> 500.0"]
    assert InputSpec(ECG, CMR).differences(other, "cmr") == []


def test_another_conditioning_is_a_difference():
    other = InputSpec(dataclasses.replace(ECG, conditioning={"clip_sigma": 4.0, "window": (1, 2)}))
    assert len(InputSpec(ECG).differences(other, "ecg")) == 1


def test_a_missing_modality_is_a_difference():
    assert len(InputSpec(ECG, CMR).differences(InputSpec(ECG), "cmr")) == 1


IMAGE = ImageSpec(span=64, win=16, hop=4, n_fft=32, bins=12, frames=16)


def test_what_older_data_sets_lack_stays_out_of_the_json_and_comes_back():
    plain = InputSpec(ECG).to_json()["ecg"]
    assert set(plain) == {"leads", "rate_hz", "length", "unit", "conditioning"}
    new = {"band_hz": (0.5, 40.0), "beats": 8, "image": dataclasses.replace(IMAGE, mean=-3.0, std=1.5)}
    spec = InputSpec(dataclasses.replace(ECG, **new))
    assert InputSpec.from_json(json.loads(json.dumps(spec.to_json()))).to_json() == spec.to_json()
    assert [line.split(":")[0] for line in spec.differences(InputSpec(ECG), "ecg")] == [
        "ecg.band_hz",
        "ecg.beats",
        "ecg.image",
    ]


def test_an_encoder_of_single_leads_asks_neither_for_leads_nor_for_length():
    other = dataclasses.replace(ECG, leads=("V1",), length=640, window="beat")
    assert InputSpec(ECG).differences(InputSpec(other), "ecg", PER_LEAD) == []
    other = InputSpec(dataclasses.replace(other, band_hz=(0.5, 40.0)))
    assert InputSpec(ECG).differences(other, "ecg", PER_LEAD) == ["ecg.band_hz: None -> [0.5, 40.0]"]


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"hop": 0}, "hop is 0; it must be at least 1"),
        ({"win": 15}, "win is 15; it must be even"),
        ({"win": 40}, "at most n_fft = 32"),
        ({"bins": 18}, "32 points have 17 frequencies"),
        ({"frames": 18}, "64 samples every 4 give 17"),
        ({"mean": 1.0}, "give both or neither"),
        ({"mean": 1.0, "std": 0.0}, "must be above 0"),
    ],
)
def test_an_image_that_cannot_be_made_is_refused(fields, rule):
    with pytest.raises(ValueError, match=f"config.ecg.image.*{rule}"):
        dataclasses.replace(IMAGE, **fields)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"window": "beat", "beats": 3}, "set beats to 0"),
        ({"window": "beat", "image": IMAGE}, "make them equal"),
        ({"length": 32, "image": IMAGE}, "above the length 32"),
    ],
)
def test_windows_and_images_that_contradict_each_other_are_refused(fields, rule):
    with pytest.raises(ValueError, match=rule):
        dataclasses.replace(ECG, **fields)
