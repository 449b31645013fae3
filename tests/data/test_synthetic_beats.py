import collections
import pickle

import numpy as np
import pytest

from ecgjax.data.cohorts.base import Item
from ecgjax.data.cohorts.synthetic_beats import SyntheticBeatsCohort
from ecgjax.signals.beats import r_peaks

SMALL = {"train": 8, "val": 3, "test": 3, "beats": 40}


@pytest.fixture(scope="module")
def beats():
    """Every beat of a small cohort: (item, acquisition)."""
    cohort = SyntheticBeatsCohort(**SMALL)
    return [(item, cohort.load(item)) for item in cohort.items()]


def symbol(acquisition):
    return max(acquisition.targets, key=acquisition.targets.get)


def window(acquisition, before_s=0.3, after_s=0.4):
    rate = acquisition.ecg.rate_hz
    at = acquisition.beat
    return acquisition.ecg.signal_mv[0, at - round(before_s * rate) : at + round(after_s * rate)]


def test_every_beat_has_a_window_one_class_and_its_neighbours(beats):
    for item, acquisition in beats:
        assert acquisition.ecg.leads == ("MLII",)
        assert 512 <= acquisition.beat < acquisition.ecg.signal_mv.shape[1] - 512
        assert sorted(acquisition.targets.values()) == [0, 0, 0, 0, 0, 1]
        assert list(acquisition.targets) == ["N", "L", "R", "S", "V", "F"]
        pre, post, local, whole = acquisition.rr_s
        assert np.isfinite([pre, post, whole]).all()
        assert np.isfinite(local) or item.record.endswith("-0")  # A person's first, with one beat before it.


def test_the_intervals_are_those_between_the_beats(beats):
    of_one = [acquisition for item, acquisition in beats if item.subject == "0-train-0"]
    at_s = np.array([acquisition.beat for acquisition in of_one]) / 360
    rr = np.array([acquisition.rr_s for acquisition in of_one])
    np.testing.assert_allclose(rr[1:, 0], np.diff(at_s), atol=1e-9)
    np.testing.assert_allclose(rr[:-1, 1], np.diff(at_s), atol=1e-9)
    np.testing.assert_allclose(rr[20, 2], np.diff(at_s)[9:19].mean(), atol=1e-9)
    assert len(set(rr[:, 3])) == 1


def test_a_detector_finds_the_beats_where_they_are_said_to_be(beats):
    of_one = [acquisition for item, acquisition in beats if item.subject == "0-train-0"]
    found = r_peaks(of_one[0].ecg.signal_mv, 360.0)
    distance = [np.abs(found - acquisition.beat).min() for acquisition in of_one]
    assert np.mean(np.array(distance) < 0.05 * 360) > 0.9


def test_classes_are_as_unequal_as_in_mit_bih():
    cohort = SyntheticBeatsCohort(beats=50)
    symbols = collections.Counter()
    for split, persons in (("train", 40), ("val", 8), ("test", 16)):
        of_split = collections.Counter()
        for index in range(persons):
            holter = cohort.holter(split, index)
            of_split.update(holter.symbols[holter.first : holter.first + 50])
        assert set(of_split) == set("NLRSVF"), split
        symbols += of_split
    share = {name: count / symbols.total() for name, count in symbols.items()}
    assert 0.6 < share["N"] < 0.75
    assert 0.08 < share["L"] < 0.14
    assert 0.08 < share["R"] < 0.14
    assert 0.04 < share["V"] < 0.11
    assert 0.01 < share["S"] < 0.06
    assert 0.001 < share["F"] < 0.015


def test_shape_and_time_tell_the_classes_apart(beats):
    """L and V are wide, S and V early; the pause after V is compensatory, the one after S is not."""
    early, both, wide = (collections.defaultdict(list) for _ in range(3))
    for _, acquisition in beats:
        pre, post, local, _ = acquisition.rr_s
        name = symbol(acquisition)
        early[name].append(pre / local)
        both[name].append((pre + post) / (2 * local))
        qrs = np.abs(window(acquisition, 0.1, 0.1) - np.median(window(acquisition)))
        wide[name].append(np.mean(qrs > 0.3 * qrs.max()))
    median = {name: np.nanmedian(values) for name, values in early.items()}
    assert median["S"] < 0.85
    assert median["V"] < 0.85
    assert all(0.95 < median[name] < 1.05 for name in "NLR")
    assert 0.95 < np.nanmedian(both["V"]) < 1.05
    assert np.nanmedian(both["S"]) < 0.95
    assert np.median(wide["L"]) > 1.5 * np.median(wide["N"])
    assert np.median(wide["V"]) > 1.5 * np.median(wide["N"])


def test_a_person_stays_in_one_split_and_conducts_in_one_way(beats):
    splits, sinus = collections.defaultdict(set), collections.defaultdict(set)
    for item, acquisition in beats:
        splits[item.subject].add(item.split)
        sinus[item.subject] |= {symbol(acquisition)} & set("NLR")
    assert all(len(found) == 1 for found in splits.values())
    assert all(len(found) == 1 for found in sinus.values())


def test_loading_in_another_order_or_process_gives_the_same(beats):
    cohort = SyntheticBeatsCohort(**SMALL)
    other = pickle.loads(pickle.dumps(cohort))
    for item, acquisition in beats[::-97]:
        again = other.load(item)
        np.testing.assert_array_equal(again.ecg.signal_mv, acquisition.ecg.signal_mv)
        assert (again.beat, again.rr_s, again.targets) == (
            acquisition.beat,
            acquisition.rr_s,
            acquisition.targets,
        )


def test_a_person_does_not_depend_on_how_many_there_are_but_on_the_seed(beats):
    item, acquisition = beats[130]
    more = SyntheticBeatsCohort(**{**SMALL, "train": 20}).load(item)
    np.testing.assert_array_equal(more.ecg.signal_mv, acquisition.ecg.signal_mv)
    other = SyntheticBeatsCohort(**SMALL, seed=1)
    assert not np.array_equal(
        other.load(other.items()[130]).ecg.signal_mv[0, :900], acquisition.ecg.signal_mv[0, :900]
    )


def test_aami_counts_bundle_branch_block_as_normal(beats):
    cohort = SyntheticBeatsCohort(**SMALL, labels="aami")
    assert [target.name for target in cohort.targets] == ["N", "S", "V", "F"]
    for item, acquisition in beats[::31]:
        want = {"L": "N", "R": "N"}.get(symbol(acquisition), symbol(acquisition))
        assert symbol(cohort.load(item)) == want


def test_what_cannot_be_is_refused_by_name(beats):
    with pytest.raises(ValueError, match=r"config\.cohort\.beats is 0; give 1 or more"):
        SyntheticBeatsCohort(beats=0)
    with pytest.raises(ValueError, match="no item of this cohort"):
        SyntheticBeatsCohort(**SMALL).load(Item("0-train-0", "0-train-1-3", "train"))
    with pytest.raises(ValueError, match="no item of this cohort"):
        SyntheticBeatsCohort(**SMALL).load(Item("0-train-0", "0-train-0-40", "train"))
