import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import stft

from configs.prepare import IMAGES
from ecgjax.core.spec import ImageSpec
from ecgjax.models.stft import mask_bands, stft_image
from ecgjax.signals.stft import log_image

PLAIN = {"mean": 0.0, "std": 1.0}
SPECS = {name: ImageSpec(**sizes, **PLAIN) for name, sizes in IMAGES.items()}
# A hop that does not divide the window, frames short of the end, a window as long as the transform.
SPECS["odd"] = ImageSpec(span=200, win=30, hop=7, n_fft=32, bins=17, frames=20, **PLAIN)


def magnitude(image, spec):
    return np.exp(np.asarray(image, np.float64)) - spec.log_eps


def signal(spec, seed=0):
    """Two signals of mV size: noise of all frequencies and a slow wave."""
    noise = np.random.default_rng(seed).normal(size=(2, spec.span))
    return jnp.asarray(noise + np.sin(np.arange(spec.span) / 20), jnp.float32)


@pytest.mark.parametrize("name", SPECS)
def test_equals_the_numpy_twin(name):
    spec = SPECS[name]
    got = jax.jit(lambda x: stft_image(x, spec))(signal(spec))
    assert got.dtype == jnp.float32
    # The logarithm turns an error of 1e-8 in |X|, which rounding leaves, into one of 1e-8 / log_eps.
    want = log_image(np.asarray(signal(spec), np.float64), spec)
    np.testing.assert_allclose(magnitude(got, spec), magnitude(want, spec), atol=1e-6)
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("name", SPECS)
def test_equals_scipy(name):
    spec = SPECS[name]
    _, _, want = stft(
        np.asarray(signal(spec), np.float64),
        window="hann",
        nperseg=spec.win,
        noverlap=spec.win - spec.hop,
        nfft=spec.n_fft,
    )
    got = magnitude(stft_image(signal(spec), spec), spec)
    np.testing.assert_allclose(got, np.abs(want[:, : spec.bins, : spec.frames]), atol=1e-5)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("amplitude", [0.02, 1.0, 3.0])
def test_a_sinusoid_at_a_bin_has_half_its_amplitude(name, amplitude):
    spec = SPECS[name]
    at = spec.bins // 2
    x = amplitude * np.cos(2 * np.pi * at * np.arange(spec.span) / spec.n_fft + 0.3)
    got = magnitude(stft_image(jnp.asarray(x, jnp.float32), spec), spec)
    whole = slice(spec.win // spec.hop, -spec.win // spec.hop)  # Windows that meet no end.
    # The window's own width and that of its mirror image end before this bin.
    np.testing.assert_allclose(got[at, whole], amplitude / 2, atol=1e-5)


def test_it_is_standardised_and_takes_any_leading_axes():
    spec = SPECS["odd"]
    x = jnp.stack([signal(spec, seed) for seed in range(3)])
    plain = stft_image(x, spec)
    assert plain.shape == (3, 2, 17, 20)
    moved = ImageSpec(**{**vars(spec), "mean": -2.0, "std": 4.0})
    np.testing.assert_allclose(stft_image(x, moved), (plain + 2) / 4, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda one: stft_image(one, spec))(x), plain, atol=1e-5)


def test_half_precision_signals_are_computed_in_float32():
    spec = SPECS["odd"]
    x = jnp.asarray(signal(spec), jnp.bfloat16)
    got = stft_image(x, spec)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, stft_image(x.astype(jnp.float32), spec))


def test_a_flat_line_has_a_finite_image_and_gradient():
    spec = SPECS["odd"]
    image, gradient = jax.value_and_grad(lambda x: stft_image(x, spec).sum())(jnp.zeros(spec.span))
    assert float(image) == pytest.approx(17 * 20 * np.log(1e-3), rel=1e-5)
    assert np.all(np.isfinite(gradient))


def test_an_image_that_nobody_measured_is_refused():
    spec = ImageSpec(**IMAGES["default"])
    with pytest.raises(ValueError, match=r"config\.ecg\.image has no mean and std.*prepare"):
        stft_image(jnp.zeros(1024), spec)
    with pytest.raises(ValueError, match="1000 samples; the image spans 1024"):
        stft_image(jnp.zeros(1000), SPECS["default"])


def test_masks_hide_one_band_of_each_kind_of_any_width_up_to_the_widest():
    image = jnp.ones((500, 12, 10))
    masked = np.asarray(mask_bands(jax.random.key(0), image, frequencies=4, times=3)) == 0
    rows, columns = masked.all(2), masked.all(1)
    np.testing.assert_array_equal(masked, rows[:, :, None] | columns[:, None, :])
    for band, widest in ((rows, 4), (columns, 3)):
        assert set(band.sum(1)) == set(range(widest + 1))
        assert (np.abs(np.diff(np.pad(band, ((0, 0), (1, 1))).astype(int))).sum(1) <= 2).all()  # One piece.
        assert band.any(0).all()  # Any place may be hidden.
    assert not np.asarray(mask_bands(jax.random.key(0), image, frequencies=0, times=0) == 0).any()
