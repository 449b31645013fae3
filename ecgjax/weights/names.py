"""Names and layouts of the published PyTorch weights against ours, in both directions.

A torch name has two places: a path within a model (`path_of`), and the leaf of an objective's trees (`leaf_of`), such
as `ecg/encoder/blocks/0/norm1/scale`; the latter is what `trees.flatten` calls it. Names known are those of masked
pre-training (`blocks.*`, `decoder_*`, `projector.*`), of fine-tuning (`fc_norm`, `attention_pool`, `head`), of
torchvision's residual networks, and of the contrastive model's full checkpoint (`encoder_ecg.*`, `encoder_imaging.*`,
`projection_head_*`).
"""

import re

import numpy as np
from jaxtyping import Array

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
    (r"^(projector|predictor)\.([0134])\.", lambda m: f"{m[1]}.{_MLP_HEAD[m[2]]}."),
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
_MLP_HEAD = {"0": "fc1", "1": "norm1", "3": "fc2", "4": "norm2"}

_ROOTS = {
    "image": "cmr/encoder",
    "image_head": "cmr/head",
    "ecg": "ecg/encoder",
    "ecg_head": "ecg/head",
    "decoder": "ecg/decoder",
    "projector": "ecg/projector",
    "predictor": "ecg/predictor",
    **{name: f"cmr/encoder/{name}" for name in ("conv1", "norm1", "stages")},
    **{
        name: f"ecg/encoder/{name}"
        for name in (
            "patch_embed",
            "cls_token",
            "positions",
            "blocks",
            "norm",
            "pool_norm",
            "attention_pool",
        )
    },
}

_TORCH_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_ECG_BACK = (
    (r"^positions$", "pos_embed"),
    (r"^pool_norm\.", "fc_norm."),
    (r"^attention_pool\.qkv\.", "attention_pool.in_proj_"),
    (r"^attention_pool\.projection\.", "attention_pool.out_proj."),
    (r"^patch_embed\.", "patch_embed.proj."),
    (r"\battention\.projection\.", "attn.proj."),
    (r"\battention\.", "attn."),
)
_IMAGE_BACK = (
    (r"\bnorm([1-3])\.", r"bn\1."),
    (r"shortcut\.conv\.", "downsample.0."),
    (r"shortcut\.norm\.", "downsample.1."),
    (r"^conv1\.", "0."),
    (r"^bn1\.", "1."),
    (r"^stages\.([0-3])\.", lambda m: f"{int(m[1]) + 4}."),
)
_DECODER_BACK = (
    (r"^(?!mask_token)", "decoder_"),
    (r"^decoder_predict\.", "decoder_pred."),
    (r"\battention\.projection\.", "attn.proj."),
    (r"\battention\.", "attn."),
)
_HEAD_BACK = ((r"^fc1\.", "layers.0."), (r"^fc2\.", "layers.2."))
_MLP_BACK = tuple((rf"^{ours}\.", f"{number}.") for number, ours in _MLP_HEAD.items())
_PROBE_BACK = ((r"^norm\.", "head.0."), (r"^linear\.", "head.1."))


def path_of(name: str) -> tuple[str | int, ...]:
    """Where the torch tensor `name` lives within its model; indices are ints."""
    ours = name
    for pattern, replacement in _RENAMES:
        ours = re.sub(pattern, replacement, ours)
    parts = [int(part) if part.isdigit() else part for part in ours.split(".")]
    if parts[-1] == "weight":
        norm = len(parts) > 1 and re.search(r"norm\d?$", str(parts[-2]))
        parts[-1] = "scale" if norm else "kernel"
    return tuple(parts)


def leaf_of(name: str) -> str | None:
    """Path of the torch tensor `name` in the trees of an objective; None where we have no place for it."""
    first, *rest = path_of(name)
    if first == "ecg" and rest[:1] == ["head"]:  # The contrastive model keeps an unused classifier.
        return None
    if first == "classifier":
        return "/".join(["online", *map(str, rest[1:])])
    if first == "head":  # Of fine-tuning, or of linear probing: batch norm, linear.
        number = rest.pop(0) if len(rest) > 1 else 1
        return "/".join(["ecg/head", "norm" if number == 0 else "linear", *map(str, rest)])
    return "/".join([_ROOTS[first], *map(str, rest)]) if first in _ROOTS else None


def name_of(leaf: str, *, prefixed: bool = False, probe: bool = False) -> str | None:
    """The torch name of a leaf of an objective's trees; None where the published files have none.

    ECG encoders have no prefix in files of their own and `encoder_ecg.` in a checkpoint of both towers (`prefixed`).
    With `probe` the head of the ECG is that of linear probing.
    """
    parts = leaf.split("/")
    tree, local = "/".join(parts[:2]), ".".join([*parts[2:-1], _TORCH_LEAVES.get(parts[-1], parts[-1])])
    if parts[0] == "online":
        return f"classifier.model.{_TORCH_LEAVES.get(parts[1], parts[1])}"
    if tree == "ecg/head" and parts[2] in ("linear", "norm"):
        return _rename(local, _PROBE_BACK) if probe else local.replace("linear.", "head.")
    known = {
        "ecg/encoder": ("encoder_ecg." if prefixed else "", _ECG_BACK),
        "ecg/decoder": ("", _DECODER_BACK),
        "ecg/projector": ("projector.", _MLP_BACK),
        "ecg/predictor": ("predictor.", _MLP_BACK),
        "ecg/head": ("projection_head_ecg.", _HEAD_BACK),
        "cmr/encoder": ("encoder_imaging.", _IMAGE_BACK),
        "cmr/head": ("projection_head_imaging.", _HEAD_BACK),
    }
    if tree not in known:
        return None
    prefix, rules = known[tree]
    return prefix + _rename(local, rules)


def to_torch(name: str, array: np.ndarray | Array, *, patch_leads: int = 1, channels: int = 1) -> np.ndarray:
    """Our array in torch's layout: linear `[out, in]`, convolution `[out, in, y, x]`.

    The patch embedding is a linear layer of ours and a convolution of torch's, over `channels` and `patch_leads`.
    """
    array = np.asarray(array)
    if "patch_embed" in name and array.ndim == 2:
        return array.T.reshape(array.shape[1], channels, patch_leads, -1)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T if array.ndim == 2 else array


def from_torch(name: str, array: np.ndarray | Array) -> np.ndarray | Array:
    """Reverses `to_torch`."""
    if "patch_embed" in name and array.ndim == 4:
        return array.reshape(len(array), -1).T
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array


def _rename(name, rules):
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
