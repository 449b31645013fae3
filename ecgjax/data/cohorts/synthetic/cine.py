"""Heart to cine: short-axis planes as balanced SSFP shows them, with the nuisances of a scan."""

import dataclasses

import numpy as np
from jaxtyping import Float, Float32

from ecgjax.data.cohorts.synthetic.anatomy import (
    ANGLES,
    ENDOCARDIAL_MM_PER_ROOT_ML,
    RV_WALL_MM,
    Outline,
    draw_shape,
    outlines,
)
from ecgjax.data.cohorts.synthetic.heart import Heart
from ecgjax.formats.recording import Volume

BLOOD, RV_BLOOD, MYOCARDIUM, LUNG, LIVER, MUSCLE, FAT, AIR = 0.86, 0.80, 0.24, 0.05, 0.36, 0.26, 0.78, 0.02
"""Signal of the tissues, arbitrary units; T2/T1 contrast: blood and fat bright, muscle grey, lung dark."""

SLICE_DISTANCE_MM = 10.0
SYSTOLE_SHARE = 0.36
"""Share of the cycle's frames from end-diastole to end-systole."""

CENTRE_MM = (12.0, 4.0)
"""Usual place of the LV's centre, right and up of the image's: the RV needs room."""
SHIFT_MM, TURN_DEG, SCALE_DEVIATION = 4.0, 7.0, 0.02
INTENSITY, GAIN_LOG_DEVIATION, NOISE, NOISE_LOG_DEVIATION = 300.0, 0.15, 0.022, 0.3

PAPILLARY = ((58.0, 0.50), (-56.0, 0.50))
"""Angle in degrees (anterolateral, posteromedial) and depth as a share of the cavity's radius."""
PAPILLARY_MM, PAPILLARY_OF_RADIUS = 3.9, 0.05
"""Half width, plus a share of the end-diastolic radius."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """Nuisances of one examination: placement, surroundings, coil, noise level."""

    centre_mm: Float[np.ndarray, " 2"]
    turn: float
    scale: float
    drift_mm: Float[np.ndarray, " 2"]
    chest_mm: float
    chest_turn: float
    fat_mm: float
    liver_mm: float
    liver_tilt: float
    liver_signal: float
    stomach_mm: float
    stomach_signal: float
    coil: Float[np.ndarray, " 3"]
    texture: Float[np.ndarray, "6 4"]
    papillary: Float[np.ndarray, "2 3"]
    fat_ring: Float[np.ndarray, " 4"]
    band: Float[np.ndarray, " 2"]
    noise: float
    gain: float


def draw_scan(rng: np.random.Generator) -> Scan:
    """Draws the nuisances of one examination."""
    n, u = rng.standard_normal(20), rng.random(12)
    return Scan(
        centre_mm=np.array(CENTRE_MM) + SHIFT_MM * n[:2],
        turn=np.deg2rad(TURN_DEG * n[2]),
        scale=1 + SCALE_DEVIATION * n[3],
        drift_mm=np.array([-1.2, 0.8]) + 0.8 * n[4:6],
        chest_mm=62 + 5 * n[6],
        chest_turn=np.deg2rad(132 + 7 * n[7]),
        fat_mm=float(np.exp(np.log(9) + 0.35 * n[8])),
        liver_mm=5 + 2.5 * abs(n[9]),
        liver_tilt=0.18 + 0.08 * n[10],
        liver_signal=LIVER * (1 + 0.12 * n[11]),
        stomach_mm=34 + 10 * n[18],
        stomach_signal=u[5],
        coil=np.array([0.30 + 0.08 * n[12], 0.10 * n[13], 0.12 * n[14]]),
        texture=rng.random((6, 4)),
        papillary=rng.standard_normal((2, 3)),
        fat_ring=np.array([2.2 + 0.8 * abs(n[15]), *(2 * np.pi * u[:3])]),
        band=np.array([0.35 * u[3], 0.5 + 0.3 * u[4]]),
        noise=NOISE * float(np.exp(NOISE_LOG_DEVIATION * n[16])),
        gain=INTENSITY * float(np.exp(GAIN_LOG_DEVIATION * n[17])),
    )


def end_systole(frames: int) -> int:
    """Frame of end-systole, always even, so that frame es // 2 is exactly half-way. Raises below 3 frames."""
    if frames < 3:
        raise ValueError(
            f"{frames} frames cannot hold end-diastole, a middle frame and end-systole; give 3 or more."
        )
    return max(2, 2 * round(SYSTOLE_SHARE * frames / 2))


