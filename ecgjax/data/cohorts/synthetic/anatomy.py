"""Heart to shape: the chambers' outlines in any short-axis plane at any time of the beat."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ecgjax.data.cohorts.synthetic.heart import TERRITORIES, Heart

ANGLES = 512
"""Outlines are tables over the angle about the LV's centre: 0 lateral, 90 anterior, 180 septal, 270 low."""

ENDOCARDIAL_MM_PER_ROOT_ML = 4.706
"""Mid-ventricular end-diastolic radius over the cube root of the volume: 25 mm at 150 mL."""
SHORT_AXIS_SHARE = 1 / 2.4
"""Radius shrinks as volume to this power; the rest of the stroke volume is long-axis shortening."""
LONG_AXIS_THICKENING = 0.35
"""Extra wall area in a plane at end-systole, per unit of ejection fraction, as the long axis shortens."""
APEX_OF_RADIUS, BASE_OF_RADIUS, BASE_DESCENT_MM = 1.85, 1.60, 14.0
RV_AREA_MM2_PER_ML = 66.0
"""Mid-ventricular RV area over volume to the power 2/3: 1900 mm2 at 155 mL."""
RV_AREA_POWER = 0.80
RV_WALL_MM, ATRIAL_WALL_MM, ATRIUM_OF_VENTRICLE = 3.0, 2.0, 0.8

TERRITORY_DEG = {"anterior": 115.0, "inferior": 268.0, "lateral": 5.0}
INFARCT_MOTION, INFARCT_THINNING, INFARCT_EDGE_DEG = 0.05, 0.55, 12.0
SEPTUM_DEG, SEPTUM_WIDTH_DEG = 180.0, 42.0
LBBB_SEPTUM_AT_ES, LBBB_SEPTUM_EARLY = 0.60, 0.90
"""LBBB: loss of septal inward motion at end-systole, and its paradoxical part that peaks half-way."""


@dataclasses.dataclass(frozen=True, eq=False)
class Shape:
    """What differs between two people of the same phenotypes; independent of the heart and of any grid."""

    ellipse: float
    ellipse_deg: float
    rv_span_deg: float
    rv_skew: float
    rv_power: float
    septum_deg: float
    trabecula_phase: Float[np.ndarray, " 4"]
    apex_share: float


