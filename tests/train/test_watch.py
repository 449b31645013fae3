import math

import pytest

from ecgjax.train.watch import Best, Stopping


def stops_after(values, **settings):
    """The number of validations after which a run ends; None where it goes on."""
    watch = Stopping(**({"metric": "val_x", "mode": "max", "patience": 2} | settings))
    for number, value in enumerate(values, start=1):
        watch.update({"val_x": value, "val_other": 0.0})
        if watch.stopped:
            return number
    return None


@pytest.mark.parametrize(
    ("values", "settings", "end"),
    [
        ((1, 2, 1, 1, 1, 9), {}, 5),
        ((1, 2, 1, 1, 2, 1, 1, 1), {}, 8),  # As good as the best starts the count anew.
        ((1, 2, 1, 1, 3, 1, 1), {}, None),
        ((1, 2, 1), {"patience": 0}, 3),
        ((5, 4.8, 4.7, 4.7, 4.7), {"max_delta": 0.25}, 5),  # Within 0.25 of the best still counts as good.
        ((5, 4.8, 4.6, 4.4, 4.2), {"max_delta": 0.25}, 5),  # Of the best, not of the one before.
        ((2, 1, 2, 2, 2), {"mode": "min"}, 5),
        ((1, 1.2, 1.3, 1.3, 1.3), {"mode": "min", "max_delta": 0.25}, 5),
        ((1, math.nan, math.nan, math.nan), {}, 4),
        ((math.nan, 1, 0, 0, 0), {}, 5),
    ],
)
def test_a_run_ends_once_it_was_worse_more_often_than_patience(values, settings, end):
    assert stops_after([float(value) for value in values], **settings) == end


def test_what_was_counted_goes_on_after_a_resumption():
    first, second = (Stopping(metric="val_x", mode="max", patience=1) for _ in range(2))
    for value in (3.0, 1.0):
        first.update({"val_x": value})
    second.resume(first.to_json())
    second.update({"val_x": 2.0})
    assert second.stopped
    assert second.reason == "val_x was worse than its best, 3, 2 times in a row"


def test_the_count_of_another_metric_says_nothing():
    watch = Stopping(metric="val_x", mode="max", patience=0)
    watch.resume({"metric": "val_y", "mode": "max", "best": 3.0, "worse": 7})
    watch.resume(None)
    assert not watch.stopped


def test_the_best_come_first_and_values_that_are_not_finite_never():
    scores = {1: {"x": 2.0}, 2: {"x": 3.0}, 3: {"x": None}, 4: {"x": 3.0}, 5: {"x": 1.0}, 6: {}}
    assert Best("x", "max").rank(scores) == [2, 4, 1, 5]
    assert Best("x", "min").rank(scores) == [5, 1, 2, 4]
    assert Best("x", "max", keep=2).chosen(scores) == [2, 4]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Best("x", "max", keep=0), r"best\.keep is 0; it must be at least 1"),
        (lambda: Stopping(metric="x", mode="max", patience=-1), r"patience is -1; .*at least 0"),
        (lambda: Stopping(metric="x", mode="max", patience=1, max_delta=-1.0), r"max_delta is -1\.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
