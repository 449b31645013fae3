"""Truth tables: every row of each guideline at its boundaries, and every fact missing in turn."""

import itertools
import math

import numpy as np
import pytest

from ecgjax.response.comparators import guidelines
from ecgjax.response.comparators.guidelines import GUIDELINES, Class
from ecgjax.response.comparators.rules import Guideline
from ecgjax.response.crossvalidation.patients import Patients

NAN = math.nan


def whole(function):
    """The function with whole numbers allowed, for tables that are read more easily so."""
    return lambda *names, **facts: function(*names, **{name: float(value) for name, value in facts.items()})


classes, decide, recommend = (whole(f) for f in (guidelines.classes, guidelines.decide, guidelines.recommend))
TYPICAL = {
    "lvef": 28.0,
    "sinus_rhythm": 1.0,
    "atrial_fibrillation": 0.0,
    "lbbb": 1.0,
    "qrs_ms": 160.0,
    "nyha": 3.0,
    "female": 0.0,
}
III, NONE, IIB, IIA, I = Class

# By guideline, LBBB and NYHA class: the answer at 119, 120, 129, 130, 149 and 150 ms (LVEF 35, sinus rhythm, male).
MS = (119, 120, 129, 130, 149, 150)
TABLE = {
    ("accf_aha_hrs_2012", 1): {
        1: (NONE, NONE, NONE, NONE, NONE, NONE),
        2: (NONE, IIA, IIA, IIA, IIA, I),
        3: (NONE, IIA, IIA, IIA, IIA, I),
        4: (NONE, IIA, IIA, IIA, IIA, I),
    },
    ("accf_aha_hrs_2012", 0): {
        1: (NONE, III, III, III, III, NONE),
        2: (NONE, III, III, III, III, IIB),
        3: (NONE, IIB, IIB, IIB, IIB, IIA),
        4: (NONE, IIB, IIB, IIB, IIB, IIA),
    },
    ("hrs_2023", 1): {
        1: (III, NONE, NONE, NONE, NONE, NONE),
        2: (III, IIA, IIA, IIA, IIA, I),
        3: (III, IIA, IIA, IIA, IIA, I),
        4: (III, IIA, IIA, IIA, IIA, I),
    },
    ("hrs_2023", 0): {
        1: (III, III, III, III, III, NONE),
        2: (III, III, III, III, III, IIB),
        3: (III, IIB, IIB, IIB, IIB, IIA),
        4: (III, IIB, IIB, IIB, IIB, IIA),
    },
    ("esc_2021", 1): {
        1: (III, III, III, NONE, NONE, NONE),
        2: (III, III, III, IIA, IIA, I),
        3: (III, III, III, IIA, IIA, I),
        4: (III, III, III, IIA, IIA, I),
    },
    ("esc_2021", 0): {
        1: (III, III, III, NONE, NONE, NONE),
        2: (III, III, III, IIB, IIB, IIA),
        3: (III, III, III, IIB, IIB, IIA),
        4: (III, III, III, IIB, IIB, IIA),
    },
    ("ccs_2017", 1): {
        1: (III, III, III, NONE, NONE, NONE),
        2: (III, III, III, I, I, I),
        3: (III, III, III, I, I, I),
        4: (III, III, III, I, I, I),
    },
    ("ccs_2017", 0): {
        1: (III, III, III, NONE, NONE, NONE),
        2: (III, III, III, NONE, NONE, IIA),
        3: (III, III, III, NONE, NONE, IIA),
        4: (III, III, III, NONE, NONE, IIA),
    },
}


@pytest.mark.parametrize(("guideline", "lbbb"), TABLE)
def test_every_row_at_every_boundary(guideline, lbbb):
    for nyha, answers in TABLE[guideline, lbbb].items():
        for ms, answer in zip(MS, answers, strict=True):
            facts = {**TYPICAL, "lvef": 35.0, "lbbb": lbbb, "nyha": nyha, "qrs_ms": ms}
            assert recommend(guideline, **facts) == answer, (nyha, ms)
            # Between two whole numbers the wider row has not begun.
            assert recommend(guideline, **{**facts, "qrs_ms": ms - 0.5}) == recommend(
                guideline, **{**facts, "qrs_ms": ms - 1}
            )


