import dataclasses

import fake_runs
import numpy as np
import pytest

from ecgjax.metrics.bootstrap import over_seeds, percentile_interval, score_targets
from ecgjax.reports.claims import FAILS, HOLDS, OPEN, decide
from ecgjax.reports.probe_scores import load


def claim(lower, higher, **more):
    return {"lower": lower, "higher": higher, "metric": "r2", **more}


def test_verdicts_follow_the_results_and_turn_with_them(scored):
    there, back, itself = decide(
        [claim("MDM", "MMCL from MDM"), claim("MMCL from MDM", "MDM"), claim("MDM", "MDM")], scored
    )
    assert there.verdict == HOLDS
    assert back.verdict == FAILS
    assert itself.verdict == OPEN
    assert there.difference.value == pytest.approx(-back.difference.value)
    assert there.seeds == (3, 3)
    assert (there.difference.n, there.difference.subjects) == (300, 150)


def test_the_interval_is_the_hierarchical_bootstrap_of_the_headline_mean(scored):
    (verdict,) = decide([claim("MDM", "MMCL from MDM", metric="auroc")], scored)
    lower, higher = scored.row("MDM").runs, scored.row("MMCL from MDM").runs
    columns = [[c.target for c in lower[0].columns].index(t) for t in ("LVH", "DCM", "MI")]
    truth, subject = lower[0].truth[:, columns], lower[0].subject
    a, b = (
        over_seeds(
            [
                score_targets(truth, run.prediction[:, columns], subject, metrics=["auroc"] * 3, draws=200)
                for run in runs
            ]
        )
        for runs in (lower, higher)
    )
    value, drawn = np.mean(b.value - a.value), np.mean(b.draws - a.draws, axis=1)
    want = percentile_interval(value, drawn, n=300, subjects=150)
    assert dataclasses.astuple(verdict.difference) == pytest.approx(dataclasses.astuple(want))
    assert verdict.by_seed.mean() == pytest.approx(want.value)
    assert np.mean([x.value for x in verdict.by_target.values()]) == pytest.approx(want.value)


def test_a_difference_whose_interval_holds_zero_is_not_shown(tmp_path):
    for name, seeds in (("a", (0, 1)), ("b", (2, 3))):
        for number, seed in enumerate(seeds):
            fake_runs.write_probe(tmp_path / name / str(number), noise=1.5, seed=seed)
    rows = [fake_runs.row(name, f"{name}/0", f"{name}/1") for name in "ab"]
    results = load(rows, root=tmp_path, draws=100)
    verdicts = decide([claim("a", "b"), claim("b", "a")], results)
    assert [v.verdict for v in verdicts] == [OPEN, OPEN]
    assert verdicts[0].difference.value != 0


def test_at_most_needs_a_margin_to_hold_between_equals(scored):
    equal = claim("MDM", "MDM", relation="<=")
    close = claim("MDM", "random init", relation="<=")
    verdicts = decide([{**equal, "margin": 0.01}, close, {**close, "margin": 0.5}], scored)
    assert [v.verdict for v in verdicts] == [HOLDS, FAILS, HOLDS]


def test_what_cannot_be_paired_is_not_shown_with_a_reason(scored):
    missing, file = decide([claim("MDM", "supervised ECG"), claim("MMCL from MDM", "attainable")], scored)
    assert (missing.verdict, missing.reason) == (OPEN, "supervised ECG lacks results")
    assert (file.verdict, file.reason) == (OPEN, "attainable has no predictions to pair")


def test_rows_pair_by_record_whatever_their_order(tmp_path):
    fake_runs.write_probe(tmp_path / "a", noise=2.0, seed=0)
    fake_runs.write_probe(tmp_path / "b", noise=1.0, seed=0)
    order = np.random.default_rng(0).permutation(fake_runs.N)
    fake_runs.write_probe(tmp_path / "shuffled", noise=1.0, seed=0, order=order)
    fake_runs.write_probe(tmp_path / "fewer", noise=1.0, seed=0, order=order[:200])
    rows = [fake_runs.row(name, name) for name in ("a", "b", "shuffled", "fewer")]
    results = load(rows, root=tmp_path, draws=50)
    straight, shuffled, fewer = decide([claim("a", name) for name in ("b", "shuffled", "fewer")], results)
    assert dataclasses.astuple(straight.difference) == pytest.approx(dataclasses.astuple(shuffled.difference))
    assert fewer.reason == "the rows were evaluated on different records"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (claim("MDM", "nobody"), "no row is called 'nobody'; choose from attainable"),
        ({**claim("MDM", "MDM"), "verdict": "holds"}, r"unknown \['verdict'\]"),
        (claim("MDM", "MDM", margin=0.1), "margin 0.1"),
        ({"lower": "MDM", "higher": "MDM"}, r"\['metric'\] missing"),
    ],
)
def test_a_wrong_claim_is_named(scored, wrong, message):
    with pytest.raises(ValueError, match=message):
        decide([wrong], scored)
