"""Conditioning against the arrays that the released reference computed."""

import json

import numpy as np
import pytest

from ecgjax.signals import ecg

TOLERANCE = 1e-5  # The goldens are float32; a banded float64 solver agrees with the sparse one to 2e-8.


@pytest.fixture(scope="module")
def golden(goldens):
    path = goldens / "preprocess.npz"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    return np.load(path, allow_pickle=False)


def clipped_lead0(golden, record):
    raw = np.nan_to_num(golden[f"{record}/raw"].astype(np.float64))
    limit = 4 * raw.std()
    return np.clip(raw[:1], -limit, limit)


@pytest.mark.parametrize("record", ["rec0", "rec1", "rec2", "rec3"])
def test_condition_equals_the_reference(golden, record):
    raw = golden[f"{record}/raw"]
    got = ecg.condition(raw)
    np.testing.assert_allclose(got.baseline, golden[f"{record}/baseline"], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(got.signal, golden[f"{record}/out"], atol=TOLERANCE, rtol=0)
    limit = 4 * golden[f"{record}/clip_std"]
    clipped = np.clip(np.nan_to_num(raw.astype(np.float64)), -limit, limit)
    millivolt = got.signal * got.scale[:, None] + got.offset[:, None]
    np.testing.assert_allclose(millivolt, clipped - golden[f"{record}/baseline"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("record", ["rec0", "rec1", "rec2", "rec3"])
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_baseline_equals_the_reference_after_every_iteration(golden, record, iterations):
    got = ecg.asymmetric_baseline(clipped_lead0(golden, record), lam=1e7, p=0.3, iterations=iterations)
    want = golden[f"{record}/lead0_baseline_niter{iterations}"]
    np.testing.assert_allclose(got[0], want, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("record", ["rec0", "rec1", "rec2", "rec3"])
def test_baseline_equals_the_reference_at_other_settings(golden, record):
    got = ecg.asymmetric_baseline(clipped_lead0(golden, record), lam=1e5, p=0.01, iterations=10)
    want = golden[f"{record}/lead0_baseline_lam1e5_p0.01_n10"]
    np.testing.assert_allclose(got[0], want, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("record", "sample_wise"), ("lead", "channel_wise"), ("group", "group_wise")]
)
def test_normalisation_alone_equals_the_reference(golden, ours, theirs):
    got = ecg.condition(
        golden["rec3/raw"], baseline_lambda=None, normalise=ours
    )  # The golden is clipped too.
    np.testing.assert_allclose(got.signal, golden[f"rec3/norm_{theirs}"], atol=TOLERANCE, rtol=0)


def test_defaults_are_the_settings_of_the_reference(golden):
    meta = json.loads(str(golden["meta_json"]))
    assert (meta["lam"], meta["p"], meta["niter"], meta["var_eps"]) == (1e7, 0.3, 5, 1e-12)
    assert [group.stop for group in ecg.LEAD_GROUPS] == meta["groups"]