def test_the_table_is_of_every_guideline():
    assert {guideline for guideline, _ in TABLE} == set(GUIDELINES)


@pytest.mark.parametrize(
    ("guideline", "at_36", "at_50", "at_51"),
    [
        ("accf_aha_hrs_2012", NONE, NONE, NONE),
        ("esc_2021", NONE, NONE, NONE),
        ("hrs_2023", IIB, IIB, NONE),
        ("ccs_2017", NONE, NONE, NONE),
    ],
)
def test_an_ejection_fraction_above_35(guideline, at_36, at_50, at_51):
    assert recommend(guideline, **{**TYPICAL, "lvef": 35.0}) == I
    for lvef, answer in ((35.1, at_36), (36, at_36), (50, at_50), (51, at_51)):
        assert recommend(guideline, **{**TYPICAL, "lvef": lvef}) == answer
    # The borderline tier of 2023 is for wide LBBB with symptoms.
    for other in ({"lbbb": 0.0}, {"qrs_ms": 149.0}, {"nyha": 1.0}):
        assert recommend(guideline, **{**TYPICAL, "lvef": 36.0, **other}) == NONE
    narrow = recommend(guideline, **{**TYPICAL, "lvef": 60.0, "qrs_ms": 110.0})
    assert narrow == (NONE if guideline == "accf_aha_hrs_2012" else III)


def test_women_have_class_one_earlier_in_2023_only():
    for ms in (120.0, 149.0):
        facts = {**TYPICAL, "qrs_ms": ms, "female": 1.0}
        assert recommend("hrs_2023", **facts) == I
        assert recommend("accf_aha_hrs_2012", **facts) == IIA
    assert recommend("hrs_2023", **{**TYPICAL, "qrs_ms": 119.0, "female": 1.0}) == III
    assert recommend("hrs_2023", **{**TYPICAL, "qrs_ms": 140.0, "female": 1.0, "lbbb": 0.0}) == IIB
    for guideline in ("accf_aha_hrs_2012", "esc_2021", "ccs_2017"):
        for ms, lbbb in itertools.product(MS, (0.0, 1.0)):
            facts = {**TYPICAL, "qrs_ms": ms, "lbbb": lbbb}
            assert recommend(guideline, **facts) == recommend(guideline, **{**facts, "female": 1.0})


@pytest.mark.parametrize("guideline", GUIDELINES)
def test_no_class_one_outside_sinus_rhythm(guideline):
    fibrillation = {**TYPICAL, "sinus_rhythm": 0.0, "atrial_fibrillation": 1.0}
    assert recommend(guideline, **fibrillation) == IIA
    assert recommend(guideline, **{**fibrillation, "qrs_ms": 100.0}) in (III, NONE)
    other = {**TYPICAL, "sinus_rhythm": 0.0, "atrial_fibrillation": 0.0}
    assert recommend(guideline, **other) == NONE


def test_fibrillation_by_esc_needs_nyha_three():
    facts = {**TYPICAL, "sinus_rhythm": 0.0, "atrial_fibrillation": 1.0, "lbbb": 0.0, "qrs_ms": 130.0}
    assert [recommend("esc_2021", **{**facts, "nyha": nyha}) for nyha in (1, 2, 3, 4)] == [
        NONE,
        NONE,
        IIA,
        IIA,
    ]


@pytest.mark.parametrize("guideline", GUIDELINES)
def test_nothing_known_is_not_evaluable(guideline):
    nothing = dict.fromkeys(TYPICAL, NAN)
    assert recommend(guideline, **nothing) is None
    assert decide(guideline, "strict", **nothing) is None
    assert decide(guideline, "lenient", **nothing) is None


