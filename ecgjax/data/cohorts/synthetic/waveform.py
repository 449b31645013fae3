"""ECG parameters to a twelve-lead ECG: lead field, recording nuisances, limb leads by algebra."""

import numpy as np
from jaxtyping import Float, Float32

from ecgjax.data.cohorts.synthetic.dipole import Rhythm, dipole, draw_rhythm

LEAD_FIELD = np.array(
    [  # left, inferior, posterior
        [0.66, -0.26, 0.02],  # I
        [0.24, 1.06, -0.14],  # II
        [-0.44, 0.16, -0.63],  # V1
        [-0.06, 0.28, -1.78],  # V2
        [1.18, 0.00, -1.48],  # V3
        [1.32, 0.13, -0.54],  # V4
        [1.08, 0.13, -0.07],  # V5
        [0.79, 0.17, 0.14],  # V6
    ]
)
"""The eight independent leads seen by a dipole.

Dower's coefficients (Dower et al., J Electrocardiol 13, 1980) moved half-way to the regression of 59 normal
PTB-XL beats on their own inverse-Dower vectors, then scaled by lead so that the peaks meet PTB-XL's: V1
weaker, V2 and V3 stronger, the frontal plane tilted towards I.
"""

ELECTRODE_GAIN_DEVIATION, GAIN_LOG_DEVIATION, PITCH_DEG = 0.10, 0.13, 6.0
RESPIRATION_GAIN, RESPIRATION_MV = 0.03, 0.025
WANDER_MV, WANDER_HZ = 0.03, (0.05, 0.45)
EMG_MV, EMG_LOG_DEVIATION, EMG_BAND_HZ = 0.007, 0.5, 150.0


def waveform(
    e: Float[np.ndarray, " m"], rng: np.random.Generator, *, rate_hz: float, seconds: float
) -> Float32[np.ndarray, "12 t"]:
    """One ECG in mV, leads in `LEADS` order, from the ECG parameters of one subject and nothing else.

    The heart is not an argument: heart -> parameters -> ECG is a Markov chain, which is what makes the
    attainable score of `ceiling.py` a bound. Beats and nuisances do not depend on `rate_hz`; only the
    muscle noise does, drawn last.
    """
    return recorded(e, draw_rhythm(e, rng, seconds=seconds), rng, rate_hz=rate_hz, seconds=seconds)


def recorded(
    e: Float[np.ndarray, " m"], rhythm: Rhythm, rng: np.random.Generator, *, rate_hz: float, seconds: float
) -> Float32[np.ndarray, "12 t"]:
    """As `waveform`, of a rhythm that is given."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    vector = dipole(e, rhythm, time_s)
    pitch = np.deg2rad(PITCH_DEG * rng.standard_normal())
    about_left = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    gain = np.exp(GAIN_LOG_DEVIATION * rng.standard_normal())
    electrode = 1 + ELECTRODE_GAIN_DEVIATION * rng.standard_normal((8, 1))
    breath = np.sin(2 * np.pi * (rhythm.respiration_hz * time_s + rhythm.respiration_phase))
    signal = gain * electrode * (LEAD_FIELD @ about_left) @ vector * (1 + RESPIRATION_GAIN * breath)
    signal += RESPIRATION_MV * rng.standard_normal((8, 1)) * breath
    signal += _wander(rng, time_s)
    # White up to the amplifier's band limit: a higher rate sees more of it.
    level = EMG_MV * np.exp(EMG_LOG_DEVIATION * rng.standard_normal())
    level *= np.sqrt(min(rate_hz / 2, EMG_BAND_HZ) / 50)
    signal += level * rng.standard_normal((8, len(time_s)))
    return limb_leads(signal.astype(np.float32))


def limb_leads(eight: Float32[np.ndarray, "8 t"]) -> Float32[np.ndarray, "12 t"]:
    """I, II, V1-V6 to twelve leads. Noise must already be in the eight, or Einthoven's law breaks."""
    i, ii = eight[0], eight[1]
    limb = np.stack([i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2])
    return np.concatenate([limb, eight[2:]])


def _wander(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    """Slow drift of the electrodes: four shared frequencies, the slower the larger, own phase a lead."""
    low, high = WANDER_HZ
    hz = low * (high / low) ** rng.random(4)
    turn = 2 * np.pi * hz[:, None] * time_s
    size = WANDER_MV * np.sqrt(0.1 / hz) * np.exp(0.5 * rng.standard_normal())
    sine, cosine = rng.standard_normal((2, 8, 4)) * size
    return sine @ np.sin(turn) + cosine @ np.cos(turn)
