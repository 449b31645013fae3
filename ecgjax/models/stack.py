"""Transformer blocks one after the other: unrolled or scanned, with activations kept or computed again."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.models.layers import Block, Drop

Remat = Literal["none", "dots", "blocks"]
"""What the backward pass computes again: nothing; all but the results of linear layers (attention and
element-wise work); or all of a block but its input.

XLA on CPU finds the second computation to be the first and keeps it, unless the blocks are scanned.
"""

_SAVED = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "blocks": jax.checkpoint_policies.nothing_saveable,
}


def run_blocks(
    blocks: Sequence[Block],
    tokens: Float[Array, "b n d"],
    *,
    train: bool = False,
    key: PRNGKeyArray | None = None,
    remat: Remat = "none",
    scan: int = 0,
    pad: int = 1,
) -> Float[Array, "b n d"]:
    """What `blocks` make of tokens; in training each is given its part of `key` to drop branches.

    `scan` = n compiles n blocks once and loops over the stack in groups of n, 0 compiles every block. Compilation
    gets shorter, the step longer: a loop hides the next layer's weights from the compiler, and what its backward
    pass needs is written to memory in stacks. Within the blocks the token axis is padded to a multiple of `pad`, and
    nothing attends to the padding: 304 tokens for 301 fill the tiles of a TPU (4 % of the cycles of a decoder layer).
    None of these changes values, draws or parameters, which are stacked within the step.
    """
    n = tokens.shape[1]
    if n % pad:
        tokens = jnp.pad(tokens, ((0, 0), (0, -n % pad), (0, 0)))
    dropping = train and any(block.drop_path for block in blocks)
    if dropping and key is None:
        raise ValueError("drop path needs a key in training; pass key=, or train=False.")
    drops = [
        Drop(jax.random.fold_in(key, i), 1 - block.drop_path)
        if dropping and (scan or block.drop_path)
        else None
        for i, block in enumerate(blocks)
    ]
    # In a loop nothing could be merged with the first computation, which a barrier would guard against.
    barrier, seen = scan in (0, len(blocks)), n if n % pad else None
    step = _remat(lambda block, tokens, drop: block(tokens, drop, seen=seen), remat, barrier=barrier)
    if not scan:
        for block, drop in zip(blocks, drops, strict=True):
            tokens = step(block, tokens, drop)
        return tokens[:, :n]
    graph, _ = nnx.split(blocks[0])  # Blocks differ by their rate of drop path alone, which `drops` hold.
    inputs = [(_compute(block), drop) for block, drop in zip(blocks, drops, strict=True)]
    groups = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *inputs[i::scan]) for i in range(scan)]

    def body(tokens, group):
        for state, drop in group:
            tokens = step(nnx.merge(graph, state), tokens, drop)
        return tokens, None

    return jax.lax.scan(body, tokens, groups)[0][:, :n]


def check_run(*, scan: int, pad: int, depth: int) -> None:
    """Raises where a stack does not split into groups of `scan` blocks, or tokens not into tiles of `pad`."""
    if pad < 1:
        raise ValueError(f"pad_tokens is {pad}; it must be at least 1, which pads nothing.")
    if scan < 0 or (scan and depth % scan):
        fit = [n for n in range(1, depth + 1) if depth % n == 0]
        raise ValueError(
            f"scan {scan} does not divide depth {depth}; choose one of {fit}, or 0 to scan nothing."
        )


def _remat(step, remat: Remat, *, barrier: bool):
    """`step(block, tokens, drop)`, of which the backward pass finds what `remat` leaves."""
    if remat == "none":
        return step

    def again(block, tokens, drop):
        graph, state = nnx.split(block)
        pure = jax.checkpoint(
            lambda state, tokens, drop: step(nnx.merge(graph, state), tokens, drop),
            policy=_SAVED[remat],
            prevent_cse=barrier,
        )
        return pure(state, tokens, drop)

    return again


def _compute(block: Block) -> nnx.State:
    """Parameters of a block, kernels in the precision that they are used in: their stack is half as large."""
    dtype = block.mlp.fc1.dtype
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, nnx.state(block))
