"""How well one half of a pair finds the other among all candidates."""

import numpy as np
from jaxtyping import Float

_CHUNK = 512
"""Queries a time: 512 x 100,000 float32 similarities are 200 MB."""


def pair_ranks(
    query: Float[np.ndarray, "n k"], candidate: Float[np.ndarray, "n k"]
) -> Float[np.ndarray, " n"]:
    """Rank, from 1, of candidate i for query i by cosine; ties share the middle rank.

    The middle rank keeps a collapsed embedding, which ties with everything, at chance.
    """
    query, candidate = _unit(query), _unit(candidate)
    ranks = np.empty(len(query))
    for start in range(0, len(query), _CHUNK):
        rows = slice(start, start + _CHUNK)
        similarity = query[rows] @ candidate.T
        own = np.take_along_axis(similarity, np.arange(len(query))[rows, None], axis=1)
        above, equal = np.sum(similarity > own, axis=1), np.sum(similarity == own, axis=1)
        ranks[rows] = above + (equal + 1) / 2
    return ranks


def recall_at(ranks: Float[np.ndarray, " n"], *, k: int) -> float:
    """Share of queries whose partner is among the first `k`; chance is k / n."""
    return float(np.mean(ranks <= k))


def median_rank(ranks: Float[np.ndarray, " n"]) -> float:
    """Median rank of the partner; chance is (n + 1) / 2."""
    return float(np.median(ranks))


def mean_reciprocal_rank(ranks: Float[np.ndarray, " n"]) -> float:
    """Mean of 1 / rank."""
    return float(np.mean(1 / ranks))


def _unit(z: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    if not np.all(np.isfinite(z)):
        raise ValueError(
            f"embeddings [n k] = {z.shape} hold values that are not finite; look at the checkpoint."
        )
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), np.finfo(z.dtype).tiny)