def draw_shape(rng: np.random.Generator) -> Shape:
    """Draws the nuisances of shape."""
    n = rng.standard_normal(7)
    return Shape(
        ellipse=0.025 + 0.012 * n[0],
        ellipse_deg=90 + 30 * n[1],
        rv_span_deg=4.0 * n[2],
        rv_skew=0.06 + 0.10 * n[3],
        rv_power=0.05 * n[4],
        septum_deg=SEPTUM_DEG - 4 + 5 * n[5],
        trabecula_phase=2 * np.pi * rng.random(4),
        apex_share=1 + 0.05 * n[6],
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Outline:
    """Distances in mm from the LV's centre by plane and angle: cavity, outer wall, far border of the RV.

    `ventricle` is 1 in planes of the ventricles, 0 in those of the atria.
    """

    cavity: Float[np.ndarray, "p a"]
    outer: Float[np.ndarray, "p a"]
    rv: Float[np.ndarray, "p a"]
    ventricle: Float[np.ndarray, " p"]


def outlines(
    heart: Heart, shape: Shape, z_mm: Float[np.ndarray, " p"], systole: Float[np.ndarray, " p"]
) -> Outline:
    """Outlines of one heart in p planes.

    `z_mm` is the distance from the middle of the ventricle towards the apex, `systole` is 0 at end-diastole
    and 1 at end-systole. The cavity's area follows volume and ejection fraction exactly, whatever the
    regional motion: where an infarct or an LBBB septum does not move, the rest moves more.
    """
    angle = 2 * np.pi * np.arange(ANGLES) / ANGLES
    s = systole[:, None]
    ef = heart.lvef_percent[0] / 100
    radius = ENDOCARDIAL_MM_PER_ROOT_ML * np.cbrt(heart.lvedv_ml[0])
    long_axis = _long_axis(z_mm, radius, shape)[:, None]
    ventricle = _below_valves(z_mm, systole, radius)[:, None]  # 0 in the planes of the atria.
    diastolic = radius * (1 + shape.ellipse * np.cos(2 * (angle - np.deg2rad(shape.ellipse_deg))))
    shortening = ((1 - ef) ** SHORT_AXIS_SHARE - 1) * s + 1
    scar, septum = _scar(heart, angle), _bump(angle, np.deg2rad(SEPTUM_DEG), SEPTUM_WIDTH_DEG)
    delayed = septum * (LBBB_SEPTUM_AT_ES + LBBB_SEPTUM_EARLY * 4 * s * (1 - s))
    motion = (1 - (1 - INFARCT_MOTION) * scar) * (1 - heart.lbbb[0] * delayed)
    cavity = diastolic - _inward(diastolic, motion, target=np.mean(diastolic**2) * shortening**2) * motion
    wall = heart.wall_mm[0] * (1 - INFARCT_THINNING * scar)
    area = (diastolic + wall) ** 2 - diastolic**2
    thick = area * (1 + LONG_AXIS_THICKENING * ef * s * (1 - scar))
    cavity = (ventricle * cavity + (1 - ventricle) * ATRIUM_OF_VENTRICLE * diastolic) * long_axis
    tip = _present(z_mm, radius, wall.mean())[:, None]
    thick = ventricle * thick * (0.35 + 0.65 * long_axis) + (1 - ventricle) * 2 * ATRIAL_WALL_MM * cavity
    outer = np.sqrt(cavity**2 + thick * tip)
    depth = _rv_depth(heart, shape, angle, outer, z_mm, systole) * (0.6 + 0.4 * ventricle)
    return Outline(cavity=cavity, outer=outer, rv=outer + depth, ventricle=ventricle[:, 0])


def _inward(diastolic: np.ndarray, motion: np.ndarray, *, target: np.ndarray) -> np.ndarray:
    """The displacement d with mean((diastolic - d motion)^2) = target, by plane: the smaller root.

    Where too little wall moves for the target to be met, d is the displacement that comes nearest to it.
    """
    a, b = np.mean(motion**2, -1, keepdims=True), np.mean(diastolic * motion, -1, keepdims=True)
    c = np.mean(diastolic**2) - target
    return (b - np.sqrt(np.maximum(b**2 - a * c, 0.0))) / a


def _bump(angle: np.ndarray, centre: float, width_deg: float) -> np.ndarray:
    away = np.abs((angle - centre + np.pi) % (2 * np.pi) - np.pi)
    return np.exp(-0.5 * (away / np.deg2rad(width_deg)) ** 2)


def _scar(heart: Heart, angle: np.ndarray) -> np.ndarray:
    """1 inside the infarct, 0 outside, a soft edge between."""
    if heart.territory[0] < 0:
        return np.zeros_like(angle)
    centre = np.deg2rad(TERRITORY_DEG[TERRITORIES[heart.territory[0]]])
    away = np.abs((angle - centre + np.pi) % (2 * np.pi) - np.pi)
    half = np.pi * heart.infarct_size[0]
    return 1 / (1 + np.exp((away - half) / np.deg2rad(INFARCT_EDGE_DEG / 2)))


def _long_axis(z_mm: np.ndarray, radius: float, shape: Shape) -> np.ndarray:
    """Radius along the long axis against the middle: half an ellipsoid below, a slight taper above."""
    apex = APEX_OF_RADIUS * radius * shape.apex_share
    below = np.sqrt(np.maximum(0.0, 1 - (np.maximum(z_mm, 0) / apex) ** 2))
    return below * (1 - 0.12 * (np.minimum(z_mm, 0) / (BASE_OF_RADIUS * radius)) ** 2)


def _below_valves(z_mm: np.ndarray, systole: np.ndarray, radius: float) -> np.ndarray:
    """1 in the ventricles, 0 in the atria; the valves descend towards the apex in systole."""
    valves = -BASE_OF_RADIUS * radius + BASE_DESCENT_MM * systole
    return np.clip((z_mm - valves) / 6 + 0.5, 0, 1)


def _present(z_mm: np.ndarray, radius: float, wall_mm: float) -> np.ndarray:
    """Myocardium reaches one wall thickness below the cavity's tip."""
    return np.clip((APEX_OF_RADIUS * radius + wall_mm - z_mm) / 4 + 0.5, 0, 1)


def _rv_depth(
    heart: Heart, shape: Shape, angle: np.ndarray, outer: np.ndarray, z_mm: np.ndarray, systole: np.ndarray
) -> np.ndarray:
    """Thickness of the RV crescent over the septum; its area follows RV volume and ejection fraction.

    A dilated RV also reaches further round the LV and bulges more, so its shape tells its size too.
    """
    large = heart.standard("RVEDV")[0]
    span = np.deg2rad(66 + 7 * large + shape.rv_span_deg)
    away = (angle - np.deg2rad(shape.septum_deg) + np.pi) % (2 * np.pi) - np.pi
    t = np.clip(away / span, -1, 1)
    t = t + (shape.rv_skew + 0.04 * large) * (1 - t**2)  # The bulge lies above the septum's middle.
    profile = np.maximum(np.cos(np.pi / 2 * t), 0) ** np.clip(1.05 - 0.12 * large + shape.rv_power, 0.6, 1.5)
    phase = shape.trabecula_phase
    rough = 1 + 0.025 * np.sin(17 * angle + phase[0]) + 0.025 * np.sin(26 * angle + phase[1])
    profile = profile * rough * (np.abs(away) < span)
    area = RV_AREA_MM2_PER_ML * heart.rvedv_ml[0] ** (2 / 3)
    left = (1 - heart.rvef_percent[0] / 100) ** RV_AREA_POWER
    share = (1 + (left - 1) * systole) * np.clip(1 - z_mm / 55, 0, 1.25)
    step = 2 * np.pi / ANGLES
    # area = sum over angle of outer * depth + depth^2 / 2, depth = d * profile: the positive root d.
    linear, square = (outer * profile).sum(-1) * step, (profile**2).sum() * step / 2
    d = (np.sqrt(linear**2 + 4 * square * area * share) - linear) / (2 * square)
    return d[:, None] * profile
