"""Contrastive losses whose logits never exist as a whole: tiles in a ring of devices, recomputed in the backward pass.

Equal to those of `contrastive` and `matrix` in value and gradient. The devices are those of the mesh in whose context
they are traced (`jax.set_mesh`, `jax.sharding.use_abstract_mesh`), all its axes as one; without a mesh there is one.
A device holds logits of its own rows against `size` columns at a time; `size` divides the rows of a device.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from ecgjax.losses.contrastive import unit

Rows = Any
"""Nested arrays whose leading axis is that of the rows, or of the columns, that a tile sees."""

_LEFT_OUT = -1e30
"""A logit that counts as none. Minus infinity would make a gradient of NaN out of a tile that leaves out everything."""

_ROUNDING = 1e-6
"""Cosines that are closer than this are equal."""


class Pairs(NamedTuple):
    """Which subjects are alike, said of any tile: `alike(rows, columns)` is `[n c]`.

    `columns` is what of a subject travels from device to device, `rows` what else it takes and stays at home; both
    have the leading axis b.
    """

    rows: Rows
    columns: Rows
    alike: Callable[[Rows, Rows], Bool[Array, "..."]]

    def matrix(self) -> Bool[Array, "b b"]:
        """The whole of it, for batches whose logits fit."""
        return self.alike(self.rows, self.columns)

    def __or__(self, other: "Pairs") -> "Pairs":
        """Alike by one or by the other."""

        def alike(rows, columns):
            return self.alike(rows[0], columns[0]) | other.alike(rows[1], columns[1])

        return Pairs((self.rows, other.rows), (self.columns, other.columns), alike)


STRANGERS = Pairs((), (), lambda rows, columns: jnp.zeros((), bool))
"""No two rows are alike."""


class _Subjects(NamedTuple):
    z: Float[Array, "..."]
    place: Int[Array, "n"]
    who: Rows


def info_nce(
    z0: Float[Array, "b k"],
    z1: Float[Array, "b k"],
    *,
    temperature: float,
    balance: float = 0.5,
    pairs: Pairs = STRANGERS,
    size: int,
) -> Float[Array, ""]:
    """`contrastive.info_nce`; who is alike is left out of the negatives."""

    def tile(rows, columns, row, column):
        itself = _same_place(rows, columns)
        left_out = pairs.alike(rows.who, columns.who) & ~itself
        logits = jnp.where(left_out, _LEFT_OUT, rows.z @ columns.z.T)
        total, own = row
        own = own + jnp.sum(jnp.where(itself, logits, 0), axis=1)
        return (_log_sum(total, logits, axis=1), own), _log_sum(column, logits, axis=0)

    rows, columns = _subjects(unit(z0) / temperature, pairs.rows), _subjects(unit(z1), pairs.columns)
    nothing, zero = _start(rows.z)
    (of_row, own), of_column = ring(tile, rows, columns, (nothing, zero), nothing, size=size)
    return jnp.mean(balance * of_row + (1 - balance) * of_column - own)


def remove_false_negatives(
    z0: Float[Array, "b k"], z1: Float[Array, "b k"], *, temperature: float, pairs: Pairs, size: int
) -> Float[Array, ""]:
    """`matrix.remove_false_negatives`."""
    return info_nce(z0, z1, temperature=temperature, pairs=pairs, size=size)


def nt_xent(
    z0: Float[Array, "b k"],
    z1: Float[Array, "b k"],
    *,
    temperature: float,
    pairs: Pairs = STRANGERS,
    size: int,
) -> Float[Array, ""]:
    """`contrastive.nt_xent`; who is alike is left out of the negatives."""

    def tile(rows, columns, row, column):
        other_view = (rows.place ^ 1)[:, None] == columns.place
        left_out = _same_place(rows, columns) | (pairs.alike(rows.who, columns.who) & ~other_view)
        logits = jnp.where(left_out, _LEFT_OUT, rows.z @ columns.z.T)
        total, positive = row
        positive = positive + jnp.sum(jnp.where(other_view, logits, 0), axis=1)
        return (_log_sum(total, logits, axis=1), positive), column

    # The views of a subject become neighbours, 2i and 2i + 1: none leaves its device, as by concatenation.
    z = jnp.stack([unit(z0), unit(z1)], axis=1).reshape(2 * len(z0), -1)
    who_rows, who_columns = jax.tree.map(lambda x: jnp.repeat(x, 2, axis=0), (pairs.rows, pairs.columns))
    rows, columns = _subjects(z / temperature, who_rows), _subjects(z, who_columns)
    (total, positive), _ = ring(tile, rows, columns, _start(rows.z), (), size=size)
    return jnp.mean(total - positive)


def supervised_contrastive(
    z0: Float[Array, "b k"], z1: Float[Array, "b k"], *, temperature: float, pairs: Pairs, size: int
) -> Float[Array, ""]:
    """`matrix.supervised_contrastive` of rows divided by the number of their positives: who is alike, and itself."""

    def tile(rows, columns, row, column):
        chosen = pairs.alike(rows.who, columns.who) | _same_place(rows, columns)
        logits = jnp.einsum("ndk,cdk->dnc", rows.z, columns.z)
        total, positives, count = row
        total = jnp.logaddexp(total, jax.nn.logsumexp(logits, axis=2).T)
        positives = positives + jnp.sum(jnp.where(chosen, logits, 0), axis=2).T
        return (total, positives, count + jnp.sum(chosen, axis=1, keepdims=True)), column

    # Both directions at once: what a row of z0 is to z1, a row of z1 is to z0, with the same positives.
    z = jnp.stack([unit(z0), unit(z1)], axis=1)
    rows, columns = _subjects(z / temperature, pairs.rows), _subjects(z[:, ::-1], pairs.columns)
    nothing, zero = (jnp.stack([x, x], axis=1) for x in _start(z))
    start = (nothing, zero, jnp.zeros((len(z), 1), jnp.int32))
    (total, positives, count), _ = ring(tile, rows, columns, start, (), size=size)
    return jnp.mean(total - positives / count)


def sigmoid(
    z0: Float[Array, "b k"],
    z1: Float[Array, "b k"],
    *,
    log_scale: Float[Array, ""] | float,
    bias: Float[Array, ""] | float,
    pairs: Pairs = STRANGERS,
    size: int,
) -> Float[Array, ""]:
    """`contrastive.sigmoid`; who is alike is neither positive nor negative."""

    def tile(rows, columns, row, column):
        itself = _same_place(rows, columns)
        bias, who = rows.who
        logits = rows.z @ columns.z.T + bias[:, None]
        surprise = -jax.nn.log_sigmoid(jnp.where(itself, logits, -logits))
        left_out = pairs.alike(who, columns.who) & ~itself
        return row + jnp.sum(jnp.where(left_out, 0, surprise), axis=1), column

    z0, z1 = unit(z0) * jnp.exp(log_scale), unit(z1)
    _, zero = _start(z0)
    # What is learnt comes with the rows: a tile that closes over it has no gradient.
    rows, columns = _subjects(z0, (zero + bias, pairs.rows)), _subjects(z1, pairs.columns)
    return jnp.mean(ring(tile, rows, columns, zero, (), size=size)[0])


def ranks(z0: Float[Array, "b k"], z1: Float[Array, "b k"], *, size: int) -> Int[Array, "b"]:
    """`contrastive.ranks`; cosines that differ by rounding are equal."""
    z0, z1 = jax.lax.stop_gradient((unit(z0), unit(z1)))
    own = jnp.sum(z0 * z1, axis=1)

    def tile(rows, columns, row, column):
        # The own cosine is exact, so these must not be products in bfloat16.
        cosines = jnp.matmul(rows.z, columns.z.T, precision="highest")
        closer = (cosines >= rows.who[:, None] - _ROUNDING) & ~_same_place(rows, columns)
        return row + jnp.sum(closer, axis=1), column

    start = jnp.zeros(len(z0), jnp.int32)
    return ring(tile, _subjects(z0, own), _subjects(z1, ()), start, (), size=size)[0]


def ring(
    tile: Callable[[Rows, Rows, Rows, Rows], tuple[Rows, Rows]],
    rows: Rows,
    columns: Rows,
    seen_by_rows: Rows,
    seen_by_columns: Rows,
    *,
    size: int,
) -> tuple[Rows, Rows]:
    """Shows every column to every row; returns what both have seen.

    `tile(rows, columns, seen_by_rows, seen_by_columns)` returns the last two, with what this tile adds to them. All
    are nested arrays with the leading axis b, of which `tile` gets the rows of one device and `size` columns. Rows
    stay where they are; columns and what they have seen go from device to device until they are home again. What a
    gradient flows to must be among these arrays: `tile` may close over nothing else that was traced.
    """
    mesh = jax.sharding.get_abstract_mesh()
    devices, axes = (1, ()) if mesh.empty else (mesh.size, mesh.axis_names)
    onwards = [(device, (device + 1) % devices) for device in range(devices)]

    def pass_on(tree):
        return jax.tree.map(lambda x: jax.lax.ppermute(x, axes, onwards), tree) if devices > 1 else tree

    def on_a_device(rows, columns, seen_by_rows, seen_by_columns):
        @jax.checkpoint  # What is kept for the gradient: columns as they pass, and what was seen, but no logits.
        def one_tile(seen_by_rows, part):
            return tile(rows, part[0], seen_by_rows, part[1])

        def hop(carry, _):
            columns, seen_by_rows, seen_by_columns = carry
            parts = _cut((columns, seen_by_columns), size)
            seen_by_rows, seen = jax.lax.scan(one_tile, seen_by_rows, parts)
            seen_by_columns = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), seen)
            # The columns themselves wait for no tile: their way can be hidden behind the arithmetic.
            return (pass_on(columns), seen_by_rows, pass_on(seen_by_columns)), None

        start = (columns, seen_by_rows, seen_by_columns)
        (_, seen_by_rows, seen_by_columns), _ = jax.lax.scan(hop, start, length=devices)
        return seen_by_rows, seen_by_columns

    arguments = (rows, columns, seen_by_rows, seen_by_columns)
    if mesh.empty:
        return on_a_device(*arguments)
    return jax.shard_map(on_a_device, in_specs=P(axes), out_specs=P(axes))(*arguments)


def _cut(tree: Rows, size: int) -> Rows:
    """[n ...] as [n / size, size, ...]."""

    def one(x):
        if len(x) % size:
            raise ValueError(f"tiles of {size} columns do not divide the {len(x)} that a device holds.")
        return x.reshape(-1, size, *x.shape[1:])

    return jax.tree.map(one, tree)


def _subjects(z, who) -> _Subjects:
    return _Subjects(z, jnp.arange(len(z), dtype=jnp.int32), who)


def _same_place(rows: _Subjects, columns: _Subjects) -> Bool[Array, "n c"]:
    return rows.place[:, None] == columns.place


def _start(z) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """The logarithm of an empty sum of exponentials, and an empty sum."""
    return jnp.full(len(z), _LEFT_OUT, z.dtype), jnp.zeros(len(z), z.dtype)


def _log_sum(total, logits, *, axis: int):
    return jnp.logaddexp(total, jax.nn.logsumexp(logits, axis=axis))
