"""What a PyTorch state dict holds: its tensors, its settings, and the sizes of the models that they make."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ecgjax.models import mae, resnet, vit
from ecgjax.weights.names import leaf_of
from ecgjax.weights.objects import Record

State = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class EcgSizes:
    """An ECG transformer; `pooling` is the one that the file itself decides, None where it leaves the choice."""

    width: int
    depth: int
    mlp_width: int
    channels: int
    patch_leads: int
    patch: int
    tokens: int
    pooling: str | None

    def __str__(self):
        return (
            f"width {self.width}, depth {self.depth}, patch {self.patch_leads} x {self.patch} of {self.channels} "
            f"channel(s), {self.tokens} tokens"
        )


@dataclasses.dataclass(frozen=True)
class DecoderSizes:
    """The decoder of masked pre-training, and the hidden widths of its cosine term's heads, None without them."""

    width: int
    depth: int
    projector_hidden: int | None
    predictor_hidden: int | None


@dataclasses.dataclass(frozen=True)
class CmrSizes:
    """A residual network as torchvision builds them."""

    block: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    channels: int

    @property
    def variant(self) -> str | None:
        """Its name, where it has one."""
        mine = {"block": self.block, "depths": self.depths, "widths": self.widths}
        return next((name for name, sizes in resnet.VARIANTS.items() if sizes == mine), None)


@dataclasses.dataclass(frozen=True)
class Heads:
    """Projection heads of both towers."""

    hidden: int
    projection: int


@dataclasses.dataclass(frozen=True)
class Readout:
    """The linear layer of a fine-tuned ECG encoder; behind a batch norm where it is that of linear probing."""

    outputs: int
    probe: bool


@dataclasses.dataclass(frozen=True)
class Found:
    """The models in a state dict; None where it has none of that kind."""

    ecg: EcgSizes | None
    decoder: DecoderSizes | None
    cmr: CmrSizes | None
    heads: Heads | None
    readout: Readout | None


