"""InputSpecs as a preparation config asks for them, every setting of the conditioning written out."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ecgjax.core.spec import CmrSpec, EcgSpec, ImageSpec
from ecgjax.signals import cmr as cmr_signals
from ecgjax.signals import ecg as ecg_signals


def ecg_spec(
    conditioning: Mapping[str, Any] | None,
    leads: Sequence[str],
    rate_hz: float,
    length: int,
    *,
    band_hz: Sequence[float] | None = None,
    window: Literal["start", "beat"] = "start",
    beats: int = 0,
    image: Mapping[str, Any] | None = None,
) -> EcgSpec | None:
    """The spec of conditioned ECG; the defaults of `signals.ecg.condition` complete `conditioning`."""
    if conditioning is None:
        return None
    unit = {"none": "mV", "range": "95 % ranges"}.get(conditioning.get("normalise"), "standard deviations")
    conditioning = complete(ecg_signals.condition, conditioning, "conditioning_ecg")
    return EcgSpec(
        tuple(leads),
        float(rate_hz),
        length,
        unit,
        conditioning,
        band_hz=band_hz and tuple(band_hz),
        window=window,
        beats=beats,
        image=image and ImageSpec(**image),
    )


def cmr_spec(
    conditioning: Mapping[str, Any] | None, height: int, width: int, pixel_mm: float
) -> CmrSpec | None:
    """As `ecg_spec`, for the three frames that `signals.cmr.three_phases` makes."""
    if conditioning is None:
        return None
    conditioning = complete(cmr_signals.three_phases, conditioning, "conditioning_cmr")
    return CmrSpec(cmr_signals.FRAMES, height, width, float(pixel_mm), "0 to 1", conditioning)


def complete(function: Callable, given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """All keyword settings of `function`, so that a data set says them even where they are defaults."""
    parameters = inspect.signature(function).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    for name in given:
        if name not in defaults:
            raise ValueError(f"config.{path}.{name}: no such setting; choose from {sorted(defaults)}.")
    return {**defaults, **given}
