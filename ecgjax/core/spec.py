"""What model inputs are: saved in every manifest and checkpoint, enforced whenever data meet a checkpoint."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class EcgSpec:
    """Conditioned ECG of one data set; `conditioning` holds the keyword arguments that made it."""

    leads: tuple[str, ...]
    rate_hz: float
    length: int
    unit: str
    conditioning: Mapping[str, Any]


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
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "InputSpec":
        """Reverses `to_json`."""
        ecg, cmr = tree["ecg"], tree["cmr"]
        return cls(
            ecg=ecg and EcgSpec(**{**ecg, "leads": tuple(ecg["leads"])}),
            cmr=cmr and CmrSpec(**{**cmr, "frames": tuple(cmr["frames"])}),
        )

    def differences(self, other: "InputSpec", modality: str) -> list[str]:
        """One line for every field of `modality` in which `other` differs."""
        mine, theirs = self.to_json()[modality], other.to_json()[modality]
        if mine is None or theirs is None:
            return [] if mine == theirs else [f"{modality}: {mine} against {theirs}"]
        return [
            f"{modality}.{key}: {mine[key]} against {theirs[key]}" for key in mine if mine[key] != theirs[key]
        ]


def _plain(tree):
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return [_plain(value) for value in tree]
    return tree
