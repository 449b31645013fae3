"""From an acquisition to an example: quality check, conditioning, quantisation; or the reason why not."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float, Float32

from ecgjax.core.spec import CmrSpec, EcgSpec, InputSpec
from ecgjax.data.cohorts.base import Acquisition, Item, RejectedError, Target
from ecgjax.data.identifiers import as_array, hash_identifier
from ecgjax.data.schema import Schema, make_schema, quantise
from ecgjax.formats.recording import Recording, Volume
from ecgjax.signals import cmr as cmr_signals
from ecgjax.signals import ecg as ecg_signals

_PATH = re.compile(r"(?<![\w.])/[^\s'\",;:]+|[^\s'\",;:/]+(?:/[^\s'\",;:/]+)*/[^\s'\",;:/]*\.\w+")


class ReasonedRejection(ValueError):
    """The acquisition cannot become an example; `kind` is what the manifest counts."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How every acquisition of a cohort becomes an example."""

    input_spec: InputSpec
    targets: tuple[Target, ...]

    @property
    def schema(self) -> Schema:
        """The fields of the examples."""
        ecg, cmr = self.input_spec.ecg, self.input_spec.cmr
        return make_schema(
            ecg=ecg and (len(ecg.leads), ecg.length),
            cmr=cmr and (cmr.height, cmr.width, len(cmr.frames)),
            targets=len(self.targets),
        )

    def example(self, acquisition: Acquisition, item: Item, *, key: bytes) -> dict[str, np.ndarray]:
        """The fields of the example; raises ReasonedRejection where the acquisition does not make one."""
        example = {}
        if self.input_spec.ecg is not None:
            example |= ecg_fields(acquisition.ecg, self.input_spec.ecg)
        if self.input_spec.cmr is not None:
            example |= cmr_fields(acquisition.cmr, self.input_spec.cmr)
        if self.targets:
            example["label"] = label_field(acquisition.targets, self.targets)
        example["subject"] = as_array(hash_identifier(item.subject, key=key, kind="subject"))
        example["record"] = as_array(hash_identifier(item.record, key=key, kind="record"))
        return example


def ecg_fields(recording: Recording | None, spec: EcgSpec) -> dict[str, np.ndarray]:
    """Picks the leads, resamples, takes the first `spec.length` samples, checks, conditions and quantises."""
    if recording is None:
        raise ReasonedRejection("ecg missing", "the item has no ECG")
    absent = [lead for lead in spec.leads if lead not in recording.leads]
    if absent:
        raise ReasonedRejection(
            "ecg leads", f"leads {absent} are absent; the recording has {recording.leads}"
        )
    signal = recording.signal_mv[[recording.leads.index(lead) for lead in spec.leads]]
    with _rejecting("ecg"):
        if recording.rate_hz != spec.rate_hz:
            signal = ecg_signals.resample(signal, recording.rate_hz, spec.rate_hz)
        if signal.shape[1] < spec.length:
            raise ReasonedRejection(
                "ecg short",
                f"{signal.shape[1]} samples at {spec.rate_hz} Hz are fewer than the {spec.length} of an example",
            )
        signal = signal[:, : spec.length]
        ecg_signals.check(signal)
        conditioned = ecg_signals.condition(signal, **spec.conditioning)
    ecg, step = quantise(conditioned.signal)
    return {
        "ecg": ecg,
        "ecg_step": step,
        "ecg_offset": np.asarray(conditioned.offset, np.float32),
        "ecg_scale": np.asarray(conditioned.scale, np.float32),
    }


def cmr_fields(volume: Volume | None, spec: CmrSpec) -> dict[str, np.ndarray]:
    """Takes the three phases of the middle slice and brings them to the grid of `spec`."""
    if volume is None:
        raise ReasonedRejection("cmr missing", "the item has no CMR")
    with _rejecting("cmr"):
        image = cmr_signals.three_phases(volume.intensity, ed=volume.ed, es=volume.es, **spec.conditioning)
        image = cmr_signals.to_grid(
            image,
            spacing_mm=volume.spacing_mm[1:],
            height=spec.height,
            width=spec.width,
            pixel_mm=spec.pixel_mm,
        )
    return {"cmr": _in_unit_interval(image).astype(np.float16)}


def label_field(values: Mapping[str, float], targets: tuple[Target, ...]) -> Float32[np.ndarray, "m"]:
    """Label columns in the order of `targets`; NaN where the value is missing."""
    unknown = set(values) - {target.name for target in targets}
    if unknown:
        raise ValueError(
            f"The cohort gives targets {sorted(unknown)} that its `targets` do not list; add them there."
        )
    label = np.full(len(targets), np.nan, np.float32)
    for i, target in enumerate(targets):
        value = float(values.get(target.name, np.nan))
        if np.isinf(value) or (target.kind == "binary" and value not in (0, 1) and not np.isnan(value)):
            rule = "0, 1 or missing" if target.kind == "binary" else "finite or missing"
            raise ReasonedRejection("label", f"target {target.name} is {value}, must be {rule}")
        label[i] = value
    return label


def without_identifiers(message: str, item: Item) -> str:
    """`message` with paths and the item's identifiers blanked: it goes into a table that may be shared."""
    message = _PATH.sub("<path>", message)
    parts = {item.subject, item.record, *re.split(r"[/\\]", item.record)}
    parts |= {part.rsplit(".", 1)[0] for part in parts}
    for part in sorted(filter(None, parts), key=len, reverse=True):
        message = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", "<id>", message)
    return message.replace("\n", " ")


def _in_unit_interval(image: Float[np.ndarray, "y x c"]) -> Float[np.ndarray, "y x c"]:
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ReasonedRejection("cmr not finite", "the image holds NaN or infinity")
    if low < 0 or high > 1:
        raise ValueError(f"A conditioned CMR spans {low} to {high}; signals.cmr must give [0, 1].")
    if low == high:
        raise ReasonedRejection("cmr flat", f"every pixel is {low}")
    return image


@contextlib.contextmanager
def _rejecting(modality: str) -> Iterator[None]:
    """Turns the errors by which signals refuse an input into ReasonedRejection."""
    try:
        yield
    except (RejectedError, ecg_signals.QualityError) as error:
        raise ReasonedRejection(f"{modality} {getattr(error, 'kind', 'quality')}", str(error)) from error
