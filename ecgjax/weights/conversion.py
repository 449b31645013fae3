"""From the sizes of published weights to the config, InputSpec and objective of a workdir."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ecgjax.core.spec import InputSpec
from ecgjax.formats.recording import LEADS
from ecgjax.signals.input_specs import cmr_spec, ecg_spec
from ecgjax.weights.fit import matching_frequencies
from ecgjax.weights.states import CmrSizes, DecoderSizes, EcgSizes, Found, State, heads_of

PAPER_ECG = {"baseline_lambda": 1e7, "clip_sigma": 4.0, "normalise": "group"}
"""How the ECG of the published weights were conditioned, at 500 Hz; the rest are defaults."""
PAPER_CMR = {"min_slices": 1}
_PAPER_SIZE, _PAPER_PIXEL_MM = 210, 1.8
_COSINE_WEIGHT = 0.1
"""Default of the release that has heads of a cosine term."""
_POOLINGS = ("mean", "attention", "cls", "mean_of_normed")


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What no file of weights says, as the user gave it; None follows the file or the paper."""

    pooling: str | None = None
    leads: Sequence[str] | None = None
    rate_hz: float = 500.0
    length: int = 5000
    crop: int | None = None
    heads: int | None = None
    decoder_heads: int | None = None
    spec: InputSpec | None = None

    def __post_init__(self):
        if self.pooling is not None and self.pooling not in _POOLINGS:
            raise ValueError(f"--pooling={self.pooling}: unknown; choose from {', '.join(_POOLINGS)}.")


@dataclasses.dataclass(frozen=True)
class Target:
    """What the weights become: InputSpec, crop, objective section, and rows of tokens."""

    spec: InputSpec
    crop: int
    objective: Mapping[str, Any]
    rows: int
    evaluators: Mapping[str, Any]


def decide(found: Found, state: State, args: Mapping[str, Any], wishes: Wishes, *, where: str) -> Target:
    """Decides on an objective and its sizes; `args` are settings that the file holds, such as `input_size`."""
    ecg, cmr = found.ecg, found.cmr
    spec, crop, rows = InputSpec(), 1, 1
    sections: dict[str, Any] = {}
    if ecg is not None:
        leads = _leads(ecg, args, wishes, where)
        rows, crop = _grid(ecg, len(leads), wishes, where)
        spec = dataclasses.replace(spec, ecg=_ecg_spec(leads, crop, wishes))
        sections["ecg"] = _ecg_section(found, state, rows, crop, wishes, where)
    elif wishes.pooling:
        raise ValueError(f"--pooling={wishes.pooling} is for an ECG encoder; {where} has none.")
    if cmr is not None:
        spec = dataclasses.replace(spec, cmr=_cmr_spec(cmr, wishes, where))
        sections["cmr"] = _cmr_section(cmr)
    objective = _objective(found, sections, state, rows, args, wishes, where)
    evaluators: dict[str, Any] = {"linear_probe": {"inputs": [f"{m}/embedding" for m in sections]}}
    if objective["name"] == "masked":
        evaluators["reconstruction"] = {"examples": 6}
    if objective["name"] == "cross_modal":
        evaluators["retrieval"] = {}
    return Target(spec, crop, objective, rows, evaluators)


def _objective(found: Found, sections, state: State, rows, args, wishes: Wishes, where) -> dict[str, Any]:
    decoder = found.decoder
    if found.heads is not None and len(sections) == 2:
        sizes = {"hidden": found.heads.hidden, "projection": found.heads.projection}
        return {"name": "cross_modal", **sections, **sizes}
    if (
        decoder is None
        or "ecg" not in sections
        or sections["ecg"]["pooling"] not in ("cls", "mean_of_normed")
    ):
        return {"name": "encoder", **sections, **_readout(found, sections)}
    section: dict[str, Any] = {"width": decoder.width, "depth": decoder.depth}
    section["heads"] = heads_of(decoder, wishes.decoder_heads, where=where)
    if "decoder_pos_embed" in state:  # Within rounding of both tables, or `fit` refuses it.
        section["frequencies"] = matching_frequencies(state["decoder_pos_embed"], rows=rows) or "float64"
    objective = {"name": "masked", "encoder": sections["ecg"], "decoder": section}
    floats = {name: value for name, value in args.items() if isinstance(value, float)}
    objective |= {name: floats[name] for name in ("mask_ratio", "ncc_weight") if name in floats}
    if decoder.projector_hidden is not None:  # At weight 0 there would be no place for these heads.
        objective["cosine_weight"] = floats.get("cos_weight") or _COSINE_WEIGHT
        objective["projector_hidden"] = decoder.projector_hidden
        objective["predictor_hidden"] = decoder.predictor_hidden
    return objective


def _readout(found: Found, sections) -> dict[str, Any]:
    """The readout of a fine-tuned encoder, where tokens are pooled as it was trained on."""
    own = found.ecg and (found.ecg.pooling or "cls")
    if found.readout is None or "ecg" not in sections or sections["ecg"]["pooling"] != own:
        return {}
    # The reference applies the norm of pooled tokens a second time in front of its readout.
    mode, twice = "probe" if found.readout.probe else "full", own != "cls"
    return {"outputs": found.readout.outputs, "mode": mode, "norm_twice": twice}


