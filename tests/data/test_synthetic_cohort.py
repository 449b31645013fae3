import pickle
import time

import numpy as np
import pytest

from ecgjax.data.cohorts.base import Item
from ecgjax.data.cohorts.synthetic import SyntheticCohort, draw_parameters
from ecgjax.formats.recording import LEADS

SMALL = {"train": 6, "val": 2, "test": 4, "image_size": 32}


def same(a, b):
    np.testing.assert_array_equal(a.ecg.signal_mv, b.ecg.signal_mv)
    np.testing.assert_array_equal(a.cmr.intensity, b.cmr.intensity)
    assert a.targets == b.targets


def test_items_list_every_split_once():
    items = SyntheticCohort(**SMALL).items()
    assert [item.split for item in items] == ["train"] * 6 + ["val"] * 2 + ["test"] * 4
    assert len({item.subject for item in items}) == len({item.record for item in items}) == 12


def test_an_acquisition_has_twelve_leads_three_frames_and_every_target():
    cohort = SyntheticCohort(**SMALL)
    pair = cohort.load(cohort.items()[0])
    assert pair.ecg.signal_mv.shape == (12, 1000)
    assert (pair.ecg.leads, pair.ecg.rate_hz) == (LEADS, 100.0)
    assert pair.cmr.intensity.shape == (3, 1, 32, 32)
    assert list(pair.targets) == [target.name for target in cohort.targets]
    assert all(np.isfinite(list(pair.targets.values())))
    assert [t.name for t in cohort.targets if t.control] == ["LBBB", "AF"]


def test_loading_twice_and_in_another_process_gives_the_same():
    cohort = SyntheticCohort(**SMALL)
    item = cohort.items()[3]
    same(cohort.load(item), pickle.loads(pickle.dumps(cohort)).load(item))


def test_a_subject_does_not_depend_on_how_many_there_are():
    few, many = SyntheticCohort(**SMALL), SyntheticCohort(**{**SMALL, "train": 60, "test": 30})
    items = {item.subject: item for item in many.items()}
    for item in few.items():
        same(few.load(item), many.load(items[item.subject]))


def test_a_heart_does_not_depend_on_rate_or_image_size():
    cohorts = [SyntheticCohort(**{**SMALL, **kw}) for kw in ({}, {"rate_hz": 250.0}, {"image_size": 48})]
    slow, fast, fine = (cohort.load(cohort.items()[0]) for cohort in cohorts)
    assert slow.targets == fast.targets == fine.targets
    np.testing.assert_array_equal(slow.cmr.intensity, fast.cmr.intensity)
    np.testing.assert_array_equal(slow.ecg.signal_mv, fine.ecg.signal_mv)


def test_splits_and_seeds_are_different_people():
    cohort, other = (
        SyntheticCohort(train=20, val=20, test=20),
        SyntheticCohort(train=20, val=20, test=20, seed=1),
    )
    volumes = [
        c.heart(item.split, int(item.subject.split("-")[-1])).lvedv_ml[0]
        for c in (cohort, other)
        for item in c.items()
    ]
    assert len(set(volumes)) == 120
    assert not set(volumes) & set(draw_parameters(200, seed=0)[0].lvedv_ml)


def test_the_ecg_follows_the_parameters_and_never_the_heart():
    """Data processing: other hearts, the same parameters: the same ECG to the bit, another cine."""

    class OtherHearts(SyntheticCohort):
        def heart(self, split, index):
            return super().heart(split, (index + 1) % 6)

        def ecg_parameters(self, split, index):
            return SyntheticCohort(**SMALL).ecg_parameters(split, index)

    cohort, shuffled = SyntheticCohort(**SMALL), OtherHearts(**SMALL)
    for item in cohort.items()[:6]:
        a, b = cohort.load(item), shuffled.load(item)
        np.testing.assert_array_equal(a.ecg.signal_mv, b.ecg.signal_mv)
        assert a.targets != b.targets
        assert not np.array_equal(a.cmr.intensity, b.cmr.intensity)


@pytest.mark.parametrize("count", [2, 3, 7, 40])
def test_permuted_pairs_leave_nobody_with_their_own_cine(count):
    cohort = SyntheticCohort(train=count, val=0, test=0, pairing="permuted")
    partners = [cohort.partner("train", index) for index in range(count)]
    assert sorted(partners) == list(range(count))
    assert all(partner != index for index, partner in enumerate(partners))


def test_permuted_pairs_keep_ecg_and_targets_and_swap_the_cine():
    true, permuted = SyntheticCohort(**SMALL), SyntheticCohort(**SMALL, pairing="permuted")
    for item in true.items():
        a, b = true.load(item), permuted.load(item)
        np.testing.assert_array_equal(a.ecg.signal_mv, b.ecg.signal_mv)
        assert a.targets == b.targets
        index = permuted.partner(item.split, int(item.subject.split("-")[-1]))
        partner = Item(f"0-{item.split}-{index}", f"0-{item.split}-{index}-0", item.split)
        np.testing.assert_array_equal(b.cmr.intensity, true.load(partner).cmr.intensity)


def test_damage_breaks_about_its_share_and_leaves_the_rest_alone():
    whole, broken = (SyntheticCohort(train=150, test=0, image_size=8, damage=d) for d in (0.0, 0.3))
    kinds = []
    for item in whole.items():
        a, b = whole.load(item).ecg.signal_mv, broken.load(item).ecg.signal_mv
        if b.shape != a.shape:
            kinds.append("short")
        elif np.isnan(b).any():
            kinds.append("nan")
        elif (np.ptp(b, axis=1) == 0).any():
            kinds.append("flat")
        else:
            np.testing.assert_array_equal(a, b)
    assert 30 <= len(kinds) <= 60  # 45 expected, 2.7 standard deviations either side.
    assert set(kinds) == {"short", "nan", "flat"}


def test_an_item_of_another_cohort_is_refused():
    cohort = SyntheticCohort(**SMALL)
    for item in (
        SyntheticCohort(seed=1).items()[0],
        Item("0-val-2", "0-val-2-0", "val"),
        Item("p-1", "r", "val"),
    ):
        with pytest.raises(ValueError, match="is no item of this cohort"):
            cohort.load(item)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": -1}, "train=-1"),
        ({"test": 1, "pairing": "permuted"}, "test=1 subject has no other"),
        ({"damage": 1.5}, "damage 1.5"),
        ({"rate_hz": 0.0}, r"rate_hz=0\.0"),
        ({"strength": -0.5}, r"strength=-0\.5"),
        ({"slices": 0}, "slices=0"),
        ({"frames": 2}, "frames=2"),
        ({"image_size": 0}, "image_size=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        SyntheticCohort(**change)


def test_thousands_of_pairs_a_minute():
    cohort = SyntheticCohort()
    items = cohort.items()[:60]
    cohort.load(items[0])
    start = time.process_time()
    for item in items:
        cohort.load(item)
    # 20,000 on a quiet core without the type checker; the claim is thousands.
    assert 60 * len(items) / (time.process_time() - start) > 2000