def state_of(tree: Any, *, where: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a file by torch name, and the settings that it holds beside them (`args`).

    Known containers are {model: ...}, {state_dict: ...} and the bare dict. Prefixes of data-parallel training
    (`module.`) are taken off.
    """
    if not isinstance(tree, dict):
        raise ValueError(f"{where} holds a {type(tree).__name__}, not a dict of tensors.")
    state = next((tree[key] for key in ("model", "state_dict") if isinstance(tree.get(key), dict)), tree)
    strange = [str(key) for key, value in state.items() if not isinstance(value, np.ndarray)]
    if strange or not state:
        raise ValueError(
            f"{where} holds neither {{model: tensors}} nor {{state_dict: tensors}} nor tensors by name, but "
            f"{_some(strange or ['nothing'])}."
        )
    if all(str(name).startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    args = tree.get("args")
    return {str(k): v for k, v in state.items()}, dict(args.fields) if isinstance(args, Record) else {}


def inspect_state(state: State, *, where: str) -> Found:
    """Sizes of the models in `state`, from its shapes; a state dict of another model is an error."""
    leaves: dict[str, np.ndarray] = {}
    for name, value in state.items():
        leaf = leaf_of(name)
        if leaf in leaves:
            raise ValueError(f"{where}: two tensors belong to {leaf}; {name} is the second.")
        if leaf is not None:
            leaves[leaf] = value
    parts = (read(leaves, where) for read in (_ecg, _decoder, _cmr, _heads, _readout))
    found = Found(*parts)
    if found.ecg is None and found.cmr is None:
        raise ValueError(
            f"{where} holds {len(state)} tensors ({_some(state)}), and among them no encoder of ours: an ECG "
            f"transformer has patch_embed.proj.weight and blocks.0.attn.qkv.weight (or the same under "
            f"encoder_ecg.), a residual network encoder_imaging.0.weight or conv1.weight."
        )
    return found


def heads_of(sizes: EcgSizes | DecoderSizes, given: int | None, *, where: str) -> int:
    """Attention heads, which no shape tells: `given`, or those of the published model of this width and depth."""
    decoder = isinstance(sizes, DecoderSizes)
    known = {(v["width"], v["depth"]): v["heads"] for v in _table(sizes).values()}
    heads = given or known.get((sizes.width, sizes.depth))
    flag = "--decoder_heads" if decoder else "--heads"
    if heads is None:
        raise ValueError(
            f"{where}: {'decoder' if decoder else 'encoder'} of width {sizes.width} and depth {sizes.depth} is none "
            f"of the published ones ({nearest(sizes)}), and shapes do not tell the attention heads; give {flag}=N."
        )
    if sizes.width % heads:
        raise ValueError(f"{flag}={heads} does not divide the width {sizes.width}.")
    return heads


def nearest(sizes: EcgSizes | DecoderSizes) -> str:
    """The published variant that is closest in width, then depth, in words."""

    def distance(item):
        v = item[1]
        return abs(np.log(v["width"] / max(sizes.width, 1))) + 0.5 * abs(
            np.log(v["depth"] / max(sizes.depth, 1))
        )

    name, v = min(_table(sizes).items(), key=distance)
    return f"nearest is {name}: width {v['width']}, depth {v['depth']}, heads {v['heads']}"


def _table(sizes: EcgSizes | DecoderSizes) -> Mapping[str, Mapping[str, Any]]:
    return mae.VARIANTS if isinstance(sizes, DecoderSizes) else vit.VARIANTS


def _ecg(leaves: State, where: str) -> EcgSizes | None:
    at = "ecg/encoder"
    patch, qkv = leaves.get(f"{at}/patch_embed/kernel"), leaves.get(f"{at}/blocks/0/attention/qkv/kernel")
    if patch is None or qkv is None:
        if patch is None and qkv is None:
            return None
        raise ValueError(
            f"{where}: {'patch_embed.proj.weight' if patch is None else 'blocks.0.attn.qkv.weight'} is missing."
        )
    positions, hidden = leaves.get(f"{at}/positions"), leaves.get(f"{at}/blocks/0/mlp/fc1/kernel")
    for name, value, axes in (
        ("patch_embed.proj.weight", patch, 4),
        ("pos_embed", positions, 3),
        ("blocks.0.mlp.fc1.weight", hidden, 2),
    ):
        if value is None or value.ndim != axes:
            shape = "missing" if value is None else f"of shape {value.shape}"
            raise ValueError(f"{where}: {name} is {shape}; an ECG transformer has it with {axes} axes.")
    pooling = "attention" if f"{at}/attention_pool/qkv/kernel" in leaves else None
    if pooling is None and f"{at}/pool_norm/scale" in leaves:
        pooling = "mean"
    width, channels, patch_leads, length = patch.shape
    sizes = EcgSizes(
        width=width,
        depth=_depth(leaves, f"{at}/blocks"),
        mlp_width=len(hidden),
        channels=channels,
        patch_leads=patch_leads,
        patch=length,
        tokens=positions.shape[1] - 1,
        pooling=pooling,
    )
    if channels != 1:
        raise ValueError(
            f"{where}: the patches have {channels} channels ({sizes}); an ECG has one, with leads as rows. A "
            f"transformer for images? Published ECG encoders: {nearest(sizes)}, patch 1 x 100 of 1 channel."
        )
    return sizes


def _decoder(leaves: State, where: str) -> DecoderSizes | None:
    embed = leaves.get("ecg/decoder/embed/kernel")
    if embed is None:
        return None
    projector, predictor = (leaves.get(f"ecg/{name}/fc1/kernel") for name in ("projector", "predictor"))
    if (projector is None) != (predictor is None):
        raise ValueError(
            f"{where}: one of projector.* and predictor.* is missing; the cosine term needs both."
        )
    return DecoderSizes(
        width=len(embed),
        depth=_depth(leaves, "ecg/decoder/blocks"),
        projector_hidden=None if projector is None else len(projector),
        predictor_hidden=None if predictor is None else len(predictor),
    )


def _cmr(leaves: State, where: str) -> CmrSizes | None:
    at = "cmr/encoder"
    first = leaves.get(f"{at}/conv1/kernel")
    if first is None:
        return None
    if first.ndim != 4 or first.shape[2:] != (7, 7) or f"{at}/norm1/mean" not in leaves:
        raise ValueError(
            f"{where}: the first convolution is {first.shape}, batch norm "
            f"{'after it' if f'{at}/norm1/mean' in leaves else 'missing'}; a residual network starts with 64 x "
            f"channels x 7 x 7 and batch norm. Published: resnet18 and resnet50."
        )
    stages = _depth(leaves, f"{at}/stages")
    kernels = [leaves.get(f"{at}/stages/{i}/0/conv1/kernel") for i in range(stages)]
    if not kernels or any(kernel is None for kernel in kernels):
        raise ValueError(
            f"{where}: a residual network without stages, or with one that lacks its first block."
        )
    return CmrSizes(
        block="bottleneck" if f"{at}/stages/0/0/conv3/kernel" in leaves else "basic",
        depths=tuple(_depth(leaves, f"{at}/stages/{i}") for i in range(stages)),
        widths=tuple(len(kernel) for kernel in kernels),
        channels=first.shape[1],
    )


def _heads(leaves: State, where: str) -> Heads | None:
    kernels = [leaves.get(f"{m}/head/fc2/kernel") for m in ("ecg", "cmr")]
    if all(kernel is None for kernel in kernels):
        return None
    shapes = {kernel.shape for kernel in kernels if kernel is not None}
    if len(shapes) > 1:
        raise ValueError(f"{where}: projection heads of different sizes {sorted(shapes)}; ours share theirs.")
    projection, hidden = shapes.pop()
    return Heads(hidden=hidden, projection=projection)


def _readout(leaves: State, where: str) -> Readout | None:
    kernel = leaves.get("ecg/head/linear/kernel")
    return None if kernel is None else Readout(len(kernel), "ecg/head/norm/mean" in leaves)


def _depth(leaves: State, at: str) -> int:
    """Number of blocks under `at`, from the largest index."""
    numbers = [int(m[1]) for m in (re.match(rf"{re.escape(at)}/(\d+)/", leaf) for leaf in leaves) if m]
    return 1 + max(numbers, default=-1)


def _some(names) -> str:
    names = list(map(str, names))
    return ", ".join(name[:60] for name in names[:4]) + (", ..." if len(names) > 4 else "")
