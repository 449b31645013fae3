import dataclasses
import json

import pytest

from ecgjax.core.spec import CmrSpec, EcgSpec, InputSpec

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
    assert lines == ["ecg.leads: ['I', 'II'] against ['I', 'V1']", "ecg.rate_hz: 100.0 against 500.0"]
    assert InputSpec(ECG, CMR).differences(other, "cmr") == []


def test_another_conditioning_is_a_difference():
    other = InputSpec(dataclasses.replace(ECG, conditioning={"clip_sigma": 4.0, "window": (1, 2)}))
    assert len(InputSpec(ECG).differences(other, "ecg")) == 1


def test_a_missing_modality_is_a_difference():
    assert len(InputSpec(ECG, CMR).differences(InputSpec(ECG), "cmr")) == 1
