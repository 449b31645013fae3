"""Who is compared with whom, and what may be concluded."""

import dataclasses

import fake_response
import fake_results
import numpy as np
import pytest
from fake_response import AREA

from ecgjax.core.result_files import read_results
from ecgjax.metrics.classification import auroc
from ecgjax.response.report import contenders
from ecgjax.response.report.build import build
from ecgjax.response.report.differences import HELPS, NO_EVIDENCE, judge


def two_runs(root, tmp_path, **more):
    """The comparators and a second run that is like them but for what is given."""
    (tmp_path / "a").symlink_to(root / "comparators")
    fake_response.write_network(tmp_path / "b", "network", noise=1.0, **more)
    return contenders.load([{"workdir": "a"}, {"workdir": "b"}], root=tmp_path)


def test_a_difference_is_that_of_the_mean_aurocs_and_mcnemar_counts_patients(found):
    judgement = judge(
        found, "MIT-BIH, probe", against=[AREA, "guideline_esc_2021_strict"], required=[AREA], draws=50
    )
    first, second = found.find("MIT-BIH, probe"), found.find(AREA)
    area, guideline = judgement.differences
    want = [np.mean([auroc(found.truth, row) for row in c.score]) for c in (first, second)]
    assert area.auroc.value == pytest.approx(want[0] - want[1], abs=1e-12)
    only = [0, 0]
    for patient in range(len(found.truth)):
        right = [(c.decision[:, patient].mean() > 0.5) == found.truth[patient] for c in (first, second)]
        only[0] += right[0] and not right[1]
        only[1] += right[1] and not right[0]
    assert (area.mcnemar.only_first, area.mcnemar.only_second) == tuple(only)
    assert (guideline.left_out, guideline.auroc.n) == (3, 68)


def test_a_run_with_fewer_repeats_is_compared_on_those_it_has(found):
    (scratch,) = judge(found, "MIT-BIH, probe", against=["from scratch"], required=[], draws=50).differences
    assert scratch.repeats == 2
    want = [
        np.mean([auroc(found.truth, row) for row in found.find(name).score[:2]])
        for name in ("MIT-BIH, probe", "from scratch")
    ]
    assert scratch.auroc.value == pytest.approx(want[0] - want[1], abs=1e-12)


def test_transfer_helps_only_where_everything_required_is_beaten(found):
    one = judge(
        found, "MIT-BIH, probe", against=["random encoder", AREA], required=["random encoder"], draws=200
    )
    assert one.helps
    assert one.sentence.startswith(
        f"{HELPS}: the AUROC of MIT-BIH, probe is higher than that of random encoder, and the interval of the "
        "difference excludes 0"
    )
    both = judge(
        found,
        "MIT-BIH, probe",
        against=["random encoder", AREA],
        required=["random encoder", AREA],
        draws=200,
    )
    assert not both.helps
    assert both.sentence.startswith(
        f"{NO_EVIDENCE}: MIT-BIH, probe would have to beat random encoder and {AREA}"
    )
    assert not judge(found, AREA, against=["logistic"], required=[], draws=10).helps
    worse = judge(found, "random encoder", against=["MIT-BIH, probe"], required=["MIT-BIH, probe"], draws=200)
    assert worse.differences[0].auroc.high < 0
    assert not worse.helps


def test_a_leak_takes_the_verdict_back(found):
    probe, control = found.find("MIT-BIH, probe"), found.find("random encoder")
    required = {"against": ["random encoder"], "required": ["random encoder"], "draws": 200}
    assert judge(found, "MIT-BIH, probe", **required).helps
    for leaking in (probe, control):
        contenders = [
            dataclasses.replace(each, leaks=True) if each is leaking else each for each in found.contenders
        ]
        leaky = dataclasses.replace(found, contenders=tuple(contenders))
        judgement = judge(leaky, "MIT-BIH, probe", **required)
        assert not judgement.helps
        assert judgement.sentence.startswith(f"{NO_EVIDENCE}: {leaking.name} predicts permuted labels")


def test_patients_in_another_order_are_the_same(trial, tmp_path):
    found = two_runs(trial[0], tmp_path)
    _, arrays = read_results(tmp_path / "b", "crossvalidation", "last")
    order = np.random.default_rng(0).permutation(fake_response.PATIENTS)
    fake_results.change(tmp_path / "b", arrays={name: array[..., order] for name, array in arrays.items()})
    again = contenders.load([{"workdir": "a"}, {"workdir": "b"}], root=tmp_path)
    np.testing.assert_array_equal(again.find("network").score, found.find("network").score)
    np.testing.assert_array_equal(again.truth, found.truth)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"subject": np.array([f"{i:032x}" for i in range(fake_response.PATIENTS)])},
            "a and b were cross-validated on different patients: 71 are only in the first, 71 only in the second",
        ),
        ({"flip": 3}, "a and b give 3 of 71 patients different outcomes"),
        ({"seed": 5}, "a and b have different folds"),
        ({"folds": 5}, "a and b have different folds"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_by_name(trial, tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        two_runs(trial[0], tmp_path, **more)


def test_names_are_checked(trial, found):
    root, spec = trial
    with pytest.raises(
        ValueError, match=r"contender 'network' is in probe and in random; give one another name"
    ):
        contenders.load([{"workdir": "probe"}, {"workdir": "random"}], root=root)
    with pytest.raises(ValueError, match=r"probe: names renames \['netwrk'\]; its contenders are network"):
        contenders.load([{"workdir": "probe", "names": {"netwrk": "x"}}], root=root)
    with pytest.raises(
        ValueError, match="no contender is shown as 'area'; choose from guideline_esc_2021_strict"
    ):
        judge(found, "area", against=[AREA], required=[])
    with pytest.raises(ValueError, match=r"required names \['random'\], which is not among against"):
        judge(found, AREA, against=["logistic"], required=["random"])
    with pytest.raises(ValueError, match=r"unknown \['judge'\]; choose from"):
        build({**spec, "judge": "x"}, root=root)
