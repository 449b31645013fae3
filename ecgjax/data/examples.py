"""From an acquisition to an example: quality check, conditioning, quantisation; or the reason why not."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32

from ecgjax.core.spec import CmrSpec, EcgSpec, InputSpec
from ecgjax.data.cohorts.base import Acquisition, Item, RejectedError, Target
from ecgjax.data.identifiers import as_array, hash_identifier
from ecgjax.data.schema import Schema, make_schema, quantise
from ecgjax.formats.recording import Recording, Volume
from ecgjax.signals import cmr as cmr_signals
from ecgjax.signals import ecg as ecg_signals
from ecgjax.signals.ecg import ConditionedEcg
from ecgjax.signals.quality import QualityError

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
    quality_ecg: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    _last: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def schema(self) -> Schema:
        """The fields of the examples."""
        ecg, cmr = self.input_spec.ecg, self.input_spec.cmr
        return make_schema(
            ecg=ecg and (len(ecg.leads), ecg.length),
            cmr=cmr and (cmr.height, cmr.width, len(cmr.frames)),
            targets=len(self.targets),
            beats=ecg.beats if ecg else 0,
            rr=ecg is not None and ecg.window == "beat",
        )

    def example(self, acquisition: Acquisition, item: Item, *, key: bytes) -> dict[str, np.ndarray]:
        """The fields of the example; raises ReasonedRejection where the acquisition does not make one."""
        example = {}
        if self.input_spec.ecg is not None:
            example |= self._ecg_fields(acquisition)
        if self.input_spec.cmr is not None:
            example |= cmr_fields(acquisition.cmr, self.input_spec.cmr)
        if self.targets:
            example["label"] = label_field(acquisition.targets, self.targets)
        example["subject"] = as_array(hash_identifier(item.subject, key=key, kind="subject"))
        example["record"] = as_array(hash_identifier(item.record, key=key, kind="record"))
        return example

    def _ecg_fields(self, acquisition: Acquisition) -> dict[str, np.ndarray]:
        spec, recording = self.input_spec.ecg, acquisition.ecg
        if recording is None:
            raise ReasonedRejection("ecg missing", "the item has no ECG")
        if spec.window == "start":
            return ecg_fields(recording, spec, self.quality_ecg)
        if acquisition.beat is None or acquisition.rr_s is None:
            raise ValueError(
                "config.ecg.window is 'beat', but the cohort's items are no beats; set it to 'start'."
            )
        if self._last.get("recording") is not recording:  # A recording's beats follow one another.
            self._last.update(recording=recording, conditioned=condition_whole(recording, spec))
        at = round(acquisition.beat * spec.rate_hz / recording.rate_hz)
        window = beat_fields(self._last["conditioned"], at, spec, self.quality_ecg)
        return {**window, "rr": np.asarray(acquisition.rr_s, np.float32)}


def condition_whole(recording: Recording, spec: EcgSpec) -> tuple[Float[np.ndarray, "l t"], ConditionedEcg]:
    """The leads of `spec` at its rate in mV, and conditioned as a whole."""
    with _rejecting("ecg"):
        signal = _at_rate(recording, spec)
        passed = signal if spec.band_hz is None else ecg_signals.band_pass(signal, spec.rate_hz, spec.band_hz)
        return signal, ecg_signals.condition(passed, **spec.conditioning)


def beat_fields(
    whole: tuple[Float[np.ndarray, "l t"], ConditionedEcg], at: int, spec: EcgSpec, quality: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The window of `spec.length` samples whose middle, sample length // 2, is the R peak at sample `at`."""
    signal, conditioned = whole
    start = at - spec.length // 2
    if start < 0 or start + spec.length > signal.shape[1]:
        raise ReasonedRejection(
            "beat edge",
            f"the beat at sample {at} of {signal.shape[1]} has no whole window of {spec.length} samples",
        )
    rows = slice(start, start + spec.length)
    with _rejecting("ecg"):
        ecg_signals.check(signal[:, rows], **quality)
    ecg, step = quantise(conditioned.signal[:, rows])
    offset, scale = (np.asarray(x, np.float32) for x in (conditioned.offset, conditioned.scale))
    return {"ecg": ecg, "ecg_step": step, "ecg_offset": offset, "ecg_scale": scale}


def _at_rate(recording: Recording, spec: EcgSpec) -> Float[np.ndarray, "l t"]:
    """The leads of `spec`, resampled to its rate."""
    absent = [lead for lead in spec.leads if lead not in recording.leads]
    if absent:
        raise ReasonedRejection(
            "ecg leads", f"leads {absent} are absent; the recording has {recording.leads}"
        )
    signal = recording.signal_mv[[recording.leads.index(lead) for lead in spec.leads]]
    if recording.rate_hz == spec.rate_hz:
        return signal
    return ecg_signals.resample(signal, recording.rate_hz, spec.rate_hz)


def ecg_fields(recording: Recording, spec: EcgSpec, quality: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Picks the leads, resamples, takes the first `spec.length` samples, checks, conditions and quantises."""
    with _rejecting("ecg"):
        signal = _at_rate(recording, spec)
        if signal.shape[1] < spec.length:
            raise ReasonedRejection(
                "ecg short",
                f"{signal.shape[1]} samples at {spec.rate_hz} Hz, an example needs {spec.length}",
            )
        signal = signal[:, : spec.length]
        ecg_signals.check(signal, **quality)
        beats = {"beats": beat_positions(signal, spec)} if spec.beats else {}
        if spec.band_hz is not None:
            signal = ecg_signals.band_pass(signal, spec.rate_hz, spec.band_hz)
        conditioned = ecg_signals.condition(signal, **spec.conditioning)
    ecg, step = quantise(conditioned.signal)
    return beats | {
        "ecg": ecg,
        "ecg_step": step,
        "ecg_offset": np.asarray(conditioned.offset, np.float32),
        "ecg_scale": np.asarray(conditioned.scale, np.float32),
    }


def beat_positions(signal: Float[np.ndarray, "l t"], spec: EcgSpec) -> Int32[np.ndarray, "k"]:
    """R peaks in the `spec.beats` places of an example, -1 in those left; with an image only those it fits around."""
    from ecgjax.signals.beats import r_peaks  # scipy.signal costs most of a second.

    found = r_peaks(signal, spec.rate_hz)
    half = spec.image.span // 2 if spec.image else 0
    usable = found[(found >= half) & (found + half <= signal.shape[1])]
    if not usable.size:
        raise ReasonedRejection(
            "beats none", f"{found.size} R peaks were found, none with {half} samples on either side"
        )
    if usable.size > spec.beats:
        raise ReasonedRejection(
            "beats many", f"{usable.size} R peaks were found, config.ecg.beats is {spec.beats}"
        )
    return np.pad(usable, (0, spec.beats - usable.size), constant_values=-1).astype(np.int32)


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
    except (RejectedError, QualityError) as error:
        raise ReasonedRejection(f"{modality} {getattr(error, 'kind', 'quality')}", str(error)) from error
