"""Weights by formula, and the tolerance of the golden arrays."""

import fnmatch
import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ecgjax.weights.names import from_torch, path_of, to_torch


def draw(name: str, shape: tuple, base: int) -> np.ndarray:
    """The README's formula; positions are not drawn."""
    n = np.random.RandomState((zlib.crc32(name.encode()) + base) % 2**32).standard_normal(shape)
    if name.endswith("running_mean"):
        value = 0.1 * n
    elif name.endswith("running_var"):
        value = 1 + 0.2 * np.abs(n)
    elif name.endswith("token"):
        value = 0.1 * n
    elif len(shape) == 1 and name.endswith("weight"):
        value = 1 + 0.1 * n
    elif name.endswith("bias"):
        value = 0.1 * n
    else:
        value = n / np.sqrt(np.prod(shape[1:]))
    return value.astype(np.float32)


def positions(directory: pathlib.Path, *, leads: int, columns: int, width: int) -> np.ndarray:
    """The table that the golden models start from: angles in float32, as numpy had them where the goldens were made.

    Its float32 powers differ between processors by a unit in the last place, too much for what float64 is held to; so
    the table that is stored is taken where there is one. `test_positions` compares ours with it.
    """
    with np.load(directory / "misc.npz", allow_pickle=False) as stored:
        if (key := f"sincos_d{width}_{leads}x{columns}") in stored.files:
            return stored[key]
    frequency = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float32) / np.float32(width / 4))

    def encode(position):
        angle = position.astype(np.float32)[:, None] * frequency
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    lead, column = np.divmod(np.arange(leads * columns), columns)
    table = np.concatenate([encode(column), encode(lead)], axis=1)
    return np.concatenate([np.zeros((1, width), np.float32), table])


