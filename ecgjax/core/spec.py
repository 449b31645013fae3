"""What model inputs are: saved in every manifest and checkpoint, enforced whenever data meet a checkpoint."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ecgjax.core import config as configs

PER_LEAD = ("rate_hz", "unit", "conditioning", "band_hz", "image")
"""What two data sets must share for an encoder of single leads to serve both: not their leads, nor their length."""


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """Time-frequency image of one lead, and how it is standardised; see `models.stft`.

    `span` samples make an image: windows of `win` samples every `hop`, transformed at `n_fft` points, of which the
    first `bins` frequencies and `frames` times stay. The image is (log(|X| + log_eps) - mean) / std, of which mean
    and deviation are those of all pixels of the train split; None where they have not been measured yet.
    """

    span: int
    win: int
    hop: int
    n_fft: int
    bins: int
    frames: int
    log_eps: float = 1e-3
    mean: float | None = None
    std: float | None = None

    def __post_init__(self):
        path = "config.ecg.image"
        for name in ("span", "win", "hop", "n_fft", "bins", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{path}.{name} is {getattr(self, name)}; it must be at least 1.")
        frames, bins = self.span // self.hop + 1, self.n_fft // 2 + 1
        if self.win % 2 or self.win > self.n_fft:
            raise ValueError(f"{path}.win is {self.win}; it must be even and at most n_fft = {self.n_fft}.")
        if self.bins > bins:
            raise ValueError(f"{path}.bins is {self.bins}; {self.n_fft} points have {bins} frequencies.")
        if self.frames > frames:
            raise ValueError(
                f"{path}.frames is {self.frames}; {self.span} samples every {self.hop} give {frames}."
            )
        if not self.log_eps > 0 or (self.std is not None and not self.std > 0):
            raise ValueError(f"{path}: log_eps {self.log_eps} and std {self.std} must be above 0.")
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"{path}: mean is {self.mean} and std {self.std}; give both or neither.")


@dataclasses.dataclass(frozen=True)
class EcgSpec:
    """Conditioned ECG of one data set; `conditioning` holds the keyword arguments that made it.

    `band_hz` are the corners of the zero-phase band-pass before it. An example is the `window` of `length` samples
    from the start of a recording, or round one beat of it. `beats` places for R peaks are stored beside an example,
    -1 where there are fewer. `image` is what models of time-frequency images make of each lead.
    """

    leads: tuple[str, ...]
    rate_hz: float
    length: int
    unit: str
    conditioning: Mapping[str, Any]
    band_hz: tuple[float, float] | None = None
    window: Literal["start", "beat"] = "start"
    beats: int = 0
    image: ImageSpec | None = None

    def __post_init__(self):
        if self.window not in ("start", "beat"):
            raise ValueError(f"config.ecg.window: unknown {self.window!r}; choose 'start' or 'beat'.")
        if self.window == "beat" and self.beats:
            raise ValueError(
                "config.ecg.beats: an example is one beat where window is 'beat'; set beats to 0."
            )
        if self.image is not None:
            if self.window == "beat" and self.image.span != self.length:
                raise ValueError(
                    f"config.ecg.length is {self.length} and config.ecg.image.span {self.image.span}; a beat's "
                    f"window is what its image spans: make them equal."
                )
            if self.image.span > self.length:
                raise ValueError(
                    f"config.ecg.image.span is {self.image.span}, above the length {self.length}."
                )


@dataclasses.dataclass(frozen=True)
class CmrSpec:
    """Conditioned CMR of one data set: frames as channels, last."""

    frames: tuple[str, ...]
    height: int
    width: int
    pixel_mm: float
    unit: str
    conditioning: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """The modalities of a data set; None where it has none."""

    ecg: EcgSpec | None = None
    cmr: CmrSpec | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns plain dicts and lists."""
        return {
            name: spec and configs.plain(_told(spec)) for name, spec in (("ecg", self.ecg), ("cmr", self.cmr))
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "InputSpec":
        """Reverses `to_json`."""
        ecg, cmr = tree["ecg"], tree["cmr"]
        return cls(
            ecg=ecg and _ecg(ecg),
            cmr=cmr and CmrSpec(**{**cmr, "frames": tuple(cmr["frames"])}),
        )

    def differences(
        self, other: "InputSpec", modality: str, fields: Sequence[str] | None = None
    ) -> list[str]:
        """One line for every setting of `modality` that is another in `other`; of `fields` only, where given."""
        mine, theirs = (
            spec and {k: v for k, v in dataclasses.asdict(spec).items() if fields is None or k in fields}
            for spec in (getattr(self, modality), getattr(other, modality))
        )
        return configs.differences(mine, theirs, modality)


def _told(spec) -> dict[str, Any]:
    """Fields of a spec; those with a default only where they differ from it, as older data sets lack them."""
    fields = {field.name: field.default for field in dataclasses.fields(spec)}
    return {name: value for name, value in dataclasses.asdict(spec).items() if value != fields[name]}


def _ecg(tree: Mapping[str, Any]) -> EcgSpec:
    image, band = tree.get("image"), tree.get("band_hz")
    read = {
        "leads": tuple(tree["leads"]),
        "image": image and ImageSpec(**image),
        "band_hz": band and tuple(band),
    }
    return EcgSpec(**{**tree, **read})
