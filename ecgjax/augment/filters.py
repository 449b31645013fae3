"""Filters of an ECG, on the device.

All filters are linear and start from silence: the record is followed by as many zeros, multiplied in frequency, and
cut to its length.
"""

import itertools
from typing import Literal

import jax.numpy as jnp
import numpy as np
import scipy.signal
from jaxtyping import Array, Float

from ecgjax.core.precision import wide

Kind = Literal["low_pass", "high_pass", "band_pass", "band_stop"]


def ideal_filter(
    ecg: Float[Array, "l t"], *, kind: Kind, edges_hz: tuple[float, ...], rate_hz: float
) -> Float[Array, "l t"]:
    """Keeps or drops whole frequencies; one that lies exactly on an edge is halved. No phase shift.

    `edges_hz` is (edge,) for `low_pass` and `high_pass`, (lower, upper) for the bands.
    """
    _check_edges(kind, edges_hz, rate_hz)
    frequency = _frequencies(ecg, rate_hz)
    above = np.heaviside(frequency - edges_hz[0], 0.5)
    inside = above * np.heaviside(edges_hz[-1] - frequency, 0.5)
    gain = {"low_pass": 1 - above, "high_pass": above, "band_pass": inside, "band_stop": 1 - inside}[kind]
    return _multiply(ecg, gain)


def gaussian_filter(
    ecg: Float[Array, "l t"], *, kind: Kind, scale_hz: float, rate_hz: float, centre_hz: float = 0.0
) -> Float[Array, "l t"]:
    """Multiplies frequency f by exp(-((f - centre) / scale)^2), or by 1 minus it. No phase shift.

    `low_pass` and `high_pass` have their centre at 0.
    """
    if scale_hz <= 0:
        raise ValueError(f"Gaussian filter of scale {scale_hz} Hz; choose a scale above 0.")
    if kind in ("low_pass", "high_pass") and centre_hz != 0:
        raise ValueError(f"{kind} is centred at 0, not {centre_hz} Hz; choose band_pass or band_stop.")
    gain = np.exp(-(((_frequencies(ecg, rate_hz) - centre_hz) / scale_hz) ** 2))
    return _multiply(ecg, gain if kind in ("low_pass", "band_pass") else 1 - gain)


def butterworth_filter(
    ecg: Float[Array, "l t"], *, kind: Kind, edges_hz: tuple[float, ...], rate_hz: float, order: int = 10
) -> Float[Array, "l t"]:
    """Causal Butterworth filter of `order`; for the bands it has twice as many poles.

    `edges_hz` as in `ideal_filter`.
    """
    _check_edges(kind, edges_hz, rate_hz)
    name = {"low_pass": "low", "high_pass": "high", "band_pass": "bandpass", "band_stop": "bandstop"}[kind]
    edges = edges_hz if len(edges_hz) == 2 else edges_hz[0]
    return _convolve(ecg, scipy.signal.butter(order, edges, name, fs=rate_hz, output="sos"))


def notch_filter(
    ecg: Float[Array, "l t"], *, frequency_hz: float, width_hz: float, rate_hz: float
) -> Float[Array, "l t"]:
    """Causal second-order filter that removes `frequency_hz` and halves the power `width_hz` / 2 beside it."""
    _check_edges("low_pass", (frequency_hz,), rate_hz)
    design = scipy.signal.iirnotch(frequency_hz, frequency_hz / width_hz, fs=rate_hz)
    return _convolve(ecg, scipy.signal.tf2sos(*design))


def _check_edges(kind, edges_hz, rate_hz):
    wanted = 2 if kind in ("band_pass", "band_stop") else 1
    if len(edges_hz) != wanted:
        raise ValueError(f"{kind} with edges {edges_hz} Hz; give {wanted}.")
    bounds = (0, *edges_hz, rate_hz / 2)
    if any(a >= b for a, b in itertools.pairwise(bounds)):
        raise ValueError(
            f"{kind} with edges {edges_hz} Hz; choose rising ones between 0 and {rate_hz / 2} Hz."
        )


def _frequencies(ecg, rate_hz):
    return np.fft.rfftfreq(2 * ecg.shape[1], 1 / rate_hz)


def _multiply(ecg, gain):
    time, values = ecg.shape[1], wide(ecg)
    spectrum = jnp.fft.rfft(values, n=2 * time) * jnp.asarray(gain, values.dtype)
    return jnp.fft.irfft(spectrum, n=2 * time)[:, :time].astype(ecg.dtype)


def _convolve(ecg, sections):
    # A recursion is slow on the device; its impulse response, computed in double here, says the same.
    time, values = ecg.shape[1], wide(ecg)
    impulse = np.zeros(time)
    impulse[0] = 1
    response = np.fft.rfft(scipy.signal.sosfilt(sections, impulse), n=2 * time)
    kind = jnp.promote_types(values.dtype, jnp.complex64)
    spectrum = jnp.fft.rfft(values, n=2 * time) * jnp.asarray(response, kind)
    return jnp.fft.irfft(spectrum, n=2 * time)[:, :time].astype(ecg.dtype)