def check_positions(table: np.ndarray, want: np.ndarray, *, leads: int, columns: int) -> None:
    """Passes where no entry is further off than by two units in the last place of its angle, and one of its own.

    The tables of the newest release are float32 in both precisions of the tests. Power and quotient of a frequency are
    each rounded, by numpy to another neighbour on another processor. Most angles are small, and their units far below
    what one tolerance for all entries could be.
    """
    width = want.shape[-1]
    frequency = 1 / 10000 ** (np.arange(width // 4) / (width / 4))
    lead, column = np.divmod(np.arange(leads * columns), columns)
    halves = [np.spacing((axis[:, None] * frequency).astype(np.float32)) for axis in (column, lead)]
    unit = np.concatenate([np.tile(half, 2) for half in halves], axis=1)
    allowed = np.concatenate([np.zeros((1, width)), 2 * unit]) + np.spacing(np.abs(want))
    error = np.abs(table.astype(np.float64) - want)
    assert np.all(error <= allowed), (
        f"{error.max():.3g}, {np.sum(error > allowed)} entries beyond their units"
    )


def get(tree, path):
    for part in path:
        tree = tree[part]
    return tree


def put(tree, path, value):
    """Writes `value` in the precision that is on; integers stay as they are."""
    for part in path[:-1]:
        tree = tree[part]
    assert np.shape(tree[path[-1]]) == np.shape(value), (path, np.shape(tree[path[-1]]), np.shape(value))
    floating = np.asarray(value).dtype.kind == "f"
    tree[path[-1]] = jnp.asarray(value, jnp.result_type(float) if floating else None)


def fill_by_formula(tree: dict, names, base: int) -> None:
    """Writes the formula's value into every leaf that `names` lists; the others must be positions."""
    written = set()
    for name in names:
        path = path_of(name)
        shape = to_torch(name, get(tree, path)).shape
        put(tree, path, from_torch(name, draw(name, shape, base)))
        written.add(path)
    _check_all_written(tree, written)


def fill_from_state(tree: dict, state: dict) -> None:
    """Writes torch tensors into our tree; every leaf must be met. Names that we do not have are skipped."""
    written = set()
    for name, value in state.items():
        try:
            get(tree, path_of(name))
        except KeyError:
            continue
        put(tree, path_of(name), from_torch(name, value))
        written.add(path_of(name))
    _check_all_written(tree, written)


def _check_all_written(tree, written):
    leaves = {
        tuple(getattr(k, "key", None) for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    }
    missing = {path for path in leaves if path not in written and path[-1] != "positions"}
    assert not missing, missing


def zeros(factory):
    """Graph definition of `factory()`, pure dicts of its parameters and of the rest, all zero."""
    graphdef, params, rest = split(nnx.eval_shape(factory))
    floating = jnp.result_type(float)  # float64 where it is on.
    return graphdef, *jax.tree.map(lambda leaf: np.zeros(leaf.shape, floating), (params, rest))


def split(module):
    """Graph definition, pure dict of parameters, pure dict of the rest."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(rest)


def merge(graphdef, params, rest=None):
    """A module again, inside or outside jit."""
    return nnx.merge(graphdef, nnx.State(params), nnx.State(rest or {}))


class Golden:
    """A golden file in one precision, with its tolerance rule; keeps count of the arrays that were read."""

    def __init__(self, directory, name, precision="float32"):
        path = directory / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"{path} is missing")
        self.name, self.precision, self.directory = name, precision, directory
        self.arrays = np.load(path, allow_pickle=False)
        deviations = json.loads((directory / "f32_deviation.json").read_text())
        self.deviation = deviations.get(f"{name}.npz", {})
        self.meta = json.loads(str(self.arrays["meta_json"]))
        READ.add((name, "meta_json", precision))

    @property
    def files(self):
        """Names of all arrays; looking at one by name counts as reading it, this does not."""
        return self.arrays.files

    def __contains__(self, key):
        return key in self.arrays.files

    def __getitem__(self, key):
        READ.add((self.name, key, self.precision))
        return self.arrays[key]

    def input(self, key):
        """A stored input on the device, in the precision of the test; integers stay integers."""
        array = self[key]
        return jnp.asarray(array, self.precision if array.dtype.kind == "f" else None)

    def state(self, prefix):
        """Full arrays under `prefix/`, by torch name."""
        return {k[len(prefix) + 1 :]: self[k] for k in self.files if k.startswith(prefix + "/")}

    def allowed(self, key, want, *, floor):
        """The README's rule: the reference's own float32 error counts in float32 only."""
        scale = float(np.max(np.abs(want), initial=0.0))
        if self.precision == "float64":
            # Single numbers and what lies under f64/ are stored in double, all else is rounded to float32.
            return (1e-9 if np.asarray(want).dtype == np.float64 else 1e-6) * scale
        return max(10 * self.deviation.get(key, [0.0])[0], floor * scale)

    def check(self, key, got, *, floor=2e-5, want=None):
        """Passes within the rule for `key`; `want` overrides the array, `floor` is relative to its largest entry."""
        want = self[key] if want is None else want
        READ.add((self.name, key, self.precision))
        got = np.asarray(got)
        assert got.shape == np.shape(want), (key, got.shape, np.shape(want))
        assert got.dtype.kind != "f" or got.dtype == self.precision, (key, got.dtype, self.precision)
        error, allowed = _largest(np.abs(got.astype(np.float64) - want)), self.allowed(key, want, floor=floor)
        assert error <= allowed, (
            f"{key}: error {error:.3g}, allowed {allowed:.3g}, largest {_largest(np.abs(want)):.3g}"
        )

    def check_gradients(self, prefix, tree, *, floor=1e-4, only="", skip=()):
        """Compares every tensor under `prefix` with the leaf of `tree` at its place, in torch's layout.

        `skip` lists torch names that we have no leaf for; any other without one is an error. `floor` is relative
        to the largest entry of a full array, to the norm of a summarised one.
        """
        for name, want in self._tensors(prefix):
            if name.endswith("num_batches_tracked") or not name.startswith(only) or name in skip:
                continue
            got = to_torch(name, get(tree, path_of(name)))
            for what, error, allowed in self._errors(prefix, name, got, want, floor=floor):
                assert np.all(error <= allowed), (
                    f"{prefix}/{name}: {what} differs by {error.max():.3g} > {allowed:.3g}"
                )

    def check_parameters(self, prefix, tree, *, start, steps, rate, floor=2e-5, skip=()):
        """As `check_gradients`, for parameters after Adam-type steps from the tree `start`.

        Entries whose true gradient is about 0 move by up to the rate in a direction that rounding sets: of all
        entries together 99.9 % follow the rule, the others lie within 2 * steps * rate.
        """
        ratios = []
        for name, want in self._tensors(prefix):
            if name.endswith("num_batches_tracked") or name in skip:
                continue
            got, before = (to_torch(name, get(t, path_of(name))) for t in (tree, start))
            assert not np.array_equal(got, before), f"{prefix}/{name} did not move"
            for what, error, allowed in self._errors(prefix, name, got, want, floor=floor):
                if what == "norm":  # Says less than the entries, and the free ones move it.
                    continue
                assert error.max() <= 2 * steps * rate + allowed, f"{prefix}/{name}: {what} {error.max():.3g}"
                ratios.append(error.ravel() / allowed)
        ratios = np.concatenate(ratios)
        assert np.quantile(ratios, 0.999) <= 1, (
            f"{prefix}: {np.mean(ratios > 1):.2%} of the entries are further off than allowed"
        )

    def _tensors(self, prefix):
        """Torch name, and the full array `prefix/name` or the (norm, first 16 entries) of `prefix__{norm,first16}`."""
        if f"{prefix}__names" in self:
            names, norms, firsts = (self[f"{prefix}__{part}"] for part in ("names", "norm", "first16"))
            yield from zip(names.tolist(), zip(norms, firsts, strict=True), strict=True)
        else:
            yield from self.state(prefix).items()

    def _errors(self, prefix, name, got, want, *, floor):
        """What is compared, its absolute errors, and what is allowed."""
        got = np.asarray(got)
        assert got.dtype == self.precision, (name, got.dtype)
        got = got.astype(np.float64)
        if not isinstance(want, tuple):
            got, want = _without_key_bias(name, got), _without_key_bias(name, want)
            yield "array", np.abs(got - want), self.allowed(f"{prefix}/{name}", want, floor=floor)
            return
        norm, first = want
        flat = np.zeros(16)
        flat[: min(16, got.size)] = got.ravel()[:16]
        parts = [("first16", np.abs(flat - first))]
        if not name.endswith("qkv.bias"):  # Its key third is free.
            parts.append(("norm", np.abs(np.linalg.norm(got) - norm)))
        for part, error in parts:
            own = (
                10 * self.deviation.get(f"{prefix}__{part}", [0.0])[0] if self.precision == "float32" else 0.0
            )
            yield part, error, max(own, (floor if self.precision == "float32" else 1e-6) * norm)


def arrays_used(uses, goldens):
    """(file, array) pairs that the patterns of `USES` name."""
    found = []
    for name, patterns in uses.items():
        path = goldens / f"{name}.npz"
        if path.is_file():
            files = np.load(path, allow_pickle=False).files
            found += [(name, key) for key in files if any(fnmatch.fnmatchcase(key, p) for p in patterns)]
    return found


READ: set[tuple[str, str, str]] = set()
"""(file, array, precision) that some test has read; `conftest` compares it with what each module says it uses."""


def _largest(values):
    return float(np.max(values, initial=0.0))


def _without_key_bias(name, array):
    if not name.endswith("qkv.bias"):
        return array
    return np.concatenate([array[: len(array) // 3], array[2 * len(array) // 3 :]])
