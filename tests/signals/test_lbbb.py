import dataclasses

import numpy as np
import pytest

from ecgjax.signals import lbbb

PLAIN = lbbb.LeadQrs(q=False, qs_or_rs=False, broad_r=False, notched=False, r_peak_ms=40.0)
RIGHT = dataclasses.replace(PLAIN, qs_or_rs=True, r_peak_ms=float("nan"))
LEFT = dataclasses.replace(PLAIN, broad_r=True, notched=True, r_peak_ms=90.0)
TYPICAL = {"V1": RIGHT, "V2": RIGHT, "I": LEFT, "aVL": LEFT, "V5": LEFT, "V6": LEFT}
"""Meets every definition at 140 ms."""


def changed(lead, **changes):
    return TYPICAL | {lead: dataclasses.replace(TYPICAL[lead], **changes)}


def with_notches(*leads):
    return {name: dataclasses.replace(shape, notched=name in leads) for name, shape in TYPICAL.items()}


@pytest.mark.parametrize(
    ("duration_ms", "female", "want"),
    [
        (129.9, True, False),
        (130.0, True, True),
        (139.9, True, True),
        (140.0, True, True),
        (129.9, False, False),
        (130.0, False, False),
        (139.9, False, False),
        (140.0, False, True),
        (129.9, None, False),
        (130.0, None, None),
        (139.9, None, None),
        (140.0, None, True),
    ],
)
def test_strauss_asks_130_ms_of_women_and_140_ms_of_men(duration_ms, female, want):
    assert lbbb.strauss_2011(duration_ms, TYPICAL, female=female) is want


@pytest.mark.parametrize("lead", ["V1", "V2"])
def test_strauss_needs_qs_or_rs_in_v1_and_v2(lead):
    for female in (True, False, None):
        assert lbbb.strauss_2011(140.0, changed(lead, qs_or_rs=False), female=female) is False
        # Not met whatever the sex, so that a sex that is not known does not matter.
        assert lbbb.strauss_2011(135.0, changed(lead, qs_or_rs=False), female=female) is False


@pytest.mark.parametrize("first", lbbb.NOTCH_LEADS)
def test_strauss_needs_two_notched_leads_of_its_six(first):
    assert lbbb.strauss_2011(150.0, with_notches(), female=True) is False
    assert lbbb.strauss_2011(150.0, with_notches(first), female=True) is False
    for second in set(lbbb.NOTCH_LEADS) - {first}:
        assert lbbb.strauss_2011(150.0, with_notches(first, second), female=True) is True
        assert lbbb.notched_leads(with_notches(first, second)) == 2


def test_strauss_reads_neither_q_nor_breadth_nor_peak_time():
    shapes = {
        name: dataclasses.replace(shape, q=True, broad_r=False, r_peak_ms=float("nan"))
        for name, shape in TYPICAL.items()
    }
    assert lbbb.strauss_2011(140.0, shapes, female=False) is True


def test_aha_begins_at_120_ms():
    assert lbbb.aha_2009(120.0, TYPICAL) is True
    assert lbbb.aha_2009(119.9, TYPICAL) is False


@pytest.mark.parametrize("lead", ["I", "aVL", "V5", "V6"])
@pytest.mark.parametrize("property", ["broad_r", "notched"])
def test_aha_needs_a_broad_notched_r_in_all_four_lateral_leads(lead, property):
    assert lbbb.aha_2009(150.0, changed(lead, **{property: False})) is False


@pytest.mark.parametrize(("lead", "want"), [("I", False), ("V5", False), ("V6", False), ("aVL", True)])
def test_aha_allows_a_q_in_avl_alone(lead, want):
    assert lbbb.aha_2009(150.0, changed(lead, q=True)) is want


@pytest.mark.parametrize("lead", ["V5", "V6"])
def test_aha_wants_r_peaks_after_more_than_60_ms(lead):
    assert lbbb.aha_2009(150.0, changed(lead, r_peak_ms=60.1)) is True
    assert lbbb.aha_2009(150.0, changed(lead, r_peak_ms=60.0)) is False
    assert lbbb.aha_2009(150.0, changed(lead, r_peak_ms=float("nan"))) is False


@pytest.mark.parametrize("lead", ["V1", "V2"])
def test_aha_does_not_ask_for_qs_in_v1_and_v2(lead):
    assert lbbb.aha_2009(150.0, changed(lead, qs_or_rs=False)) is True


def test_esc_begins_at_120_ms():
    assert lbbb.esc_2013(120.0, TYPICAL) is True
    assert lbbb.esc_2013(119.9, TYPICAL) is False


def test_esc_needs_qs_or_rs_in_v1_and_not_in_v2():
    assert lbbb.esc_2013(150.0, changed("V1", qs_or_rs=False)) is False
    assert lbbb.esc_2013(150.0, changed("V2", qs_or_rs=False)) is True


@pytest.mark.parametrize("lead", ["I", "aVL", "V5", "V6"])
def test_esc_needs_one_broad_lateral_r_that_may_be_smooth(lead):
    narrow = {name: dataclasses.replace(s, broad_r=False, notched=False) for name, s in TYPICAL.items()}
    assert lbbb.esc_2013(150.0, narrow) is False
    one = narrow | {lead: dataclasses.replace(narrow[lead], broad_r=True)}
    assert lbbb.esc_2013(150.0, one) is True


@pytest.mark.parametrize(("lead", "want"), [("I", True), ("aVL", True), ("V5", False), ("V6", False)])
def test_esc_allows_no_q_in_v5_and_v6(lead, want):
    assert lbbb.esc_2013(150.0, changed(lead, q=True)) is want


def test_the_definitions_nest_on_a_typical_block_and_none_takes_a_normal_heart():
    normal = dict.fromkeys(TYPICAL, PLAIN)
    for duration in (90.0, 150.0):
        assert lbbb.strauss_2011(duration, normal, female=True) is False
        assert not lbbb.aha_2009(duration, normal)
        assert not lbbb.esc_2013(duration, normal)
    assert np.isnan(RIGHT.r_peak_ms)