def contraction(frames: int) -> Float[np.ndarray, " f"]:
    """0 at end-diastole (frame 0) to 1 at end-systole and back; one half exactly at frame es // 2."""
    es = end_systole(frames)
    frame = np.arange(frames)
    rising = frame / es
    rising = rising**2 * (3 - 2 * rising)
    falling = (frame - es) / (frames - es)
    # Early filling takes three quarters, the atrium the last part.
    early, late = np.clip(falling / 0.45, 0, 1), np.clip((falling - 0.75) / 0.25, 0, 1)
    return np.where(
        frame <= es, rising, 1 - 0.78 * early**2 * (3 - 2 * early) - 0.22 * late**2 * (3 - 2 * late)
    )


def cine(
    heart: Heart, key: tuple[int, ...], *, size: int, field_mm: float, slices: int = 1, frames: int = 3
) -> Volume:
    """Renders the cine of one heart (arrays of length 1); `key` seeds everything random.

    Slice `slices // 2` is the middle of the ventricle and frame 0 end-diastole, in any stack. A plane's noise
    depends on its place and time only, so the default, one slice and the frames (ED, middle, ES), equals what
    the slice and phase rule picks from a full stack. Raises ValueError for fewer than 1 slice or 3 frames.
    """
    if slices < 1:
        raise ValueError(f"{slices} slices; give 1 (the middle slice) or more.")
    rng = np.random.default_rng(key)
    shape, scan = draw_shape(rng), draw_scan(rng)
    systole = np.repeat(contraction(frames), slices)
    place = np.tile(np.arange(slices) - slices // 2, frames)
    planes = np.empty((frames * slices, size, size), np.float32)
    outline = outlines(heart, shape, place * SLICE_DISTANCE_MM, systole)
    muscle_mm = PAPILLARY_MM + PAPILLARY_OF_RADIUS * ENDOCARDIAL_MM_PER_ROOT_ML * np.cbrt(heart.lvedv_ml[0])
    chunk = max(1, 2**17 // size**2)  # Planes painted together: fits the cache.
    for start in range(0, len(planes), chunk):
        part = slice(start, start + chunk)
        cut = Outline(**{name: table[part] for name, table in vars(outline).items()})
        planes[part] = _paint(
            cut, scan, systole[part], muscle_mm=float(muscle_mm), size=size, field_mm=field_mm
        )
    # Frames after end-systole pass the same contraction again, so the noise key counts them from the end.
    half = np.where(np.arange(frames) <= end_systole(frames), 0, np.arange(frames))
    for index, (s, z, late) in enumerate(zip(systole, place, np.repeat(half, slices), strict=True)):
        noise = np.random.default_rng((*key, 1, int(z) + 1000, round(s * 2**20), int(late)))
        two = noise.standard_normal((2, size, size), np.float32) * np.float32(scan.noise)
        planes[index] = np.hypot(planes[index] + two[0], two[1])
    pixel = field_mm / size
    return Volume(
        intensity=(planes * np.float32(scan.gain)).reshape(frames, slices, size, size),
        spacing_mm=(SLICE_DISTANCE_MM, pixel, pixel),
        ed=0,
        es=end_systole(frames),
    )


def _paint(
    outline: Outline,
    scan: Scan,
    systole: Float[np.ndarray, " p"],
    *,
    muscle_mm: float,
    size: int,
    field_mm: float,
) -> Float32[np.ndarray, "p y x"]:
    """Noise-free planes: surroundings first, then each layer over the last, then the coil and the blur."""
    pixel = np.float32(field_mm / size)
    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * pixel
    right, up = axis[None, :], -axis[:, None]
    cos, sin = np.float32(np.cos(scan.turn) / scan.scale), np.float32(np.sin(scan.turn) / scan.scale)
    # Body coordinates (right, up) about the LV's centre at end-diastole; then the heart's own drift.
    dx, dy = right - np.float32(scan.centre_mm[0]), up - np.float32(scan.centre_mm[1])
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    drift = (systole[:, None, None, None] * scan.drift_mm).astype(np.float32)
    hx, hy = x - drift[..., 0], y - drift[..., 1]
    radius = np.hypot(hx, hy)
    turn = np.arctan2(hy, hx) * np.float32(ANGLES / (2 * np.pi))
    bins = np.rint(turn).astype(np.intp)
    bins &= ANGLES - 1  # A power of two: the remainder at a tenth of the price.
    bins += ANGLES * np.arange(len(bins))[:, None, None]  # In the tables of all planes end to end.

    def look(table):
        return table.astype(np.float32).ravel().take(bins)

    def inside(border):
        return _share(border - radius, pixel)

    angle = 2 * np.pi * np.arange(ANGLES) / ANGLES
    cavity, outer, rv = look(outline.cavity), look(outline.outer), look(outline.rv)
    depth = outline.rv - outline.outer
    rv_wall = outline.rv + RV_WALL_MM * np.clip(depth / 4, 0, 1)
    ring = scan.fat_ring[0] * (
        1 + 0.7 * np.sin(angle + scan.fat_ring[1]) + 0.5 * np.sin(3 * angle + scan.fat_ring[2])
    )
    # Fat fills the grooves where the RV meets the LV.
    groove = 5 * np.exp(-((depth - 2.5) ** 2) / 8) * (depth > 0)
    present = (outline.outer.max(1, keepdims=True) > 4).astype(float)
    sac = rv_wall + (np.maximum(ring, 0.6) + groove) * present

    image = np.broadcast_to(_surroundings(x, y, scan), radius.shape).copy()
    _over(image, inside(look(sac)), np.float32(FAT * 0.72))
    _over(image, inside(look(rv_wall)), np.float32(MYOCARDIUM * 1.1))
    _over(image, inside(rv) * _band(hx, hy, scan, pixel), np.float32(RV_BLOOD))
    _over(image, inside(outer), np.float32(MYOCARDIUM))
    blood = _papillary_free(hx, hy, outline, scan, muscle_mm=muscle_mm, pixel=pixel)
    comb = np.maximum(np.sin(17 * angle + scan.fat_ring[3]) + 0.7 * np.sin(29 * angle + scan.fat_ring[1]), 0)
    comb = comb * np.where(np.cos(angle) < -0.5, 0.3, 1.0)  # The septum is smoother than the free wall.
    near_wall = _unit((radius - cavity + 4) / 4)
    trabecula = look(np.broadcast_to(comb, outline.cavity.shape)) * near_wall
    _over(image, inside(cavity) * blood * (1 - np.float32(0.35) * trabecula), np.float32(BLOOD))
    image *= _coil(x, y, scan)
    return _blur(image)


def _over(image: np.ndarray, share: np.ndarray, signal: np.ndarray | np.float32) -> None:
    """Lays a tissue over `image`, in place."""
    image += share * (signal - image)


def _share(distance: np.ndarray, soft: float | np.floating) -> np.ndarray:
    """Share of a pixel that lies inside, from the distance to the border: a ramp of width `soft`."""
    return _unit(distance / soft + np.float32(0.5))


def _unit(share: np.ndarray) -> np.ndarray:
    """Clips to [0, 1] in place; np.clip takes twice the time on planes this small."""
    np.maximum(share, 0, out=share)
    return np.minimum(share, 1, out=share)


def _surroundings(x: np.ndarray, y: np.ndarray, scan: Scan) -> np.ndarray:
    """Lung with vessels, liver below, chest wall with its fat line above left."""
    a, b, phase, weight = scan.texture.T.astype(np.float32)
    waves = [
        w * np.sin((0.08 + 0.16 * p) * x + (0.32 * q - 0.16) * y + 6.28 * f)
        for p, q, f, w in zip(a, b, phase, weight, strict=True)
    ]
    texture = sum(waves)
    image = LUNG + np.float32(0.035) * np.maximum(texture, 0)
    dome = -(34 + scan.liver_mm) + scan.liver_tilt * x - 0.0035 * (x + 12) ** 2
    liver = _share(dome - y, 3.0) * _unit((scan.stomach_mm - x - 0.4 * y) / 10)
    stomach = _share(dome - 5 - 0.006 * (x - 44) ** 2 - y, 4.0) * scan.stomach_signal
    _over(image, stomach.astype(np.float32), np.float32(0.30) + np.float32(0.05) * texture)
    _over(image, liver.astype(np.float32), (scan.liver_signal * (1 + 0.05 * texture)).astype(np.float32))
    out = (
        np.float32(np.cos(scan.chest_turn)) * x
        + np.float32(np.sin(scan.chest_turn)) * y
        - np.float32(scan.chest_mm)
    )
    for start, signal in ((-3.0, FAT * 0.75), (1.0, MUSCLE), (11.0, FAT), (11.0 + scan.fat_mm, AIR)):
        _over(image, _share(out - np.float32(start), 2.0), np.float32(signal))
    return image


def _band(hx: np.ndarray, hy: np.ndarray, scan: Scan, pixel: np.floating) -> np.ndarray:
    """RV blood darkened along the moderator band, an oblique strand."""
    along, strength = scan.band
    distance = np.abs(hy + np.float32(along) * hx + np.float32(8 + 40 * along) + 0.02 * (hx + 45) ** 2)
    return 1 - np.float32(0.45 * strength) * _share(1.4 - distance, pixel)


def _papillary_free(
    hx: np.ndarray, hy: np.ndarray, outline: Outline, scan: Scan, *, muscle_mm: float, pixel: np.floating
) -> np.ndarray:
    """Share of blood where papillary muscles are taken out."""
    blood = np.ones_like(hx)
    muscle = np.float32(0.85) * outline.ventricle.astype(np.float32)[:, None, None]
    mean = outline.cavity.mean(1).astype(np.float32)[:, None, None]
    for (degrees, depth), (turn, place, width) in zip(PAPILLARY, scan.papillary, strict=True):
        at = np.deg2rad(degrees + 9 * turn)
        column = int(at / (2 * np.pi) * ANGLES) % ANGLES
        edge = outline.cavity[:, column].astype(np.float32)[:, None, None]
        reach = edge * np.float32(depth + 0.16 + 0.04 * place)
        # Muscle keeps its area while the cavity shrinks, so papillaries fill more of it at end-systole.
        half = np.minimum(np.float32(muscle_mm + 0.4 * width), np.float32(0.34) * mean)
        away = np.hypot(hx - reach * np.float32(np.cos(at)), hy - reach * np.float32(np.sin(at)))
        blood *= 1 - muscle * _share(half - away, pixel)
    return blood


def _coil(x: np.ndarray, y: np.ndarray, scan: Scan) -> np.ndarray:
    """Sensitivity falls with the distance from the anterior coil, with a slight bow."""
    slope, across, bow = (scan.coil / np.array([70, 70, 70**2])).astype(np.float32)
    return np.exp(slope * (np.float32(0.8) * y - np.float32(0.5) * x) + across * x - bow * (x * x + y * y))


def _blur(image: np.ndarray) -> np.ndarray:
    """Point spread of the scan: (1, 3, 1) / 5 on both axes, edges kept."""
    for axis in (1, 2):
        moved = np.moveaxis(image, axis, 0)
        out = moved * np.float32(0.6)
        out[1:] += np.float32(0.2) * moved[:-1]
        out[:-1] += np.float32(0.2) * moved[1:]
        out[0] += np.float32(0.2) * moved[0]
        out[-1] += np.float32(0.2) * moved[-1]
        image = np.moveaxis(out, 0, axis)
    return np.ascontiguousarray(image)
