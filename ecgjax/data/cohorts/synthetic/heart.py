"""The latent heart: chambers, wall and disease flags, the one common cause of a synthetic ECG and its CMR."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

TERRITORIES = ("anterior", "inferior", "lateral")
"""Infarct territories; `Heart.territory` is an index into this tuple, -1 without infarct."""

PREVALENCE: Mapping[str, float] = {
    "LVH": 0.15,
    "DCM": 0.13,  # Of those without LVH.
    "MI": 0.15,
    "LBBB": 0.06,
    "LBBB in DCM": 0.35,
    "AF": 0.08,
    "AF in DCM": 0.20,
}
"""Disease flags, probability."""

TERRITORY_SHARE = (0.42, 0.38, 0.20)
"""Probability of each territory, given an infarct."""

STANDARD: Mapping[str, tuple[float, float]] = {
    "LVEDV": (160.0, 34.0),
    "LVESV": (73.0, 34.0),
    "LVEF": (56.0, 10.5),
    "LVM": (112.0, 32.0),
    "WT": (8.4, 1.6),
    "RVEDV": (158.0, 28.0),
    "RVEF": (55.0, 7.0),
}
"""Mean and standard deviation (mL, mL, %, g, mm, mL, %) by which phenotypes are standardised.

Constants, never a sample's own moments: a subject must not depend on who else was drawn.
"""

SEVERITY_SHAPE = 8.0
"""Shape of the gamma distribution, of mean 1, of how severe LVH and DCM are."""

LIMITS: Mapping[str, tuple[float, float]] = {
    "LVEDV": (70.0, 380.0),
    "LVEF": (12.0, 78.0),
    "WT": (4.5, 19.0),
    "RVEDV": (70.0, 320.0),
    "RVEF": (18.0, 76.0),
    "infarct size": (0.08, 0.38),
}
"""Physiological limits; draws beyond them take the limit. Infarct size is a share of the circumference."""

MYOCARDIAL_DENSITY_G_PER_ML = 1.05


@dataclasses.dataclass(frozen=True, eq=False)
class Heart:
    """Hearts of n subjects, one array for each quantity."""

    lvedv_ml: Float[np.ndarray, " n"]
    lvef_percent: Float[np.ndarray, " n"]
    wall_mm: Float[np.ndarray, " n"]
    rvedv_ml: Float[np.ndarray, " n"]
    rvef_percent: Float[np.ndarray, " n"]
    lvh: Bool[np.ndarray, " n"]
    dcm: Bool[np.ndarray, " n"]
    territory: Int[np.ndarray, " n"]
    infarct_size: Float[np.ndarray, " n"]
    lbbb: Bool[np.ndarray, " n"]
    af: Bool[np.ndarray, " n"]

    @property
    def lvesv_ml(self) -> Float[np.ndarray, " n"]:
        """End-systolic volume."""
        return self.lvedv_ml * (1 - self.lvef_percent / 100)

    @property
    def mass_g(self) -> Float[np.ndarray, " n"]:
        """Left-ventricular mass, a shell of the wall's thickness around the cavity."""
        # The cavity's cube root in cm grows by .118 cm a mm of wall, on both sides of it.
        outer = (np.cbrt(self.lvedv_ml) + 0.118 * self.wall_mm) ** 3
        return MYOCARDIAL_DENSITY_G_PER_ML * (outer - self.lvedv_ml)

    @property
    def infarct(self) -> Bool[np.ndarray, " n"]:
        """Whether there is an infarct."""
        return self.territory >= 0

    def phenotypes(self) -> dict[str, np.ndarray]:
        """The seven continuous phenotypes by name, in the units of `STANDARD`."""
        return {
            "LVEDV": self.lvedv_ml,
            "LVESV": self.lvesv_ml,
            "LVEF": self.lvef_percent,
            "LVM": self.mass_g,
            "WT": self.wall_mm,
            "RVEDV": self.rvedv_ml,
            "RVEF": self.rvef_percent,
        }

    def flags(self) -> dict[str, np.ndarray]:
        """The five conditions by name, as booleans."""
        return {"LVH": self.lvh, "DCM": self.dcm, "MI": self.infarct, "LBBB": self.lbbb, "AF": self.af}

    def standards(self) -> dict[str, np.ndarray]:
        """Phenotypes by name, each less its constant mean and over its constant deviation."""
        return {
            name: (value - STANDARD[name][0]) / STANDARD[name][1] for name, value in self.phenotypes().items()
        }

    def standard(self, name: str) -> Float[np.ndarray, " n"]:
        """One of `standards`."""
        return self.standards()[name]


def draw_hearts(rng: np.random.Generator, count: int) -> Heart:
    """Draws `count` independent hearts."""
    chance, normal = rng.random((7, count)), rng.standard_normal((8, count))
    severity = rng.standard_gamma(SEVERITY_SHAPE, count) / SEVERITY_SHAPE
    lvh = chance[0] < PREVALENCE["LVH"]
    dcm = ~lvh & (chance[1] < PREVALENCE["DCM"])
    infarct = chance[2] < PREVALENCE["MI"]
    lbbb = chance[3] < np.where(dcm, PREVALENCE["LBBB in DCM"], PREVALENCE["LBBB"])
    af = chance[4] < np.where(dcm, PREVALENCE["AF in DCM"], PREVALENCE["AF"])
    territory = np.where(infarct, np.searchsorted(np.cumsum(TERRITORY_SHARE[:-1]), chance[5]), -1)
    size = np.clip(0.20 * np.exp(0.32 * normal[6]), *LIMITS["infarct size"])
    lost = infarct * size / 0.20  # 1 for an infarct of usual size.
    large = dcm * severity
    body = normal[0]  # A large person has two large ventricles and a slightly thicker wall.
    # RV function follows the left ventricle's, as afterload does.
    lvef = 61 + 5 * normal[2] - 22 * large - 10 * lost
    lvedv = 150 + 26 * (0.7 * body + 0.71 * normal[1]) + 55 * large + 14 * lost
    wall = 7.8 + 0.8 * (0.3 * body + 0.95 * normal[3]) + 3.6 * lvh * severity - 0.3 * large
    rvedv = 152 + 24 * (0.75 * body + 0.66 * normal[4]) + 26 * large
    rvef = 57 + 5.5 * (0.35 * normal[2] + 0.94 * normal[5]) - 10 * large - 2 * lost
    return Heart(
        lvedv_ml=np.clip(lvedv, *LIMITS["LVEDV"]),
        lvef_percent=np.clip(lvef, *LIMITS["LVEF"]),
        wall_mm=np.clip(wall, *LIMITS["WT"]),
        rvedv_ml=np.clip(rvedv, *LIMITS["RVEDV"]),
        rvef_percent=np.clip(rvef, *LIMITS["RVEF"]),
        lvh=lvh,
        dcm=dcm,
        territory=territory,
        infarct_size=np.where(infarct, size, 0.0),
        lbbb=lbbb,
        af=af,
    )
