"""Conditioning against the arrays that the released reference computed."""

import inspect
import re

import numpy as np
import pytest
from formula import Golden

from ecgjax.signals import ecg

USES = {"preprocess": ["*"]}
PRECISIONS = ("float64",)  # Whatever comes in, conditioning computes in double: float32 solvers fail.
TOLERANCE = 1e-5  # The goldens are float32; a banded float64 solver agrees with the sparse one to 2e-8.
NORMALISATIONS = {"sample_wise": "record", "channel_wise": "lead", "group_wise": "group"}


@pytest.fixture(scope="module")
def golden(goldens):
    return Golden(goldens, "preprocess", "float64")


def found(golden, pattern):
    """Match objects of the arrays whose name fits."""
    matches = [match for match in (re.fullmatch(pattern, key) for key in golden.files) if match]
    assert matches, pattern
    return matches


def clipped(golden, record):
    raw = np.nan_to_num(golden[f"{record}/raw"].astype(np.float64))
    limit = 4 * raw.std()
    return np.clip(raw, -limit, limit)


def settings(golden):
    """What the set was made with, under our names."""
    names = {"lam": "baseline_lambda", "p": "baseline_p", "niter": "baseline_iterations"}
    return {ours: golden.meta[theirs] for theirs, ours in names.items()}


def close(got, want, name):
    np.testing.assert_allclose(got, want, atol=TOLERANCE, rtol=0, err_msg=name)


def test_condition_equals_the_reference(golden):
    for match in found(golden, "(.+)/out"):
        record = match[1]
        raw, baseline = golden[f"{record}/raw"], golden[f"{record}/baseline"]
        got = ecg.condition(raw, **settings(golden))
        close(got.baseline, baseline, record)
        close(got.signal, golden[f"{record}/out"], record)
        limit = 4 * golden[f"{record}/clip_std"]
        millivolt = got.signal * got.scale[:, None] + got.offset[:, None]
        close(millivolt, np.clip(np.nan_to_num(raw.astype(np.float64)), -limit, limit) - baseline, record)


def test_baseline_equals_the_reference_after_every_iteration(golden):
    lam, p = golden.meta["lam"], golden.meta["p"]
    for match in found(golden, r"(.+)/lead0_baseline_niter(\d+)"):
        got = ecg.asymmetric_baseline(clipped(golden, match[1])[:1], lam=lam, p=p, iterations=int(match[2]))
        close(got[0], golden[match[0]], match[0])


def test_baseline_equals_the_reference_at_other_settings(golden):
    for match in found(golden, r"(.+)/lead0_baseline_lam(.+)_p(.+)_n(\d+)"):
        lam, p, iterations = float(match[2]), float(match[3]), int(match[4])
        got = ecg.asymmetric_baseline(clipped(golden, match[1])[:1], lam=lam, p=p, iterations=iterations)
        close(got[0], golden[match[0]], match[0])


def test_normalisation_alone_equals_the_reference(golden):
    for match in found(golden, "(.+)/norm_(.+)"):  # The golden is clipped too.
        raw = golden[f"{match[1]}/raw"]
        got = ecg.condition(raw, baseline_lambda=None, normalise=NORMALISATIONS[match[2]])
        close(got.signal, golden[match[0]], match[0])


def test_defaults_are_the_settings_of_the_reference():
    defaults = {name: p.default for name, p in inspect.signature(ecg.condition).parameters.items()}
    assert (defaults["baseline_lambda"], defaults["baseline_p"], defaults["baseline_iterations"]) == (
        1e7,
        0.3,
        5,
    )
    assert (defaults["clip_sigma"], defaults["normalise"]) == (4.0, "group")
    assert [group.stop for group in ecg.LEAD_GROUPS] == [3, 6, 12]