@pytest.mark.parametrize(
    ("missing", "undecided"),
    [
        ("lvef", set(GUIDELINES)),
        ("lbbb", set(GUIDELINES)),
        ("qrs_ms", set(GUIDELINES)),
        ("nyha", set(GUIDELINES)),
        ("female", set()),  # From 150 ms on women and men have the same class.
        (
            "sinus_rhythm",
            set(),
        ),  # Where there is no fibrillation it might still be another rhythm: see below.
        ("atrial_fibrillation", set()),  # Sinus rhythm is no fibrillation.
    ],
)
def test_each_missing_fact_counts_where_the_answer_depends_on_it(missing, undecided):
    if missing == "sinus_rhythm":
        undecided = set(GUIDELINES)
    found = {g for g in GUIDELINES if recommend(g, **{**TYPICAL, missing: NAN}) is None}
    assert found == undecided


def test_missing_facts_that_decide_nothing():
    narrow = {**dict.fromkeys(TYPICAL, NAN), "qrs_ms": 100.0}
    answers = {guideline: recommend(guideline, **narrow) for guideline in GUIDELINES}
    assert answers == {"accf_aha_hrs_2012": NONE, "esc_2021": III, "hrs_2023": III, "ccs_2017": III}
    healthy = {**dict.fromkeys(TYPICAL, NAN), "lvef": 60.0}
    assert recommend("accf_aha_hrs_2012", **healthy) == NONE
    assert recommend("esc_2021", **healthy) is None  # III when narrow.
    assert decide("esc_2021", "lenient", **healthy) is False  # But never yes.
    woman = {**TYPICAL, "qrs_ms": 140.0, "female": NAN}
    assert recommend("hrs_2023", **woman) is None
    assert classes("hrs_2023", **woman) == {I, IIA}
    assert decide("hrs_2023", "strict", **woman) is None
    assert decide("hrs_2023", "lenient", **woman) is True


def test_a_missing_fact_is_every_value_it_could_have():
    values = {
        "lvef": (5, 20, 34.5, 35, 35.5, 36, 49.5, 50, 50.5, 51, 80),
        "qrs_ms": (80, 119, 119.5, 120, 129.5, 130, 149.5, 150, 200),
        "nyha": (1, 2, 3, 4),
        "lbbb": (0, 1),
        "female": (0, 1),
    }
    generator = np.random.default_rng(0)
    for _ in range(100):
        facts = {
            **TYPICAL,
            **{name: float(generator.choice(choices)) for name, choices in values.items()},
        }
        for guideline, (name, choices) in itertools.product(GUIDELINES, values.items()):
            want = {recommend(guideline, **{**facts, name: float(value)}) for value in choices}
            assert classes(guideline, **{**facts, name: NAN}) == want, (guideline, name, facts)


def test_binary_rules_are_their_classes():
    for nyha, lbbb, ms in itertools.product((1.0, 2.0, 3.0), (0.0, 1.0), map(float, MS)):
        facts = {**TYPICAL, "nyha": nyha, "lbbb": lbbb, "qrs_ms": ms}
        for guideline in GUIDELINES:
            found = recommend(guideline, **facts)
            assert decide(guideline, "strict", **facts) == (found == I)
            assert decide(guideline, "lenient", **facts) == (found in (I, IIA))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lvef": 0.35}, r"lvef is 0\.35; it is in %"),
        ({"qrs_ms": 0.16}, r"qrs_ms is 0\.16; it is in ms"),
        ({"nyha": 5.0}, r"nyha is 5\.0"),
        ({"lbbb": 2.0}, r"lbbb is 2\.0"),
        ({"atrial_fibrillation": 1.0}, "both 1; a patient has one rhythm"),
    ],
)
def test_impossible_facts_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        recommend("esc_2021", **{**TYPICAL, **change})


