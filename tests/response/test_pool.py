"""All splits of a small data set as one, for folds that cut across them."""

import numpy as np
import pytest

from ecgjax.data.identifiers import as_hex
from ecgjax.data.manifest import read_manifest
from ecgjax.data.pipeline import evaluation_batches
from ecgjax.data.shards import read_split
from ecgjax.response.pool import open_pool


@pytest.fixture(scope="module")
def pool(prepared):
    return open_pool(prepared)


def test_a_pool_holds_the_examples_of_every_split(pool, prepared):
    splits = [read_split(prepared, read_manifest(prepared), name) for name in ("train", "val", "test")]
    assert len(pool) == 36
    for name in ("label", "ecg"):
        np.testing.assert_array_equal(pool.arrays[name], np.concatenate([split[name] for split in splits]))
    np.testing.assert_array_equal(
        pool.subject, as_hex(np.concatenate([split["subject"] for split in splits]))
    )
    assert "cmr" not in pool.arrays


def test_training_draws_the_chosen_alone_with_the_labels_that_it_is_given(pool):
    chosen = np.array([30, 2, 17, 11, 5])
    label = np.full_like(pool.label, np.nan)
    label[chosen, 1] = chosen
    batches = pool.train_batches(chosen, label, batch_size=2, crop=100, seed=3)
    seen = [next(batches) for _ in range(4)]  # Two epochs of two batches; one example is left out in each.
    batches.close()
    for epoch in (seen[:2], seen[2:]):
        index = np.concatenate([batch["index"] for batch in epoch])
        assert len(set(index)) == 4
        assert set(index) <= set(chosen)
        got = np.concatenate([batch["label"] for batch in epoch])
        np.testing.assert_array_equal(got[:, 1], index)
        assert np.isnan(got[:, [0, 2]]).all()
    assert seen[0]["ecg"].shape == (2, 12, 100)
    again = pool.train_batches(chosen, label, batch_size=2, crop=100, seed=3)
    np.testing.assert_array_equal(next(again)["ecg"], seen[0]["ecg"])
    again.close()
    with pytest.raises(ValueError, match=r"config\.data\.batch_size is 6, but a fold trains on 5 recordings"):
        pool.train_batches(chosen, label, batch_size=6, crop=100, seed=3)


def test_evaluation_gives_the_chosen_in_order_as_the_pipeline_gives_a_split(pool, prepared):
    test = np.arange(len(pool))[-read_manifest(prepared).split("test").examples :]
    sizes = {"batch_size": 3, "crop": 100, "crops": 2}
    want = list(evaluation_batches(prepared, split="test", modalities=("ecg",), **sizes))
    got = list(pool.evaluation_batches(test, **sizes))
    assert len(got) == len(want)
    for mine, theirs in zip(got, want, strict=True):
        for name in theirs:
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


def test_a_directory_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"manifest\.json does not exist"):
        open_pool(tmp_path)
