import numpy as np
import pytest
from heart_world import World, separable

from ecgjax.evaluators.retrieval import Retrieval


def test_recall_has_chance_and_an_interval_beside_it():
    def noisy(batch):
        out = separable(batch)
        jitter = np.stack([np.random.default_rng(abs(int(i))).normal(size=4) for i in batch["index"]])
        out["cmr/projection"] = (batch["latent"] + 0.5 * jitter).astype(np.float32)
        return out

    scalars = Retrieval(k=(1, 10)).run(noisy, World().splits()).scalars
    assert (scalars["chance/recall@1"], scalars["chance/recall@10"]) == (1 / 130, 10 / 130)
    assert scalars["chance/median_rank"] == 65.5
    for way in ("ecg_to_cmr", "cmr_to_ecg"):
        low, value, high = (scalars[f"{way}/recall@10{x}"] for x in ("/low", "", "/high"))
        assert 10 / 130 < low < value < high < 1


def test_ranks_below_one_are_refused():
    with pytest.raises(ValueError, match="give ranks from 1"):
        Retrieval(k=(0,))
