"""Every golden augmentation, from the stored draws; also, where we mend a quirk, what the quirk was."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from formula import Golden

from ecgjax.augment import colour, ecg, filters, scaling, spectral, time_axis

USES = {"augment": ["*"]}
FLOOR = 1e-5
# The README's filter settings, which the file does not hold.
RATE_HZ, CENTRE_HZ, WIDTH_HZ, ORDER, WELCH = 250.0, 20.0, 5.0, 4, 256
KINDS = ("low_pass", "high_pass", "band_pass", "band_stop")


@pytest.fixture(scope="module")
def golden(goldens, precision):
    return Golden(goldens, "augment", precision)


@pytest.fixture
def x(golden):
    record = golden.input("x")[0]
    assert record.shape[1] == golden.meta["T"]
    return record


def once(function, *arrays, **options):
    """Compiles the whole function; operation by operation takes longer."""
    return jax.jit(functools.partial(function, **options))(*arrays)


def names(golden, pattern):
    """First groups of the keys that match all of `pattern`."""
    found = [match[1] for key in golden.files if (match := re.fullmatch(pattern, key))]
    assert found, pattern
    return found


def test_jitter(golden, x):
    assert golden.meta["jitter_amplitude"] == ecg.JITTER_AMPLITUDE
    # The golden's noise already holds the deviation.
    got = once(ecg.jitter_by, x, golden.input("jitter/noise")[0], deviation=1.0)
    golden.check("jitter/out", got[None], floor=FLOOR)


def test_rescale(golden, x):
    golden.check("rescale/out", once(ecg.rescale_by, x, golden.input("rescale/factor"))[None], floor=FLOOR)


@pytest.mark.parametrize("name", ["timeflip", "signflip"])
def test_flips(golden, x, name):
    flip = {"timeflip": ecg.time_flip, "signflip": ecg.sign_flip}[name]
    golden.check(f"{name}/out", flip(jax.random.key(0), x, probability=1.0)[None], floor=FLOOR)


def test_permutation(golden, x):
    got = once(ecg.permute_leads_by, x, golden.input("permutation/perm"))
    golden.check("permutation/out", got[None], floor=FLOOR)


def test_shift(golden, x):
    for name in names(golden, r"shift_(\w+)/out"):
        u, padding = golden[f"shift_{name}/u"], int(golden[f"shift_{name}/padding_len"])
        # The stored draws are rounded to float32: 0.7 times 500 is 350 there, and 349.99999 in double.
        left = jnp.asarray(int(u[0] * np.float32(padding)))
        got = once(time_axis.shift_by, x, left, jnp.asarray(u[1] >= 0.5), padding=padding)
        golden.check(f"shift_{name}/out", got[None], floor=FLOOR)


def test_crop_and_resize(golden, x):
    start, length = (golden.input(f"crop/{k}") for k in ("start", "len"))
    golden.check("crop/out", once(time_axis.crop, x, start, length=int(length))[None], floor=FLOOR)
    golden.check(
        "cropresize/out",
        once(time_axis.crop_resize_by, x, start, length, size=golden.meta["T"])[None],
        floor=FLOOR,
    )
    for size in names(golden, r"cropresize/len(\d+)_out"):
        got = once(time_axis.crop_resize_by, x, start, length, size=int(size))
        golden.check(f"cropresize/len{size}_out", got[None], floor=FLOOR)


def test_interpolation(golden, x):
    for step in names(golden, r"interp_step(\d+)/out"):
        got = once(time_axis.thin, x, step=int(step))
        golden.check(f"interp_step{step}/out", got[None], floor=FLOOR)


@pytest.mark.parametrize("name", ["mask_block", "mask_random2d"])
def test_masking(golden, x, name):
    weights, want = golden.input(f"{name}/weights"), golden[f"{name}/out"]
    silent = (want.reshape(x.shape)[0] == 0).sum()
    length, rest = divmod(int(silent), weights.shape[1] - 1)
    assert rest == 0
    got = once(time_axis.mask_windows_by, x, weights, length=length)
    golden.check(f"{name}/out", got.reshape(want.shape), floor=FLOOR)


@pytest.mark.parametrize("parity", ["even", "odd"])
def test_surrogate(golden, x, parity):
    record = x[:, : int(golden[f"ft_{parity}/n"])]
    for case in names(golden, rf"ft_{parity}/out_((?:indep_)?mag[\d.]+)"):
        apart = case.startswith("indep")
        uniform = golden.input(f"ft_{parity}/u_indep") if apart else golden.input(f"ft_{parity}/u")[0]
        assert spectral.shifted_frequencies(record.shape[1]) == uniform.shape[-1]
        got = once(spectral.ft_surrogate_by, record, uniform, magnitude=float(case.split("mag")[1]))
        key = f"ft_{parity}/out_{case}"
        golden.check(key, got.reshape(golden[key].shape), floor=FLOOR)


def test_frequency_shift(golden, x):
    time = x.shape[1]
    for hertz in names(golden, r"freqshift_(-?[\d.]+)/out"):
        key = f"freqshift_{hertz}/out"
        # The reference's angles are rounded to float32 on the way, which moves its result by up to 6e-6.
        seconds = np.arange(time, dtype=np.float32) / np.float32(RATE_HZ)
        angle = np.float32(2 * np.pi * float(hertz)) * seconds
        golden.check(key, once(spectral.turn_by, x, jnp.asarray(angle, x.dtype))[None], floor=FLOOR)
        exact = once(spectral.shift_frequencies_by, x, jnp.asarray(float(hertz), x.dtype), rate_hz=RATE_HZ)
        np.testing.assert_allclose(exact[None], golden[key], atol=FLOOR * np.abs(golden[key]).max())


@pytest.mark.parametrize("axis", ["freq", "time"])
def test_spec_augment(golden, x, axis):
    start, ratio, window = (golden[f"spec_{axis}/{k}"] for k in ("start", "ratio", "n_fft"))
    bins, frames = spectral.spectrogram_shape(x.shape[1], window=int(window))
    cut, size = {
        "freq": (spectral.cut_frequencies_by, bins),
        "time": (spectral.cut_frames_by, frames),
    }[axis]
    got = once(cut, x, jnp.asarray(start), count=int(float(ratio) * size), window=int(window))
    golden.check(f"spec_{axis}/out", got[None], floor=FLOOR)


def test_fourier_in_and_out_are_numpys(golden, x):
    """No view: an encoder would read two channels, or leads. The reference's shift to the middle moves leads too."""
    time = x.shape[1]
    spectrum = np.fft.fftshift(np.fft.fft(np.asarray(x, np.float64))) / time
    stacked = np.stack([spectrum.real, spectrum.imag]).astype(golden.precision)
    layouts = {
        "unsq": stacked,
        "concat": stacked.swapaxes(0, 1).reshape(-1, time),
        "half": stacked[..., time // 2 :],
    }
    for key, want in layouts.items():
        golden.check(f"tofourier/out_{key}", want, floor=FLOOR)
    back = np.fft.ifft(np.fft.ifftshift(spectrum * time)).real.astype(golden.precision)
    golden.check("fourier_roundtrip/out", back, floor=FLOOR)


def test_gamma(golden, x):
    for exponent in names(golden, r"gamma_([\d.]+)/out"):
        value = jnp.asarray(float(exponent), x.dtype)
        golden.check(f"gamma_{exponent}/out", once(colour.gamma_by, x, value)[None], floor=FLOOR)
        golden.check(f"gamma_{exponent}/out_pos", once(colour.gamma_by, jnp.abs(x), value)[None], floor=FLOOR)


@pytest.mark.parametrize(("name", "scope"), [("sample_wise", "record"), ("channel_wise", "lead")])
def test_scaling(golden, x, name, scope):
    golden.check(f"norm_{name}/out", once(scaling.normalise, x, scope=scope), floor=FLOOR)
    golden.check(f"minmax_{name}/out", once(scaling.min_max, x, scope=scope), floor=FLOOR)


@pytest.mark.parametrize("kind", KINDS)
def test_filters(golden, x, kind):
    edges = (CENTRE_HZ - WIDTH_HZ / 2, CENTRE_HZ + WIDTH_HZ / 2) if "band" in kind else (CENTRE_HZ,)
    got = once(filters.ideal_filter, x, kind=kind, edges_hz=edges, rate_hz=RATE_HZ)
    golden.check(f"ideal_{kind}/out", got, floor=FLOOR)
    got = once(filters.butterworth_filter, x, kind=kind, edges_hz=edges, rate_hz=RATE_HZ, order=ORDER)
    golden.check(f"butter_{kind}/out", got, floor=FLOOR)
    # Found from the arrays: without a band the reference stretches the centre to its scale.
    centre, scale = {
        "low_pass": (0.0, 1.5 * CENTRE_HZ),
        "high_pass": (0.0, 2 * CENTRE_HZ),
        "band_pass": (CENTRE_HZ, WIDTH_HZ),
        "band_stop": (CENTRE_HZ, WIDTH_HZ),
    }[kind]
    got = once(filters.gaussian_filter, x, kind=kind, centre_hz=centre, scale_hz=scale, rate_hz=RATE_HZ)
    golden.check(f"gauss_{kind}/out", got, floor=FLOOR)


def test_the_power_spectrum_is_scipys(golden, x):
    _, power = scipy.signal.welch(np.asarray(x, np.float64), RATE_HZ, nperseg=WELCH)
    golden.check("psd/out", power.astype(golden.precision), floor=FLOOR)
