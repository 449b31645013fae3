"""A contrastive loss by its name, on whole logits or in tiles."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import Array, Float, Int

from ecgjax.losses import blockwise, contrastive, matrix
from ecgjax.losses.blockwise import Pairs

_WHOLE: Mapping[str, tuple[Callable, str]] = {
    "info_nce": (contrastive.info_nce, "same_subject"),
    "nt_xent": (contrastive.nt_xent, "same_subject"),
    "sigmoid": (contrastive.sigmoid, "same_subject"),
    "supervised_contrastive": (matrix.supervised_contrastive, "positives"),
    "remove_false_negatives": (matrix.remove_false_negatives, "similar"),
    "supcon": (matrix.supcon_views, "positives"),
}
"""Each loss with its name for the matrix of who is alike."""

_IN_TILES: Mapping[str, Callable] = {
    "info_nce": blockwise.info_nce,
    "nt_xent": blockwise.nt_xent,
    "sigmoid": blockwise.sigmoid,
    "supervised_contrastive": blockwise.supervised_contrastive,
    "remove_false_negatives": blockwise.remove_false_negatives,
}


def check_tile(tile: int | None) -> None:
    """Whether it divides what a device holds is known only with the batch."""
    if tile is not None and tile < 1:
        raise ValueError(f"config.objective.tile is {tile}; it must be at least 1, or None for whole logits.")


def contrast(
    name: str,
    z0: Float[Array, "b k"],
    z1: Float[Array, "b k"],
    *,
    pairs: Pairs,
    tile: int | None,
    **settings: Any,
) -> Float[Array, ""]:
    """The loss `name` with its own settings, in tiles of `tile` columns or, where that is None, on whole logits."""
    if tile is None:
        loss, who = _WHOLE[name]
        return loss(z0, z1, **{who: pairs.matrix()}, **settings)
    return _IN_TILES[name](z0, z1, pairs=pairs, size=_size(tile, len(z0)), **settings)


def ranks(z0: Float[Array, "b k"], z1: Float[Array, "b k"], *, tile: int | None) -> Int[Array, "b"]:
    """`losses.contrastive.ranks`, in tiles or on whole logits."""
    if tile is None:
        return contrastive.ranks(z0, z1)
    return blockwise.ranks(z0, z1, size=_size(tile, len(z0)))


def _size(tile: int, examples: int) -> int:
    """Columns of a tile: never more than one device holds."""
    mesh = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty else mesh.size
    share = examples // devices
    size = min(tile, share)
    if share % size:
        fit = [count for count in range(1, share + 1) if share % count == 0]
        raise ValueError(
            f"config.objective.tile is {tile}, which does not divide the {share} examples that each of {devices} "
            f"device(s) has of {examples}; choose one of {fit}, or another config.data.batch_size or "
            f"validation_batch."
        )
    return size
