"""What can be said of importance maps without knowing where to look: do they depend on the partner, and how."""

import numpy as np
from jaxtyping import Float, Int


def partner_auc(
    local: Float[np.ndarray, "n p k"], partner: Float[np.ndarray, "n k"], subject: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """For each example, how often its best place resembles its own partner more than that of another subject.

    1 where it always does, 0.5 by chance; ties count half. NaN where there is no other subject.
    """
    local, partner = _unit(local), _unit(partner)
    best = np.stack([(places @ partner.T).max(0) for places in local])
    own = np.diag(best)[:, None]
    others = subject[:, None] != subject[None]
    won = np.sum(((best < own) + 0.5 * (best == own)) * others, axis=1)
    count = others.sum(axis=1)
    return np.where(count > 0, won / np.maximum(count, 1), np.nan)


def shared_variance(maps: Float[np.ndarray, "n p"]) -> float:
    """Share of the variance over places that all maps have in common: 1 where everyone has the same map.

    Unrelated maps have 1 / n; each map's own level does not count. NaN for maps without variance.
    """
    maps = maps.astype(np.float64)
    maps = maps - maps.mean(axis=1, keepdims=True)
    total = np.mean(np.sum(maps**2, axis=1))
    return float(np.sum(maps.mean(axis=0) ** 2) / total) if total > 0 else float("nan")


def entropy(shares: Float[np.ndarray, "n p"]) -> Float[np.ndarray, " n"]:
    """Entropy of shares that sum to 1, as a part of that of a flat map: 0 is a single place, 1 is flat."""
    shares = shares.astype(np.float64)
    logarithm = np.log(np.where(shares > 0, shares, 1))
    return -np.sum(shares * logarithm, axis=1) / np.log(shares.shape[1])


def region_weight(
    region: tuple[float, float, float, float], *, height: int, width: int
) -> Float[np.ndarray, "y x"]:
    """How much of each cell of a map lies in `region`: top, left, height, width as fractions of the image."""
    top, left, high, wide = region
    return np.outer(_covered(top, top + high, height), _covered(left, left + wide, width))


def _covered(start, stop, cells):
    edges = np.arange(cells + 1) / cells
    return np.clip(np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start), 0, None) * cells


def _unit(z):
    z = z.astype(np.float64)
    return z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-12)
