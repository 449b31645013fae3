"""Encoders as a config asks for them, sized for the data they will read."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from flax import nnx

from ecgjax.core import config as configs
from ecgjax.core.spec import InputSpec
from ecgjax.models import ENCODERS, mae, resnet, vit

Modality = Literal["ecg", "cmr"]
VARIANTS = {"vit": vit.VARIANTS, "mae": mae.VARIANTS, "resnet": resnet.VARIANTS}


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

    A Vit reads ECG, a ResNet CMR; leads, length and channels come from the InputSpec and the crop.
    """
    if getattr(spec, modality) is None:
        raise ValueError(
            f"{path} needs {modality.upper()}, which the data set lacks; prepare one that has it."
        )
    if modality == "ecg":
        check_crop(section, crop, path)
        given = {"leads": len(spec.ecg.leads), "length": crop}
    else:
        given = {"channels": len(spec.cmr.frames)}
    section = with_variant(section, path)
    bound = configs.bind(ENCODERS, section, path, **given)
    missing = [key for key in given if key not in bound.keywords]
    if missing:
        raise ValueError(
            f"{path}.name: {section['name']} does not read {modality.upper()}; it takes no {missing[0]}."
        )
    configs.require(bound, path, open_arguments=("rngs",))

    def make(rngs: nnx.Rngs) -> nnx.Module:
        try:
            return bound(rngs=rngs)
        except ValueError as error:  # Models know the rule that was broken, not where the value came from.
            raise ValueError(f"{path}: {error}") from None

    return make


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