def test_guidelines_as_contenders_rank_decide_and_leave_open():
    qrs = np.array([160.0, 140.0, 100.0, np.nan])
    columns = {
        **{name: np.full(4, value) for name, value in TYPICAL.items() if name not in ("lvef", "qrs_ms")},
        "lvef_pre": np.full(4, 30.0),
        "qrs_ms": qrs,
        "ecg_qrs_ms": qrs[::-1].copy(),
    }
    patients = Patients(np.array(list("abcd")), np.arange(4), columns, {})
    given = (np.arange(2), np.array([0.0, 1.0]), np.arange(4))
    answers = {
        rule: Guideline(patients, "esc_2021", rule).fit_predict(*given, inner=np.arange(2), seed=0)
        for rule in (None, "strict", "lenient")
    }
    np.testing.assert_array_equal(answers[None].score, [I, IIA, III, np.nan])
    assert answers[None].decision is None
    np.testing.assert_array_equal(answers["strict"].decision, [1, 0, 0, np.nan])
    np.testing.assert_array_equal(answers["lenient"].decision, [1, 1, 0, np.nan])
    assert np.isnan(answers["strict"].probability).all()
    measured = Guideline(patients, "esc_2021", "strict", qrs="ecg_qrs_ms")
    np.testing.assert_array_equal(
        measured.fit_predict(*given, inner=np.arange(2), seed=0).decision, [np.nan, 0, 0, 1]
    )
    del columns["lbbb"]  # A table without the column: nobody's LBBB is known.
    lenient = Guideline(patients, "esc_2021", "lenient").fit_predict(*given, inner=np.arange(2), seed=0)
    np.testing.assert_array_equal(lenient.decision, [1, np.nan, 0, np.nan])
    with pytest.raises(ValueError, match="guideline 'esc' is unknown; choose from accf_aha_hrs_2012"):
        Guideline(patients, "esc")


def test_lbbb_and_qrs_may_be_those_of_the_recording():
    given = (np.arange(2), np.array([0.0, 1.0]), np.arange(4))
    columns = {
        **{name: np.full(4, value) for name, value in TYPICAL.items() if name not in ("lvef", "lbbb")},
        "lvef_pre": np.full(4, 30.0),
        "ecg_qrs_ms": np.full(4, 140.0),
        "ecg_lbbb_strauss": np.array([1.0, 0.0, np.nan, 0.5]),  # The last has two recordings that disagree.
    }
    patients = Patients(np.array(list("abcd")), np.arange(4), columns, {})
    read = Guideline(patients, "esc_2021", lbbb="ecg_lbbb_strauss", qrs="ecg_qrs_ms")
    assert read.name == "guideline_esc_2021_ecg_lbbb_strauss_ecg_qrs_ms"
    scores = read.fit_predict(*given, inner=np.arange(2), seed=0)
    np.testing.assert_array_equal(scores.score, [IIA, IIB, np.nan, np.nan])
    Guideline(
        patients, "esc_2021"
    )  # The table has no column of LBBB: nobody's is known, and nothing is wrong.
    for fact in ("lbbb", "qrs"):
        with pytest.raises(
            ValueError, match=f"{fact} is 'ecg_strauss', which is no column; choose from atrial"
        ):
            Guideline(patients, "esc_2021", **{fact: "ecg_strauss"})


@pytest.mark.parametrize("guideline", GUIDELINES)
def test_rows_that_were_not_read_in_the_guideline_itself_say_so(guideline):
    marked = GUIDELINES[guideline].__doc__.replace("\n    ", " ").lower().partition("to be verified")[2]
    rows = {
        "accf_aha_hrs_2012": ["fibrillation"],
        "esc_2021": ["every row"],
        "hrs_2023": ["women", "36-50 %", "fibrillation"],
        "ccs_2017": ["fibrillation"],
    }
    assert all(row in marked for row in rows[guideline])
