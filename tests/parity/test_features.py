"""The tables of parity: complete, true to the tests that exist, and those that the command prints."""

import pytest
from features import PAGE, ROWS, STATUS, between_marks, deviations, features, marks, missing_tests, tables


def test_every_feature_of_the_published_system_has_its_row():
    assert [feature.row for feature in features()] == list(range(1, ROWS + 1))


def test_every_row_has_a_status_there_and_here_and_a_test():
    for feature in features():
        assert feature.there
        assert set(feature.there) <= set(STATUS), feature
        assert feature.here, feature
        assert feature.tests or feature.here.startswith("left out: "), feature


def test_every_deviation_says_both_ways_and_is_pinned():
    assert deviations()
    for deviation in deviations():
        assert all((deviation.published, deviation.here, deviation.other, deviation.test)), deviation


def test_every_test_that_a_table_names_exists():
    assert missing_tests() == []


@pytest.mark.parametrize("name", ["deviations", "features"])
def test_the_page_holds_the_table_that_the_command_prints(name):
    page = PAGE.read_text()
    assert all(page.count(mark) == 1 for mark in marks(name))
    assert between_marks(page, name) == tables()[name]
