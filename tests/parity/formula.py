"""Weights by formula, torch names to our tree, and the tolerance of the golden arrays."""

import json
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

_RENAMES = (
    (r"^encoder_imaging\.0\.", "image.conv1."),
    (r"^encoder_imaging\.1\.", "image.norm1."),
    (r"^encoder_imaging\.([4-7])\.", lambda m: f"image.stages.{int(m[1]) - 4}."),
    (r"^projection_head_imaging\.", "image_head."),
    (r"^projection_head_ecg\.", "ecg_head."),
    (r"^encoder_ecg\.", "ecg."),
    (r"layers\.0\.", "fc1."),
    (r"layers\.2\.", "fc2."),
    (r"^layer([1-4])\.", lambda m: f"stages.{int(m[1]) - 1}."),
    (r"\bbn([1-3])\.", r"norm\1."),
    (r"downsample\.0\.", "shortcut.conv."),
    (r"downsample\.1\.", "shortcut.norm."),
    (r"^decoder_(embed|blocks|norm|pred)\b", r"decoder.\1"),
    (r"decoder\.pred\.", "decoder.predict."),
    (r"^mask_token", "decoder.mask_token"),
    (r"\battn\.", "attention."),
    (r"\bproj\.(?=weight|bias)", "projection."),
    (r"patch_embed\.projection\.", "patch_embed."),
    (r"attention_pool\.in_proj_", "attention_pool.qkv."),
    (r"out_proj\.", "projection."),
    (r"\bfc_norm\.", "pool_norm."),
    (r"\bpos_embed$", "positions"),
    (r"running_", ""),
)


def path_of(name: str) -> tuple:
    """Where the torch tensor `name` lives in our tree; indices are ints."""
    ours = name
    for pattern, replacement in _RENAMES:
        ours = re.sub(pattern, replacement, ours)
    parts = [int(part) if part.isdigit() else part for part in ours.split(".")]
    if parts[-1] == "weight":
        parts[-1] = "scale" if re.search(r"norm\d?$", str(parts[-2])) else "kernel"
    return tuple(parts)


def to_torch(name: str, array) -> np.ndarray:
    """Our array in torch's layout."""
    array = np.asarray(array)
    if "patch_embed" in name and array.ndim == 2:
        return array.T[:, None, None, :]
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T if array.ndim == 2 else array


def from_torch(name: str, array) -> np.ndarray:
    """Reverses `to_torch`."""
    if "patch_embed" in name and array.ndim == 4:
        return array[:, 0, 0].T
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array


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


def get(tree, path):
    for part in path:
        tree = tree[part]
    return tree


def put(tree, path, value):
    for part in path[:-1]:
        tree = tree[part]
    assert np.shape(tree[path[-1]]) == np.shape(value), (path, np.shape(tree[path[-1]]), np.shape(value))
    tree[path[-1]] = jnp.asarray(value)


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
    return graphdef, *jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (params, rest))


def split(module):
    """Graph definition, pure dict of parameters, pure dict of the rest."""
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(rest)


def merge(graphdef, params, rest=None):
    """A module again, inside or outside jit."""
    return nnx.merge(graphdef, nnx.State(params), nnx.State(rest or {}))


class Golden:
    """A golden file with its tolerance rule; remembers the worst ratio of error to what is allowed."""

    def __init__(self, directory, name):
        self.arrays = np.load(directory / f"{name}.npz", allow_pickle=False)
        deviations = json.loads((directory / "f32_deviation.json").read_text())
        self.deviation = deviations.get(f"{name}.npz", {})
        self.meta = json.loads(str(self.arrays["meta_json"]))

    def __getitem__(self, key):
        return self.arrays[key]

    def state(self, prefix):
        """Full arrays under `prefix/`, by torch name."""
        return {k[len(prefix) + 1 :]: self.arrays[k] for k in self.arrays.files if k.startswith(prefix + "/")}

    def check(self, key, got, *, floor=2e-5, want=None):
        """Passes within max(10 x the reference's own float32 error, `floor` x the largest entry)."""
        want = self.arrays[key] if want is None else want
        deviation = self.deviation.get(key, [0.0])[0]
        scale = float(np.max(np.abs(want)))
        allowed = max(10 * deviation, floor * scale)
        error = float(np.max(np.abs(np.asarray(got, np.float64) - want)))
        report.append((key, error / max(scale, 1e-30), allowed / max(scale, 1e-30)))
        assert np.shape(got) == np.shape(want), (key, np.shape(got), np.shape(want))
        assert error <= allowed, f"{key}: error {error:.3g}, allowed {allowed:.3g}, scale {scale:.3g}"

    def check_gradients(self, prefix, gradients, *, floor=1e-4, only=""):
        """Full arrays `prefix/name` or summaries `prefix__{names,norm,first16}`, in torch layout.

        `floor` is relative to the largest entry of a full array, to the norm of a summarised one.
        """
        if f"{prefix}__names" not in self.arrays:
            for name, want in self.state(prefix).items():
                if name == "pos_embed" and "positions" not in gradients:
                    continue
                got = to_torch(name, get(gradients, path_of(name)))
                got, want = _without_key_bias(name, got), _without_key_bias(name, want)
                self.check(f"{prefix}/{name}", got, floor=floor, want=want)
            return
        parts = ("names", "norm", "first16")
        names, norms, firsts = (self.arrays[f"{prefix}__{part}"] for part in parts)
        slack_norm, slack_first = (10 * self.deviation[f"{prefix}__{part}"][0] for part in parts[1:])
        for name, norm, first in zip(names, norms, firsts, strict=True):
            if name.endswith("num_batches_tracked") or not name.startswith(only):
                continue
            got = to_torch(name, get(gradients, path_of(name))).astype(np.float64)
            flat = np.zeros(16)
            flat[: min(16, got.size)] = got.ravel()[:16]
            for error, slack in (
                (abs(np.linalg.norm(got) - norm), slack_norm),
                (np.abs(flat - first).max(), slack_first),
            ):
                allowed = max(slack, floor * norm)
                report.append((f"{prefix}/{name}", error / norm, allowed / norm))
                assert error <= allowed, f"{prefix}/{name}: error {error:.3g}, allowed {allowed:.3g}"


report = []


def _without_key_bias(name, array):
    if not name.endswith("qkv.bias"):
        return array
    return np.concatenate([array[: len(array) // 3], array[2 * len(array) // 3 :]])
