import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.augment import time_axis as ops

RAMP = jnp.arange(1.0, 17.0)[None]


def over_keys(function, n=4000):
    return np.asarray(jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(0), n)))


def shares(values):
    """Values that were drawn, and the share of each."""
    found, counts = np.unique(np.round(values, 4), return_counts=True)
    return found, counts / counts.sum()


def test_every_start_of_a_crop_is_as_likely_the_last_one_too():
    crops = over_keys(lambda key: ops.random_crop(key, RAMP, length=13))
    starts, share = shares(crops[:, 0, 0])
    np.testing.assert_array_equal(starts, [1, 2, 3, 4])
    np.testing.assert_allclose(share, 0.25, atol=0.03)
    np.testing.assert_array_equal(np.diff(crops[:, 0]), 1)
    with pytest.raises(ValueError, match="crop of 17 samples from an ECG of 16; choose"):
        ops.random_crop(jax.random.key(0), RAMP, length=17)


def test_a_resized_crop_draws_its_length_then_its_start():
    outs = over_keys(lambda key: ops.crop_resize(key, RAMP, share=(0.5, 1.0)))[:, 0]
    starts, lengths = outs[:, 0], outs[:, -1] - outs[:, 0] + 1
    found, share = shares(lengths)
    np.testing.assert_array_equal(found, np.arange(8, 16))
    np.testing.assert_allclose(share, 1 / 8, atol=0.025)
    for length in found:
        of_length, share = shares(starts[lengths == length])
        np.testing.assert_array_equal(of_length, np.arange(1, 18 - length))
        np.testing.assert_allclose(share, 1 / (17 - length), atol=0.1)


def test_a_resized_crop_of_a_fixed_share_keeps_its_length_and_is_stretched_to_the_record():
    outs = over_keys(lambda key: ops.crop_resize(key, RAMP), n=200)
    assert outs.shape == (200, 1, 16)
    np.testing.assert_array_equal(outs[:, 0, -1] - outs[:, 0, 0], 11)


@pytest.mark.parametrize("size", [2, 7, 23])
def test_resizing_interpolates_as_numpy(size):
    ecg = jax.random.normal(jax.random.key(1), (2, 16))
    got = jax.jit(lambda ecg: ops.crop_resize_by(ecg, jnp.array(3), jnp.array(9), size=size))(ecg)
    want = [np.interp(np.linspace(0, 9, size), np.arange(9), lead[3:12]) for lead in np.asarray(ecg)]
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_resizing_refuses_what_it_cannot_do():
    key = jax.random.key(0)
    for share in ((0.0, 0.5), (0.6, 0.5), (0.5, 1.1)):
        with pytest.raises(ValueError, match="choose 0 < lower <= upper <= 1"):
            ops.crop_resize(key, RAMP, share=share)
    with pytest.raises(ValueError, match="leaves none"):
        ops.crop_resize(key, RAMP, share=(0.01, 0.5))
    with pytest.raises(ValueError, match="resize to 1 samples"):
        ops.crop_resize_by(RAMP, jnp.array(0), jnp.array(9), size=1)


@pytest.mark.parametrize("late", [False, True])
def test_a_shift_pads_with_zeros_and_keeps_a_window(late):
    shifted = jax.jit(lambda left: ops.shift_by(RAMP, left, jnp.array(late), padding=8))
    for left in range(8):
        padded = np.pad(np.asarray(RAMP[0]), (left, 8 - left))
        first = 8 - left if late else 0
        got = shifted(left)
        np.testing.assert_array_equal(got[0], padded[first : first + 16])


def test_a_shift_splits_the_padding_uniformly_and_takes_either_window():
    ramp = jnp.arange(1.0, 41.0)[None]
    outs = over_keys(lambda key: ops.shift(key, ramp, rate_hz=2.0, padding_s=4.0))[:, 0]
    # The middle sample tells by how much the record moved: left, or left - right = 2 left - 8.
    moved, share = shares(ramp[0, 20] - outs[:, 20])
    want = {}
    for left in range(8):
        for by in (left, 2 * left - 8):
            want[by] = want.get(by, 0) + 1 / 16
    np.testing.assert_array_equal(moved, sorted(want))
    np.testing.assert_allclose(share, [want[by] for by in moved], atol=0.02)


def test_a_nudge_moves_by_every_number_of_samples_as_often_and_repeats_the_edge():
    ramp = jnp.broadcast_to(jnp.arange(10.0), (2, 10))
    np.testing.assert_array_equal(ops.nudge_by(ramp, jnp.array(2))[0], [0, 0, 0, 1, 2, 3, 4, 5, 6, 7])
    np.testing.assert_array_equal(ops.nudge_by(ramp, jnp.array(-1))[1], [1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    outs = over_keys(lambda key: ops.nudge(key, ramp, samples=2))
    moved, share = shares(5 - outs[:, 0, 5])
    np.testing.assert_array_equal(moved, [-2, -1, 0, 1, 2])
    np.testing.assert_allclose(share, 0.2, atol=0.03)
    with pytest.raises(ValueError, match="nudge by up to 10 samples of 10; choose 0 to 9"):
        ops.nudge(jax.random.key(0), ramp, samples=10)


@pytest.mark.parametrize("leads", ["together", "apart"])
def test_masked_windows_have_their_length_and_number(leads):
    ones = jnp.ones((3, 60))
    outs = over_keys(lambda key: ops.mask_windows(key, ones, factor=0.5, length=10, leads=leads), n=500)
    silent = outs == 0
    # Three windows; rounding the gaps may take samples from the last one.
    assert ((silent.sum(2) >= 28) & (silent.sum(2) <= 30)).all()
    assert (silent.sum(2) == 30).mean() > 0.9
    same = (silent == silent[:, :1]).all((1, 2))
    assert same.all() if leads == "together" else same.mean() < 0.05
    # Symmetric in time, up to the rounding.
    np.testing.assert_allclose(silent.mean((0, 1)), silent.mean((0, 1))[::-1], atol=0.12)


def test_windows_lie_between_gaps_in_proportion():
    out = ops.mask_windows_by(jnp.ones((1, 10)), jnp.array([[1.0, 0.0, 3.0]]), length=3)
    np.testing.assert_array_equal(out[0], [1, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="2 windows of 6 samples do not fit into 10"):
        ops.mask_windows_by(jnp.ones((1, 10)), jnp.ones((1, 3)), length=6)


@pytest.mark.parametrize("step", [1, 2, 7])
def test_thinning_interpolates_as_numpy(step):
    ecg = jax.random.normal(jax.random.key(1), (2, 16))
    kept = np.arange(0, 16, step)
    want = [np.interp(np.arange(16), kept, lead[kept]) for lead in np.asarray(ecg)]
    np.testing.assert_allclose(jax.jit(lambda ecg: ops.thin(ecg, step=step))(ecg), want, atol=1e-6)
