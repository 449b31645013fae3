"""The README's parity table: complete, true to the tests that exist, and the one that the command prints."""

from features import MARKS, ROOT, ROWS, STATUS, between_marks, features, markdown, missing_tests


def test_every_feature_of_the_published_system_has_its_row():
    assert [feature.row for feature in features()] == list(range(1, ROWS + 1))


def test_every_row_has_a_status_there_and_here_and_a_test():
    for feature in features():
        assert feature.there
        assert set(feature.there) <= set(STATUS), feature
        assert feature.here, feature
        assert feature.tests or feature.here.startswith("left out: "), feature


def test_every_test_that_the_table_names_exists():
    assert missing_tests(features()) == []


def test_the_readme_holds_the_table_that_the_command_prints():
    readme = (ROOT / "README.md").read_text()
    assert all(readme.count(mark) == 1 for mark in MARKS)
    assert between_marks(readme) == markdown(features())