def _leads(ecg: EcgSizes, args: Mapping[str, Any], wishes: Wishes, where: str) -> tuple[str, ...]:
    size = args.get("input_size")
    known = size[-2] if isinstance(size, list | tuple) and len(size) == 3 else None
    if wishes.spec is not None:
        if wishes.spec.ecg is None:
            raise ValueError(f"--data holds no ECG, {where} an ECG encoder.")
        leads = wishes.spec.ecg.leads
    else:
        leads = tuple(wishes.leads or LEADS)
    if known is not None and known != len(leads):
        raise ValueError(
            f"{where} was trained on {known} leads (args.input_size {tuple(size)}), here are {len(leads)}: "
            f"{', '.join(leads)}; name them in its order as --leads=I,II,..."
        )
    if len(leads) % ecg.patch_leads:
        raise ValueError(
            f"{where}: patches of {ecg.patch_leads} leads do not divide {len(leads)} leads; give --leads."
        )
    return leads


def _grid(ecg: EcgSizes, leads: int, wishes: Wishes, where: str) -> tuple[int, int]:
    """Rows of tokens, and the crop: as long as the positions reach, unless another is wished for."""
    rows = leads // ecg.patch_leads
    if ecg.tokens % rows:
        raise ValueError(
            f"{where}: {ecg.tokens} positions are no whole number of columns for {rows} rows ({leads} leads, patches "
            f"of {ecg.patch_leads}); give --leads as the model was trained on."
        )
    crop = wishes.crop or _reach(ecg, rows)
    if crop % ecg.patch:
        raise ValueError(f"--crop={crop} is no multiple of the patch of {ecg.patch} samples.")
    return rows, crop


def _ecg_spec(leads, crop, wishes: Wishes):
    spec = wishes.spec.ecg if wishes.spec else ecg_spec(PAPER_ECG, leads, wishes.rate_hz, wishes.length)
    if crop > spec.length:
        raise ValueError(
            f"a crop of {crop} samples is longer than the ECG, {spec.length}; give a smaller --crop (positions are "
            f"then resized)."
        )
    return spec


def _ecg_section(found: Found, state: State, rows, crop, wishes: Wishes, where) -> dict[str, Any]:
    ecg = found.ecg
    pooling = wishes.pooling or ecg.pooling or ("mean_of_normed" if found.decoder else "mean")
    table = next(value for name, value in state.items() if name.rpartition("encoder_ecg.")[2] == "pos_embed")
    frequencies = matching_frequencies(table, rows=rows) if crop == _reach(ecg, rows) else None
    # Nothing of the file is lost: what is not bit by bit a table of ours is kept as a parameter.
    positions = (
        {"positions": "fixed", "frequencies": frequencies} if frequencies else {"positions": "learnable"}
    )
    return {
        "name": "vit",
        "width": ecg.width,
        "depth": ecg.depth,
        "heads": heads_of(ecg, wishes.heads, where=where),
        "patch": ecg.patch,
        "patch_leads": ecg.patch_leads,
        "mlp_ratio": ecg.mlp_width / ecg.width,
        "pooling": pooling,
        **positions,
    }


def _reach(ecg: EcgSizes, rows: int) -> int:
    """Samples that the positions reach over."""
    return ecg.tokens // rows * ecg.patch


def _cmr_spec(cmr: CmrSizes, wishes: Wishes, where: str):
    if wishes.spec is not None and wishes.spec.cmr is None:
        raise ValueError(f"--data holds no CMR, {where} a CMR encoder.")
    spec = wishes.spec.cmr if wishes.spec else cmr_spec(PAPER_CMR, _PAPER_SIZE, _PAPER_SIZE, _PAPER_PIXEL_MM)
    if cmr.channels != len(spec.frames):
        raise ValueError(
            f"{where}: the image encoder reads {cmr.channels} channels, the images have {len(spec.frames)} frames "
            f"({', '.join(spec.frames)})."
        )
    return spec


def _cmr_section(cmr: CmrSizes) -> dict[str, Any]:
    if cmr.variant:
        return {"name": "resnet", "variant": cmr.variant}
    return {"name": "resnet", "block": cmr.block, "depths": list(cmr.depths), "widths": list(cmr.widths)}


def describe(found: Found, *, where: str) -> str:
    """What was found, in words."""
    parts = []
    if found.ecg:
        parts.append(f"ECG encoder of {found.ecg}")
    if isinstance(found.decoder, DecoderSizes):
        parts.append(f"decoder of width {found.decoder.width}, depth {found.decoder.depth}")
    if found.cmr:
        name = found.cmr.variant or f"residual network {found.cmr.depths}"
        parts.append(f"CMR encoder {name} of {found.cmr.channels} channels")
    if found.readout:
        parts.append(f"readout of {found.readout.outputs} outputs")
    if found.heads:
        parts.append(f"projection heads to {found.heads.projection}")
    return f"{where}: " + "; ".join(parts)
