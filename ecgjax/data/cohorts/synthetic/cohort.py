"""The synthetic paired ECG-CMR cohort: embedded default data and scientific instrument in one."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from ecgjax.data.cohorts.base import Acquisition, Item, Split, Target
from ecgjax.data.cohorts.synthetic.cine import cine
from ecgjax.data.cohorts.synthetic.ecg_parameters import draw_ecg_parameters
from ecgjax.data.cohorts.synthetic.heart import Heart, draw_hearts
from ecgjax.data.cohorts.synthetic.waveform import waveform
from ecgjax.formats.recording import Recording

TARGETS = (
    Target("LVEDV", "regression", "mL"),
    Target("LVESV", "regression", "mL"),
    Target("LVEF", "regression", "%"),
    Target("LVM", "regression", "g"),
    Target("WT", "regression", "mm"),
    Target("RVEDV", "regression", "mL"),
    Target("RVEF", "regression", "%"),
    Target("LVH", "binary"),
    Target("DCM", "binary"),
    Target("MI", "binary"),
    Target("LBBB", "binary", control=True),
    Target("AF", "binary", control=True),
)

SPLIT_KEY: Mapping[str, int] = {"train": 0, "val": 1, "test": 2, "parameters": 3}
"""First part of every seed key: splits are separate streams, never slices of one draw."""
HEART, ECG_PARAMETERS, WAVEFORM, IMAGE, DAMAGE, PAIRING = range(6)
"""Last part of a seed key: what the stream draws."""

FLAT_LEAD, SHORT_SHARE = 7, 0.4


@dataclasses.dataclass(frozen=True)
class SyntheticCohort:
    """Paired subjects drawn from a known causal chain: heart -> ECG parameters -> ECG, and heart -> cine.

    `strength` couples the ECG to the heart. `pairing` "permuted" gives every ECG the cine of another subject
    of its split (a null for cross-modal learning); targets stay with the ECG. `damage` is the share of items
    made unusable (not-a-number, a flat lead, or too short), to exercise quarantine. Subject i of a split is
    the same whatever the counts, the rate or the image size.
    """

    train: int = 1500
    val: int = 0
    test: int = 1000
    seed: int = 0
    strength: float = 1.0
    pairing: Literal["true", "permuted"] = "true"
    rate_hz: float = 100.0
    seconds: float = 10.0
    image_size: int = 64
    field_mm: float = 140.0
    slices: int = 1
    frames: int = 3
    damage: float = 0.0

    def __post_init__(self):
        for split in ("train", "val", "test"):
            count = getattr(self, split)
            if count < 0:
                raise ValueError(f"{split}={count} subjects; give 0 or more.")
            if self.pairing == "permuted" and count == 1:
                raise ValueError(f"{split}=1 subject has no other to be paired with; give 0, or 2 or more.")
        if self.pairing not in ("true", "permuted"):
            raise ValueError(f"pairing {self.pairing!r} is unknown; choose 'true' or 'permuted'.")
        if not 0 <= self.damage <= 1:
            raise ValueError(f"damage {self.damage} is no share of the items; give 0 to 1.")
        lowest = {"seed": 0, "strength": 0, "image_size": 1, "slices": 1, "frames": 3}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name}={getattr(self, name)} is too small; give {low} or more.")
        for name in ("rate_hz", "seconds", "field_mm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}; give a number above 0.")

    @property
    def name(self) -> str:
        """Name of the cohort in manifests."""
        return "synthetic"

    @property
    def targets(self) -> tuple[Target, ...]:
        """Seven phenotypes, three conditions and two ECG diagnoses as positive controls."""
        return TARGETS

    def items(self) -> Sequence[Item]:
        """One item a subject: train, then val, then test."""
        counts: dict[Split, int] = {"train": self.train, "val": self.val, "test": self.test}
        return [
            Item(subject=subject, record=f"{subject}-0", split=split)
            for split, count in counts.items()
            for subject in (f"{self.seed}-{split}-{index}" for index in range(count))
        ]

    def load(self, item: Item) -> Acquisition:
        """Generates one pair. Raises ValueError where the item is none of this cohort's."""
        split, index = item.split, self._index(item)
        heart = self.heart(split, index)
        e = self.ecg_parameters(split, index)
        signal = waveform(e[0], self._rng(split, index, WAVEFORM), rate_hz=self.rate_hz, seconds=self.seconds)
        signal, rate = self._damaged(signal, split, index), self.rate_hz
        other = self.partner(split, index)
        volume = cine(
            heart if other == index else self.heart(split, other),
            self._key(split, other, IMAGE),
            size=self.image_size,
            field_mm=self.field_mm,
            slices=self.slices,
            frames=self.frames,
        )
        return Acquisition(ecg=Recording(signal, rate), cmr=volume, targets=labels(heart))

    def heart(self, split: Split, index: int) -> Heart:
        """The latent heart of one subject, as arrays of length 1."""
        return draw_hearts(self._rng(split, index, HEART), 1)

    def ecg_parameters(self, split: Split, index: int) -> Float[np.ndarray, "1 m"]:
        """The noise-free ECG parameters of one subject, columns `PARAMETERS`."""
        heart = self.heart(split, index)
        return draw_ecg_parameters(heart, self._rng(split, index, ECG_PARAMETERS), strength=self.strength)

    def partner(self, split: Split, index: int) -> int:
        """Whose cine goes with the ECG of subject `index`: its own, or another's where pairs are permuted."""
        if self.pairing == "true":
            return index
        # One cycle through all subjects has no fixed point.
        order = np.random.default_rng(self._key(split, 0, PAIRING)).permutation(getattr(self, split))
        return int(order[(np.flatnonzero(order == index)[0] + 1) % len(order)])

    def _index(self, item: Item) -> int:
        prefix, _, index = item.subject.rpartition("-")
        known = prefix == f"{self.seed}-{item.split}" and index.isdecimal()
        if not known or int(index) >= getattr(self, item.split):
            raise ValueError(
                f"{item} is no item of this cohort (seed {self.seed}, {getattr(self, item.split)} "
                f"{item.split} subjects); take items from its own items()."
            )
        return int(index)

    def _key(self, split: Split, index: int, stream: int) -> tuple[int, ...]:
        return (self.seed, SPLIT_KEY[split], index, stream)

    def _rng(self, split: Split, index: int, stream: int) -> np.random.Generator:
        return np.random.default_rng(self._key(split, index, stream))

    def _damaged(self, signal: np.ndarray, split: Split, index: int) -> np.ndarray:
        """The signal, or for a share `damage` of subjects a broken one: NaN, flat lead or short alike."""
        if self.damage == 0:
            return signal
        chance, kind, place = self._rng(split, index, DAMAGE).random(3)
        if chance >= self.damage:
            return signal
        if kind < 1 / 3:
            start = int(place * (signal.shape[1] - 1))
            signal[:, start : start + max(1, signal.shape[1] // 20)] = np.nan
        elif kind < 2 / 3:
            signal[FLAT_LEAD] = 0
        else:
            signal = signal[:, : int(SHORT_SHARE * signal.shape[1])]
        return signal


def labels(heart: Heart) -> dict[str, float]:
    """Targets of one heart by name."""
    values = {**heart.phenotypes(), **heart.flags()}
    return {target.name: float(values[target.name][0]) for target in TARGETS}


def draw_parameters(
    count: int, *, seed: int, strength: float = 1.0
) -> tuple[Heart, Float[np.ndarray, "n m"]]:
    """Hearts and ECG parameters of `count` further subjects, from a stream of their own; no ECG, no image."""
    key = (seed, SPLIT_KEY["parameters"])
    heart = draw_hearts(np.random.default_rng((*key, HEART)), count)
    e = draw_ecg_parameters(heart, np.random.default_rng((*key, ECG_PARAMETERS)), strength=strength)
    return heart, e
