"""Encoders as a config asks for them, sized for the data they will read."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from flax import nnx

from ecgjax.core import config as configs
from ecgjax.core.spec import InputSpec
from ecgjax.models import ENCODERS, mae, resnet, stft_cnn, vit

Modality = Literal["ecg", "cmr"]
VARIANTS = {
    "vit": vit.VARIANTS,
    "mae": mae.VARIANTS,
    "resnet": resnet.VARIANTS,
    "stft_cnn": stft_cnn.VARIANTS,
    "stft_resnet": stft_cnn.RESNET_VARIANTS,
    "stft_vit": vit.VARIANTS,
}


def with_variant(section: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Fills in the sizes of a published variant where `section` names one; other fields override them."""
    fields = dict(section)
    variant = fields.pop("variant", None)
    if variant is None:
        return fields
    known = VARIANTS.get(fields.get("name"), {})
    if variant in vit.REFUSED_VARIANTS:
        raise ValueError(f"{path}.variant: {variant} cannot be built: {vit.REFUSED_VARIANTS[variant]}.")
    if variant not in known:
        raise ValueError(f"{path}.variant: unknown {variant!r}; choose from {', '.join(known)}.")
    return {**known[variant], **fields}


def encoder_factory(
    section: Mapping[str, Any], modality: Modality, spec: InputSpec, crop: int, path: str
) -> Callable[[nnx.Rngs], nnx.Module]:
    """Returns the function that draws the encoder of `modality`.

    A Vit reads ECG, an `stft_*` the time-frequency image of one lead, a ResNet or a UNet CMR; leads, length, image
    and channels come from the InputSpec and the crop. `section.encoder` of a `leadwise` is the section of any encoder
    of single leads.
    `section.frames` of a CMR encoder names the phases that it reads, in its order: it is given whole images, after
    augmentation, and leaves the others aside. So ("ES", "ED") is what the reference calls deleting the
    segmentation.
    """
    if getattr(spec, modality) is None:
        raise ValueError(
            f"{path} needs {modality.upper()}, which the data set lacks; prepare one that has it."
        )
    if modality == "ecg":
        check_crop(section, crop, path)
        given = {"leads": len(spec.ecg.leads), "length": crop}
        known = {"image": spec.ecg.image, "lead_names": spec.ecg.leads}
        if section.get("name") == "leadwise":
            section = _with_shared(section, spec, crop, path)
    else:
        section = dict(section)
        given, known = frames_read(section.pop("frames", None), spec.cmr.frames, path), {}
    section = with_variant(section, path)
    bound = configs.bind(ENCODERS, section, path, **given, **known)
    missing = [key for key in given if key not in bound.keywords]
    if missing:
        raise ValueError(
            f"{path}.name: {section['name']} does not read {modality.upper()}; it takes no {missing[0]}."
        )
    if "image" in bound.keywords and bound.keywords["image"] is None:
        raise ValueError(
            f"{path}.name: {section['name']} reads time-frequency images, for which the data set has no settings; "
            f"prepare one with config.ecg.image."
        )
    configs.require(bound, path, open_arguments=("rngs",))

    def make(rngs: nnx.Rngs) -> nnx.Module:
        with located(path):
            return bound(rngs=rngs)

    return make


def _with_shared(section: Mapping[str, Any], spec: InputSpec, crop: int, path: str) -> dict[str, Any]:
    """The section of a `leadwise`, in which the shared encoder's is replaced by the function that draws it."""
    shared, ecg = section.get("encoder"), spec.ecg
    if not isinstance(shared, Mapping) or shared.get("name") == "leadwise":
        raise ValueError(
            f"{path}.encoder: expected the section of an encoder of single leads, such as {{'name': 'stft_cnn'}}, got "
            f"{shared!r}."
        )
    if not ecg.beats or ecg.image is None:
        raise ValueError(
            f"{path}.name: leadwise cuts beats of config.ecg.image.span samples out of recordings, of which the data "
            f"set has {'no image' if ecg.beats else 'no beats'}; prepare it with config.ecg.beats and config.ecg.image."
        )
    if crop != ecg.length:
        raise ValueError(
            f"config.data.crop is {crop}; {path}.name leadwise finds beats in whole recordings: set it to "
            f"{ecg.length}."
        )
    one = dataclasses.replace(ecg, leads=ecg.leads[:1], length=ecg.image.span, beats=0)
    make = encoder_factory(shared, "ecg", InputSpec(ecg=one), ecg.image.span, f"{path}.encoder")
    return {**section, "encoder": make}


def all_but_last_block(make: Callable[[nnx.Rngs], nnx.Module], path: str) -> str:
    """Regex of those parameters of the encoder at `path` that partial fine-tuning leaves as they are."""
    last = nnx.eval_shape(lambda: make(nnx.Rngs(0))).last_block
    return rf"^{path}/(?!{'|'.join(last)})"


@contextlib.contextmanager
def located(path: str):
    """Says where in the config a refused value came from: models know the rule that was broken, no more."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith("config."):  # It says where by itself, as that of a nested encoder.
            raise
        raise ValueError(f"{path}: {error}") from None


def frames_read(names: Sequence[str] | None, frames: Sequence[str], path: str) -> dict[str, Any]:
    """Number of channels of an encoder that reads the phases `names` out of `frames`, and their places."""
    if names is None:
        return {"channels": len(frames), "reads": None}
    if isinstance(names, str) or not names or len(set(names)) < len(names) or not set(names) <= set(frames):
        raise ValueError(
            f"{path}.frames is {names!r}; it lists different phases among {', '.join(frames)}, or is left out for all."
        )
    return {"channels": len(names), "reads": tuple(frames.index(name) for name in names)}


def head_dtype(section: Mapping[str, Any]) -> str:
    """The precision of a head on this encoder: float32 on bfloat16 too, since heads are small and losses exact."""
    return "float64" if section.get("dtype") == "float64" else "float32"


def head_norm_group(section: Mapping[str, Any]) -> int | None:
    """Examples that batch norm of a head on this encoder normalises together: as many as the encoder's own."""
    return section.get("norm_group")


def check_crop(section: Mapping[str, Any], crop: int, path: str) -> None:
    """Raises where the ECG crop does not split into whole patches."""
    patch = section.get("patch")
    if isinstance(patch, int) and patch > 0 and crop % patch:
        below, above = crop // patch * patch, -(-crop // patch) * patch
        choices = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"config.data.crop is {crop}, no multiple of {path}.patch = {patch}; take a crop of {choices}, or "
            f"another patch."
        )
