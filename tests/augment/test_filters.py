import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from ecgjax.augment import filters as ops

ECG = jax.random.normal(jax.random.key(3), (2, 300))
RATE = 100.0


def once(function, ecg, **options):
    """Compiles the whole function; operation by operation takes longer."""
    return jax.jit(functools.partial(function, **options))(ecg)


@pytest.mark.parametrize(
    ("kind", "edges", "name"),
    [("low_pass", (10.0,), "low"), ("high_pass", (0.5,), "high"), ("band_stop", (12.0, 20.0), "bandstop")],
)
def test_butterworth_filters_as_the_recursion_does(kind, edges, name):
    got = once(ops.butterworth_filter, ECG, kind=kind, edges_hz=edges, rate_hz=RATE, order=3)
    design = scipy.signal.butter(3, edges if len(edges) == 2 else edges[0], name, fs=RATE, output="sos")
    np.testing.assert_allclose(got, scipy.signal.sosfilt(design, np.asarray(ECG)), atol=1e-5)


def test_notch_filters_as_the_recursion_does_and_removes_its_frequency():
    got = once(ops.notch_filter, ECG, frequency_hz=25.0, width_hz=2.0, rate_hz=RATE)
    design = scipy.signal.iirnotch(25.0, 12.5, fs=RATE)
    np.testing.assert_allclose(got, scipy.signal.lfilter(*design, np.asarray(ECG)), atol=1e-5)
    hum = jnp.asarray(np.sin(2 * np.pi * 25 * np.arange(300) / RATE), jnp.float32)[None]
    assert (
        np.abs(once(ops.notch_filter, hum, frequency_hz=25.0, width_hz=2.0, rate_hz=RATE)[:, 200:]).max()
        < 0.01
    )


def test_ideal_filters_share_the_signal_out():
    def filtered(kind, *edges):
        return np.asarray(once(ops.ideal_filter, ECG, kind=kind, edges_hz=edges, rate_hz=RATE))

    # 12.5 Hz is a frequency of 600 samples: it lies on the edge, and each side gets half.
    low, high = filtered("low_pass", 12.5), filtered("high_pass", 12.5)
    band, rest = filtered("band_pass", 12.5, 20.0), filtered("band_stop", 12.5, 20.0)
    np.testing.assert_allclose(low + high, ECG, atol=1e-5)
    np.testing.assert_allclose(band + rest, ECG, atol=1e-5)
    np.testing.assert_allclose(low + band + filtered("high_pass", 20.0), ECG, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "centre", "gain"),
    [("low_pass", 0.0, np.exp(-4)), ("high_pass", 0.0, 1 - np.exp(-4)), ("band_pass", 15.0, np.exp(-1))],
)
def test_a_gaussian_filter_scales_a_tone_by_its_gain(kind, centre, gain):
    tone = jnp.asarray(np.sin(2 * np.pi * 20 * np.arange(300) / RATE), jnp.float32)[None]
    scale = 10.0 if centre == 0 else 5.0
    got = once(ops.gaussian_filter, tone, kind=kind, scale_hz=scale, centre_hz=centre, rate_hz=RATE)
    np.testing.assert_allclose(got[:, 100:200], gain * tone[:, 100:200], atol=1e-3)


def test_filters_refuse_edges_that_make_no_sense():
    def filtered(kind, *edges):
        return ops.ideal_filter(ECG, kind=kind, edges_hz=edges, rate_hz=RATE)

    with pytest.raises(
        ValueError, match=r"low_pass with edges \(60.0,\) Hz; choose rising ones between 0 and 50"
    ):
        filtered("low_pass", 60.0)
    with pytest.raises(ValueError, match="choose rising ones"):
        filtered("band_pass", 20.0, 10.0)
    with pytest.raises(ValueError, match="give 2"):
        filtered("band_stop", 20.0)
    with pytest.raises(ValueError, match=r"low_pass is centred at 0, not 5\.0 Hz"):
        ops.gaussian_filter(ECG, kind="low_pass", scale_hz=5.0, centre_hz=5.0, rate_hz=RATE)
    with pytest.raises(ValueError, match=r"Gaussian filter of scale 0\.0 Hz"):
        ops.gaussian_filter(ECG, kind="low_pass", scale_hz=0.0, rate_hz=RATE)
