import numpy as np
import pytest

from ecgjax.data.cohorts.crt import columns, response

NAN = np.nan


def column(*values):
    return np.array(values, np.float64)


@pytest.mark.parametrize(
    ("pre", "post", "want"),
    [
        (200, 170, 1),  # A fall of exactly 15 %.
        (200, 170.1, 0),
        (200, 169.9, 1),
        (180.2, 153.17, 1),  # A tie in decimals that binary fractions miss.
        (100, 130, 0),
        (NAN, 100, NAN),
        (200, NAN, NAN),
    ],
)
def test_lvesv_falls_by_15_percent_or_more(pre, post, want):
    np.testing.assert_array_equal(response.lvesv15(column(pre), column(post)), column(want))


@pytest.mark.parametrize(
    ("pre", "post", "at_least", "more"),
    [
        (30, 35, 1, 0),
        (30.1, 35.1, 1, 0),
        (28.3, 33.3, 1, 0),  # 4.999999999999996 in binary.
        (30, 34.9, 0, 0),
        (30, 35.1, 1, 1),
        (30, 20, 0, 0),
        (NAN, 35, NAN, NAN),
        (30, NAN, NAN, NAN),
    ],
)
def test_the_inequality_of_lvef_decides_ties(pre, post, at_least, more):
    table = {"lvef_pre": column(pre), "lvef_post": column(post)}
    for strict, want in ((False, at_least), (True, more)):
        got = response.derive(table, definition="lvef5", strict=strict, deaths="nonresponder")
        np.testing.assert_array_equal(got, column(want))


@pytest.mark.parametrize(("post", "want"), [(44.9, 0), (45, 1), (60, 1)])
def test_super_response_is_15_points_or_more(post, want):
    got = response.super_response(column(30), column(post))
    np.testing.assert_array_equal(got, column(want))


@pytest.mark.parametrize(
    ("post", "admitted", "want"),
    [
        (36, 0, 1),
        (36, 1, 0),
        (36, NAN, NAN),
        (35, 0, 0),
        (35, NAN, 0),  # The rise failed, whatever the admissions.
        (NAN, 1, 0),
        (NAN, 0, NAN),
        (NAN, NAN, NAN),
    ],
)
def test_clinical_response_needs_the_rise_and_no_admission(post, admitted, want):
    got = response.clinical(column(30), column(post), column(admitted))
    np.testing.assert_array_equal(got, column(want))


@pytest.mark.parametrize(("deaths", "want"), [("nonresponder", 0), ("excluded", NAN)])
@pytest.mark.parametrize("definition", ["lvesv15", "super", "clinical"])
def test_deaths_are_counted_as_the_flag_says(deaths, want, definition):
    table = {
        "lvesv_pre": column(200, 200, 200),
        "lvesv_post": column(100, NAN, 100),
        "lvef_pre": column(30, 30, 30),
        "lvef_post": column(50, NAN, 50),
        "hf_admission": column(0, 0, 0),
        "died_before_followup": column(0, 1, NAN),
    }
    got = response.derive(table, definition=definition, strict=None, deaths=deaths)
    np.testing.assert_array_equal(got, column(1, want, 1))


@pytest.mark.parametrize(("definition", "strict"), [("lvef5", None), ("lvesv15", True), ("super", False)])
def test_the_inequality_is_asked_for_where_authors_disagree_and_only_there(definition, strict):
    table = {"lvef_pre": column(30), "lvef_post": column(35)}
    with pytest.raises(ValueError, match=rf"config\.cohort\.strict is {strict} for response '{definition}'"):
        response.derive(table, definition=definition, strict=strict, deaths="nonresponder")


def test_the_label_columns_are_the_headline_and_controls():
    names = [target.name for target in columns.TARGETS]
    assert len(set(names)) == len(names) == 25
    assert [target.name for target in columns.TARGETS if not target.control] == ["response"]
    assert all(target.name.startswith("ecg_") for target in columns.MEASURES)


@pytest.mark.parametrize(
    ("name", "value", "holds", "slipped"),
    [
        ("lvef_pre", 35, True, False),
        ("lvef_pre", 0.35, False, True),
        ("lvef_pre", 350, False, False),
        ("lvesv_post", 0.18, False, True),
        ("lvesv_post", 180, True, False),
        ("qrs_ms", 0.16, False, True),
        ("nyha", 0.03, False, False),
    ],
)
def test_a_quantity_knows_its_range_and_its_other_unit(name, value, holds, slipped):
    quantity = columns.QUANTITIES[name]
    assert (quantity.holds(float(value)), quantity.slipped(float(value))) == (holds, slipped)
