import dataclasses
import sys

import numpy as np
import pytest
from tiny_cohort import SETTINGS, TinyCohort

from ecgjax.data.build import build
from ecgjax.data.cohorts.base import Target
from ecgjax.data.few_labels import draw_labelled
from ecgjax.data.identifiers import as_hex
from ecgjax.data.manifest import read_manifest
from ecgjax.data.pipeline import crop_starts, evaluation_batches, train_batches
from ecgjax.data.schema import dequantise
from ecgjax.data.shards import read_split
from ecgjax.data.thinning import left_out, marked

TRAIN = 30  # 24 subjects, of whom every fifth has two records.


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_equal(mine, theirs):
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_batches_have_the_contracted_keys_types_and_shapes(prepared):
    batch = next(train_batches(prepared, batch_size=4, seed=0, crop=100))
    assert {name: (value.dtype.name, value.shape) for name, value in batch.items()} == {
        "ecg": ("float32", (4, 12, 100)),
        "cmr": ("float32", (4, 16, 16, 3)),
        "label": ("float32", (4, 3)),
        "subject": ("uint32", (4, 2)),
        "index": ("int32", (4,)),
        "mask": ("bool", (4,)),
    }
    assert batch["mask"].all()


def test_an_epoch_has_every_example_once_and_the_next_another_order(prepared):
    iterator = train_batches(prepared, batch_size=5, seed=0, crop=100)
    epochs = [np.concatenate([b["index"] for b in take(iterator, TRAIN // 5)]) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(TRAIN))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], np.arange(TRAIN))


def test_few_labels_are_whole_subjects_and_those_of_a_probe(prepared):
    stored = read_split(prepared, read_manifest(prepared), "train", names=("subject", "label"))
    iterator = train_batches(prepared, batch_size=4, seed=5, crop=100, max_labels=9)
    seen = {int(i) for batch in take(iterator, 20) for i in batch["index"]}
    assert 4 <= len(seen) <= 9
    subjects = {stored["subject"][i].tobytes() for i in seen}
    labelled = ~np.isnan(stored["label"]).all(axis=1)
    assert seen == {i for i in range(TRAIN) if stored["subject"][i].tobytes() in subjects and labelled[i]}
    want = draw_labelled(as_hex(stored["subject"]), stored["label"], limit=9)
    assert seen == set(want.tolist())
    assert_equal(
        take(train_batches(prepared, batch_size=4, seed=5, crop=100, max_labels=TRAIN), 3),
        take(train_batches(prepared, batch_size=4, seed=5, crop=100), 3),
    )


def test_few_labels_that_cannot_be_are_refused(prepared):
    for limit, words in ((0, "at least 1"), (3, "no batch could be filled")):
        with pytest.raises(ValueError, match=words):
            train_batches(prepared, batch_size=4, seed=0, crop=100, max_labels=limit)


def test_thinning_leaves_a_share_of_one_class_and_all_others_once_and_for_all(prepared):
    manifest = read_manifest(prepared)
    label = read_split(prepared, manifest, "train", names=("label",))["label"][:, 1]
    settings = {"batch_size": 4, "crop": 100, "thin": {"infarct": 0.25}}

    def seen(batches):
        return {int(i) for batch in take(batches, 24) for i in batch["index"]}

    kept = seen(train_batches(prepared, seed=5, **settings))
    positive = set(np.flatnonzero(label == 1))
    assert set(range(TRAIN)) - positive <= kept
    assert len(kept & positive) == round(0.25 * len(positive))
    labels = marked(manifest.to_json()["targets"], {"infarct": 0.25})
    assert len(kept) == TRAIN - left_out(labels)
    assert seen(train_batches(prepared, seed=6, **settings)) & positive != kept & positive
    whole, seeking = (train_batches(prepared, seed=5, **settings) for _ in range(2))
    take(whole, 9)
    seeking.seek(9)
    assert_equal(take(seeking, 3), take(whole, 3))
    everything = {**settings, "thin": {"infarct": 1.0}}
    assert_equal(
        take(train_batches(prepared, seed=5, **everything), 3),
        take(train_batches(prepared, seed=5, batch_size=4, crop=100), 3),
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"thin": {"infract": 0.5}}, r"thin\.infract: no such label; the data set has lvef, infarct, index"),
        ({"thin": {"lvef": 0.5}}, r"thin\.lvef: a label of kind regression cannot be thinned"),
        ({"thin": {"infarct": 0.0}}, r"thin\.infarct is 0\.0; a share lies above 0"),
        ({"thin": {"infarct": 1.1}}, r"thin\.infarct is 1\.1; a share lies above 0"),
        ({"thin": {"infarct": 0.01}}, r"thin\.infarct: a share of 0\.01 of 1\d train examples leaves none"),
        ({"thin": {"infarct": 0.5}, "max_labels": 9}, r"both choose examples; set one"),
    ],
)
def test_thinning_that_cannot_be_meant_is_refused(prepared, settings, message):
    with pytest.raises(ValueError, match=message):
        train_batches(prepared, batch_size=4, seed=0, crop=100, **settings)


def test_labels_that_meet_cannot_be_thinned_together(tmp_path):
    targets = (Target("infarct", "binary"), Target("lvef", "binary"))
    build(Meeting(targets=targets), tmp_path / "data", **SETTINGS)
    thin = {"infarct": 0.5, "lvef": 0.5}
    with pytest.raises(ValueError, match=r"\d+ examples of split 'train' have two of the labels"):
        train_batches(tmp_path / "data", batch_size=4, seed=0, crop=100, thin=thin)


class Meeting(TinyCohort):
    """Both conditions in one subject."""

    def load(self, item):
        made = super().load(item)
        return dataclasses.replace(made, targets={"infarct": 1.0, "lvef": 1.0})


def test_no_batch_has_an_example_twice_and_the_remainder_changes(prepared):
    iterator = train_batches(prepared, batch_size=8, seed=0, crop=100)
    left_out = []
    for _ in range(4):
        epoch = [b["index"] for b in take(iterator, TRAIN // 8)]
        assert len(np.unique(np.concatenate(epoch))) == 24
        left_out.append(frozenset(range(TRAIN)) - set(np.concatenate(epoch)))
    assert len(set(left_out)) > 1


def test_a_batch_holds_the_stored_example_cropped_and_dequantised(prepared):
    stored = read_split(prepared, read_manifest(prepared), "train")
    whole = dequantise(stored["ecg"], stored["ecg_step"])
    for batch in take(train_batches(prepared, batch_size=6, seed=3, crop=150), 5):
        for row, i in enumerate(batch["index"]):
            windows = np.lib.stride_tricks.sliding_window_view(whole[i], 150, axis=1)
            assert (windows == batch["ecg"][row][:, None]).all(axis=(0, 2)).sum() == 1
            np.testing.assert_array_equal(batch["cmr"][row], stored["cmr"][i].astype(np.float32))
            np.testing.assert_array_equal(batch["label"][row], stored["label"][i])
            assert batch["subject"][row].tobytes() == stored["subject"][i].tobytes()


def _starts(prepared, **settings):
    stored = read_split(prepared, read_manifest(prepared), "train")
    whole = dequantise(stored["ecg"], stored["ecg_step"])
    found = []
    for batch in take(train_batches(prepared, batch_size=30, seed=1, cache=True, **settings), 40):
        for row, i in enumerate(batch["index"]):
            first = batch["ecg"][row][:, 0]
            found.append(int(np.flatnonzero((whole[i] == first[:, None]).all(axis=0))[0]))
    return np.array(found)


def test_crops_are_uniform_over_every_legal_start(prepared):
    starts = _starts(prepared, crop=396)  # Five legal starts, 1200 draws: 240 each, standard deviation 14.
    counts = np.bincount(starts, minlength=5)
    assert len(counts) == 5
    assert np.abs(counts - 240).max() < 60


def test_reference_crop_never_draws_the_last_start(prepared):
    assert set(_starts(prepared, crop=396, reference_crop=True)) == {0, 1, 2, 3}
    assert set(_starts(prepared, crop=400, reference_crop=True)) == {0}


def test_another_seed_gives_another_order_and_the_same_seed_the_same(prepared):
    first, second, same = (
        take(train_batches(prepared, batch_size=5, seed=seed, crop=100), 3) for seed in (0, 1, 0)
    )
    assert_equal(first, same)
    assert not np.array_equal(first[0]["index"], second[0]["index"])


@pytest.mark.parametrize("number", [0, 2, 5, 6, 7, 13])
def test_a_batch_is_the_same_whatever_came_before(prepared, number):
    want = train_batches(prepared, batch_size=5, seed=0, crop=100)
    take(want, number)
    assert want.next_batch == number
    resumed = train_batches(prepared, batch_size=5, seed=0, crop=100)
    take(resumed, 3)  # It has been elsewhere.
    resumed.seek(number)
    assert resumed.next_batch == number
    assert_equal(take(resumed, 8), take(want, 8))


def test_batches_below_the_first_are_refused(prepared):
    with pytest.raises(ValueError, match="Batch -1 is below 0"):
        train_batches(prepared, batch_size=5, seed=0, crop=100).seek(-1)


def test_a_position_fits_any_number_of_workers(prepared):
    settings = {"batch_size": 5, "seed": 0, "crop": 100}
    want = take(train_batches(prepared, **settings), 16)
    here, there = (
        train_batches(prepared, **settings),
        train_batches(prepared, workers=2, prefetch=2, **settings),
    )
    take(here, 5)
    there.seek(
        here.next_batch
    )  # None to two, in the middle of an epoch; batches 5 to 12 cross into the third.
    copies = [{name: value.copy() for name, value in next(there).items()} for _ in range(8)]
    assert_equal(copies, want[5:13])
    here.seek(there.next_batch)  # And back.
    there.close()
    assert_equal(take(here, 3), want[13:])


def shares(batch_size, count):
    """Rows of `count` processes, none of them consecutive."""
    return [np.arange(batch_size)[i::count] for i in range(count)]


@pytest.mark.parametrize("count", [2, 3, 6])
def test_processes_share_the_global_batch_by_rows(prepared, count):
    settings = {"batch_size": 6, "seed": 5, "crop": 120}
    want = take(train_batches(prepared, **settings), 7)
    for rows in shares(6, count):
        part = take(train_batches(prepared, rows=rows, **settings), 7)
        assert_equal(part, [{name: value[rows] for name, value in batch.items()} for batch in want])


def test_a_run_comes_back_with_any_number_of_processes(prepared):
    settings = {"batch_size": 8, "seed": 5, "crop": 120}
    want = take(train_batches(prepared, **settings), 10)
    number, got = 0, []
    for count, steps in ((1, 3), (2, 3), (4, 2), (1, 2)):
        streams = [train_batches(prepared, rows=rows, **settings) for rows in shares(8, count)]
        for stream in streams:
            stream.seek(number)
        for _ in range(steps):
            batch = {name: np.empty_like(value) for name, value in want[0].items()}
            for rows, stream in zip(shares(8, count), streams, strict=True):
                for name, value in next(stream).items():
                    batch[name][rows] = value
            got.append(batch)
        (number,) = {stream.next_batch for stream in streams}
    assert_equal(got, want)


@pytest.mark.parametrize("rows", [[], [1, 0], [0, 0], [-1, 0], [3, 4]])
def test_rows_outside_the_batch_or_out_of_order_are_refused(prepared, rows):
    with pytest.raises(ValueError, match=r"are not some of 0 to 3, ascending"):
        train_batches(prepared, batch_size=4, seed=0, crop=100, rows=np.asarray(rows, int))


def test_the_cache_gives_the_same_stream(prepared):
    settings = {"batch_size": 7, "seed": 2, "crop": 200}
    assert_equal(
        take(train_batches(prepared, cache=True, **settings), 9), take(train_batches(prepared, **settings), 9)
    )
    settings = {"batch_size": 7, "split": "train", "crop": 200, "crops": 2}
    assert_equal(
        list(evaluation_batches(prepared, cache=True, **settings)),
        list(evaluation_batches(prepared, **settings)),
    )


def test_threads_and_prefetch_do_not_change_the_stream(prepared):
    settings = {"batch_size": 5, "seed": 2, "crop": 200}
    assert_equal(
        take(train_batches(prepared, threads=1, prefetch=1, **settings), 8),
        take(train_batches(prepared, threads=8, prefetch=16, **settings), 8),
    )


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("batch_size", [4, 30, 64])
def test_evaluation_sees_every_example_once(prepared, batch_size, count):
    indices, batches = [], []
    for rows in shares(batch_size, count):
        mine = list(evaluation_batches(prepared, split="train", batch_size=batch_size, crop=100, rows=rows))
        batches.append(len(mine))
        for batch in mine:
            assert len(batch["mask"]) == batch_size // count  # The last is as full as the others.
            indices += batch["index"][batch["mask"]].tolist()
            padding = ~batch["mask"]
            assert (batch["index"][padding] == -1).all()
            assert np.isnan(batch["label"][padding]).all()
            assert not batch["subject"][padding].any()
            assert np.isfinite(batch["ecg"]).all()
            assert (batch["ecg"].std(axis=(1, 2)) > 0).all()
    assert sorted(indices) == list(range(TRAIN))
    assert batches == [-(-TRAIN // batch_size)] * count  # Or a collective would wait for ever.


def test_evaluation_crops_first_and_evenly():
    assert crop_starts(1000, 250, crops=1).tolist() == [0]
    assert crop_starts(1000, 250, crops=4).tolist() == [0, 250, 500, 750]
    assert crop_starts(400, 400, crops=2).tolist() == [0, 0]


def test_several_crops_are_consecutive_rows_of_their_example(prepared):
    manifest = read_manifest(prepared)
    stored = read_split(prepared, manifest, "val")
    whole = dequantise(stored["ecg"], stored["ecg_step"])
    batches = list(evaluation_batches(prepared, split="val", batch_size=4, crop=100, crops=3))
    rows = {name: np.concatenate([b[name][b["mask"]] for b in batches]) for name in ("index", "ecg")}
    assert rows["index"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for row, (i, start) in enumerate(zip(rows["index"], [0, 150, 300] * 3, strict=True)):
        np.testing.assert_array_equal(rows["ecg"][row], whole[i][:, start : start + 100])


def test_modalities_are_picked(prepared):
    batch = next(train_batches(prepared, batch_size=5, seed=0, modalities=("cmr",), cache=True))
    assert "ecg" not in batch
    whole = next(train_batches(prepared, batch_size=5, seed=0))
    np.testing.assert_array_equal(batch["label"], whole["label"])
    assert whole["ecg"].shape == (5, 12, 400)


@pytest.mark.parametrize("cache", [False, True])
def test_permuted_pairs_give_every_example_the_cmr_of_one_other_subject(prepared, cache):
    stored = read_split(prepared, read_manifest(prepared), "train")
    settings = {"batch_size": 10, "seed": 0, "crop": 100, "cache": cache}
    partners = {i: set() for i in range(TRAIN)}
    true = train_batches(prepared, **settings)
    for batch in take(train_batches(prepared, pairing="permuted", **settings), 9):  # Three epochs.
        unpermuted = next(true)
        for name in ("ecg", "label", "subject", "index"):
            np.testing.assert_array_equal(batch[name], unpermuted[name])
        for i, image in zip(batch["index"], batch["cmr"], strict=True):
            (partner,) = np.flatnonzero((stored["cmr"] == image).all(axis=(1, 2, 3)))
            assert not np.array_equal(stored["subject"][partner], stored["subject"][i])
            partners[i].add(int(partner))
    assert all(len(of_one) == 1 for of_one in partners.values())
    assert len(set.union(*partners.values())) > TRAIN - 5


def test_permuted_pairs_need_both_modalities_and_two_subjects(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"config.data.pairing: 'permuted' needs both"):
        train_batches(prepared, batch_size=4, seed=0, pairing="permuted", modalities=("ecg",))
    build(TinyCohort(subjects=1), tmp_path / "data", **SETTINGS)  # Two records.
    with pytest.raises(ValueError, match="the split has one subject only"):
        next(train_batches(tmp_path / "data", batch_size=2, seed=0, pairing="permuted"))


def test_missing_labels_are_nan(prepared):
    labels = np.concatenate([b["label"] for b in evaluation_batches(prepared, split="train", batch_size=30)])
    missing = np.isnan(labels[:, 0])
    np.testing.assert_array_equal(missing, labels[:, 2] % 7 == 3)
    assert 0 < missing.sum() < TRAIN


def test_a_data_set_of_one_modality_refuses_the_other(tmp_path):
    build(TinyCohort(with_cmr=False), tmp_path / "data", **{**SETTINGS, "conditioning_cmr": None})
    batch = next(train_batches(tmp_path / "data", batch_size=2, seed=0))
    assert "cmr" not in batch
    with pytest.raises(
        ValueError, match=r"config.data.modalities: asked for \['ecg', 'cmr'\].* has \['ecg'\]"
    ):
        train_batches(tmp_path / "data", batch_size=2, seed=0, modalities=("ecg", "cmr"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": 401}, "config.data.crop: 401 samples are not within 1 to 400"),
        ({"crop": 0}, "config.data.crop: 0 samples"),
        ({"batch_size": 31}, "config.data.batch_size: a batch of 31 is more than the 30 examples"),
        ({"batch_size": 0}, "config.data.batch_size: 0 is below 1"),
        ({"modalities": ("eeg",)}, r"config.data.modalities: asked for \['eeg'\]"),
        ({"modalities": ()}, "config.data.modalities: asked for \\[\\]"),
        ({"seed": -1}, "config.seed: -1 is outside"),
        ({"cache": True, "workers": 1}, "config.data.cache"),
        ({"threads": 8, "prefetch": 4}, "prefetch at least threads; got workers=0, threads=8"),
    ],
)
def test_wrong_settings_fail_before_the_first_batch(prepared, settings, message):
    with pytest.raises(ValueError, match=message):
        train_batches(prepared, **{"batch_size": 4, "seed": 0, "crop": 100, **settings})


def test_a_split_that_is_not_there_is_named_with_those_that_are(prepared):
    with pytest.raises(
        ValueError, match=r"^split 'trian' of cohort tiny has no examples; it holds \{'train': 30"
    ):
        evaluation_batches(prepared, split="trian", batch_size=4, crop=100)
    with pytest.raises(ValueError, match="0 crops an example"):
        evaluation_batches(prepared, split="val", batch_size=4, crop=100, crops=0)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """A similarity of the training examples that tells its rows and columns, and the file that holds it."""
    values = np.arange(TRAIN)[:, None] + np.arange(TRAIN)[None] / 64
    path = tmp_path_factory.mktemp("similarity") / "matrix.npy"
    np.save(path, values.astype(np.float16))
    return values, str(path)


def test_a_batch_holds_the_rows_of_the_matrix_of_its_examples(prepared, matrix):
    values, path = matrix
    settings = {"batch_size": 6, "seed": 5, "crop": 100, "similarity": path}
    whole = next(train_batches(prepared, **settings))
    assert whole["similarity"].dtype == np.float16
    np.testing.assert_array_equal(whole["similarity"], values[whole["index"]].astype(np.float16))
    for rows in shares(6, 2):
        part = next(train_batches(prepared, rows=rows, **settings))
        np.testing.assert_array_equal(part["similarity"], whole["similarity"][rows])
    iterator = train_batches(prepared, workers=1, prefetch=1, **settings)
    np.testing.assert_array_equal(next(iterator)["similarity"], whole["similarity"])
    iterator.close()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((TRAIN, TRAIN - 1)), r"float64 \(30, 29\); it must be \(30, 30\)"),
        (np.zeros(TRAIN), r"holds float64 \(30,\)"),
        (np.zeros((TRAIN, TRAIN), np.int32), r"holds int32 \(30, 30\)"),
        (np.full((TRAIN, TRAIN), None), "cannot be read as a .npy"),
    ],
)
def test_a_matrix_that_does_not_fit_fails_before_the_first_batch(prepared, tmp_path, array, message):
    np.save(tmp_path / "matrix.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=f"config.data.similarity: .*{message}"):
        train_batches(prepared, batch_size=4, seed=0, similarity=str(tmp_path / "matrix.npy"))
    with pytest.raises(ValueError, match=r"config.data.similarity: .*absent.npy cannot be read"):
        train_batches(prepared, batch_size=4, seed=0, similarity=str(tmp_path / "absent.npy"))


def test_a_similarity_that_is_no_number_stops_the_stream_at_its_row(prepared, tmp_path):
    values = np.zeros((TRAIN, TRAIN), np.float32)
    values[7, 3] = np.nan
    np.save(tmp_path / "matrix.npy", values)
    with pytest.raises(ValueError, match=r"config.data.similarity: row 7 of .*matrix.npy"):
        take(train_batches(prepared, batch_size=5, seed=0, similarity=str(tmp_path / "matrix.npy")), 6)


def test_a_damaged_record_stops_the_stream_with_its_name(prepared, tmp_path):
    import shutil

    directory = shutil.copytree(prepared, tmp_path / "copied")
    path = directory / read_manifest(directory).splits["train"].shards[2].file
    content = bytearray(path.read_bytes())
    content[content.index(b"ECGX") + 300] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=f"{path.name}: record 0 .* is damaged.*ecgjax prepare"):
        take(train_batches(directory, batch_size=5, seed=0, crop=100), 6)
    with pytest.raises(ValueError, match=f"{path.name}: record 0 .* is damaged"):
        train_batches(directory, batch_size=5, seed=0, crop=100, cache=True)


def test_tensorflow_stays_out():
    assert "tensorflow" not in sys.modules
