import numpy as np
import pytest

from ecgjax.metrics import retrieval


def _rank_by_loop(query, candidate):
    ranks = []
    for i, q in enumerate(query):
        cosine = [q @ c / np.linalg.norm(q) / np.linalg.norm(c) for c in candidate]
        ranks.append(1 + sum(value > cosine[i] for j, value in enumerate(cosine) if j != i))
    return ranks


def test_ranks_match_a_loop_across_chunks(monkeypatch):
    monkeypatch.setattr(retrieval, "_CHUNK", 7)
    generator = np.random.default_rng(0)
    query, candidate = generator.normal(size=(2, 30, 5))
    np.testing.assert_array_equal(retrieval.pair_ranks(query, candidate), _rank_by_loop(query, candidate))


def test_summaries_by_hand():
    ranks = np.array([1.0, 2.0, 4.0, 10.0])
    assert retrieval.recall_at(ranks, k=1) == 0.25
    assert retrieval.recall_at(ranks, k=5) == 0.75
    assert retrieval.median_rank(ranks) == 3
    assert retrieval.mean_reciprocal_rank(ranks) == pytest.approx((1 + 0.5 + 0.25 + 0.1) / 4)


def test_collapsed_embeddings_are_at_chance():
    ranks = retrieval.pair_ranks(np.ones((9, 3)), np.ones((9, 3)))
    np.testing.assert_array_equal(ranks, 5)
    assert retrieval.recall_at(ranks, k=1) == 0


def test_identical_embeddings_are_perfect_whatever_their_length():
    z = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    assert retrieval.recall_at(retrieval.pair_ranks(z, z * 3), k=1) == 1
