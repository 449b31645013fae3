"""What fake results of both reports share: writing and changing them, and rows; for tests only."""

import json

import numpy as np

from ecgjax.core.files import read_json, write_json
from ecgjax.evaluators.base import Results, Row
from ecgjax.formats.recording import LEADS

CHECKPOINT = "c0ffee" * 6
TWO = np.array(["a" * 16, "b" * 16])
"""Subjects or records of two examples."""


def write(workdir, evaluator, *, objective, rows=(), scalars=None, arrays=None, settings=None, step=400):
    """Results as an evaluator leaves them."""
    results = Results(evaluator, rows, scalars or {}, arrays or {}, settings or {})
    results.write(workdir, step=step, checkpoint=CHECKPOINT, objective=objective)


def write_input_spec(workdir, *, leads=LEADS, frames=None):
    """The part of a run's input that reports read."""
    spec = {"ecg": {"leads": list(leads)}, "cmr": None if frames is None else {"frames": list(frames)}}
    (workdir / "input_spec.json").write_text(json.dumps(spec))


def row(target, metric, source, value, *, kind, n, subjects, control=False, half=0.0):
    """A row whose interval is `half` wide to either side, within 0 and 1."""
    low, high = max(0.0, value - half), min(1.0, value + half)
    return Row(target, kind, control, source, metric, value, low, high, n, subjects)


def change(workdir, *, scalars=None, arrays=None):
    """Rewrites the only results of a workdir with other scalars and arrays beside those they have."""
    (path,) = workdir.rglob("results/*/*.json")
    tree, before = read_json(path), dict(np.load(path.with_suffix(".npz")))
    write_json(path, {**tree, "scalars": {**tree["scalars"], **(scalars or {})}})
    np.savez(path.with_suffix(".npz"), **{**before, **(arrays or {})})
