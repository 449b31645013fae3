"""Embeddings in two dimensions, coloured by a label: how they lie, not how well they predict."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecgjax.reports.figures import INK, ORANGE, head

MISSING = "#c9d0d8"
MOST_NEIGHBOURED = 3000
"""Embeddings that t-SNE is given at most, drawn at random: about a minute on a core."""
EXPLAINED = 0.9


@dataclasses.dataclass(frozen=True, eq=False)
class Components:
    """Scores on the first two principal components, and how many it takes to explain `EXPLAINED` of the variance."""

    scores: Float[np.ndarray, "n 2"]
    explained: Float[np.ndarray, " k"]
    needed: int


def principal_components(embedding: Float[np.ndarray, "n d"]) -> Components:
    """PCA of the centred embeddings; `explained` are the shares of variance, largest first."""
    if min(embedding.shape) < 2:
        raise ValueError(
            f"embeddings of shape {embedding.shape} span no plane; give at least 2 of 2 numbers."
        )
    centred = embedding.astype(np.float64) - embedding.mean(axis=0, dtype=np.float64)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    total = np.sum(size**2)
    if not total > 0:
        raise ValueError("all embeddings are the same; the encoder has collapsed.")
    explained = size**2 / total
    needed = int(np.searchsorted(np.cumsum(explained), EXPLAINED - 1e-12) + 1)
    return Components(left[:, :2] * size[:2], explained, needed)


def neighbour_map(embedding: Float[np.ndarray, "n d"], *, seed: int = 0) -> Float[np.ndarray, "n 2"]:
    """t-SNE from the principal components, of scikit-learn; distances between clusters mean nothing."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(embedding) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(
        embedding.astype(np.float32)
    )


def embedding_map(
    embedding: Float[np.ndarray, "n d"],
    label: Float[np.ndarray, " n"],
    *,
    label_name: str,
    kind: str,
    unit: str = "",
    title: str = "",
    seed: int = 0,
) -> Figure:
    """PCA and t-SNE side by side, coloured by a label; grey where it is missing.

    Beyond `MOST_NEIGHBOURED` embeddings t-SNE sees a random part of them, which its heading says.
    """
    components = principal_components(embedding)
    count = len(embedding)
    part = np.arange(count)
    if count > MOST_NEIGHBOURED:
        part = np.sort(np.random.default_rng(seed).permutation(count)[:MOST_NEIGHBOURED])
    figure = Figure(figsize=(9.6, 4.4), dpi=110, layout="constrained")
    axes = figure.subplots(1, 2)
    shares = components.explained[:2]
    headings = (
        f"principal components; {components.needed} of {embedding.shape[1]} explain {EXPLAINED:.0%} of the variance",
        f"t-SNE of {len(part)}" + (f", drawn from {count}" if len(part) < count else ""),
    )
    labels = (tuple(f"component {i + 1} ({share:.0%})" for i, share in enumerate(shares)), ("", ""))
    places = (components.scores, neighbour_map(embedding[part], seed=seed))
    for one, place, values, heading, names in zip(
        axes, places, (label, label[part]), headings, labels, strict=True
    ):
        points = _scatter(one, place, values, kind=kind, label_name=label_name)
        head(one, heading, size=9)
        one.set_xlabel(names[0], fontsize=8)
        one.set_ylabel(names[1], fontsize=8)
        one.tick_params(labelsize=7, length=2)
        one.spines[["top", "right"]].set_visible(False)
    axes[1].set_xticks([])
    axes[1].set_yticks([])
    if kind == "binary":
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False
        )
    elif points is not None:
        bar = figure.colorbar(points, ax=axes, fraction=0.03, pad=0.01)
        bar.set_label(f"{label_name} [{unit}]" if unit else label_name, fontsize=8)
        bar.ax.tick_params(labelsize=7)
    if title:
        figure.suptitle(title, fontsize=10, color=INK)
    return figure


def _scatter(axes: Axes, place: np.ndarray, values: np.ndarray, *, kind: str, label_name: str):
    """Points, the missing ones below; returns what a colour bar describes, None where there is nothing."""
    known = ~np.isnan(values)
    if not known.all():
        axes.scatter(*place[~known].T, s=5, color=MISSING, linewidths=0, label=f"{label_name} unknown")
    if kind == "binary":
        for value, colour, name in ((0, "#8fb3d9", f"no {label_name}"), (1, ORANGE, label_name)):
            chosen = known & (values == value)
            axes.scatter(*place[chosen].T, s=7, color=colour, alpha=0.8, linewidths=0, label=name)
        return None
    if not known.any():
        return None
    low, high = np.percentile(values[known], (2, 98))
    return axes.scatter(
        *place[known].T, s=7, c=values[known], cmap="viridis", vmin=low, vmax=high, linewidths=0
    )


def find_label(name: str, known: Sequence[str]) -> int:
    """The column of a label; names the choices where it is unknown."""
    if name not in known:
        raise ValueError(f"--plot={name}: unknown label; choose from {', '.join(known)}.")
    return list(known).index(name)
