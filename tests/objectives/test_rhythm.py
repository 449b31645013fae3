import jax
import jax.numpy as jnp
import numpy as np

from ecgjax.objectives.rhythm import WIDTH, rhythm_features

NAN = float("nan")


def test_features_are_logarithms_of_ratios_by_hand():
    rr = jnp.array([[0.6, 1.0, 0.8, 0.9], [0.8, 0.8, 0.8, 0.8]])
    got = jax.jit(rhythm_features)(rr)
    want = np.log([0.6 / 0.8, 1.0 / 0.8, 0.6 / 0.9]) / 0.2
    np.testing.assert_allclose(got, [want, np.zeros(WIDTH)], rtol=1e-5)
    np.testing.assert_allclose(
        rhythm_features(rr / 2), got, atol=1e-5
    )  # A faster heart is not an early beat.


def test_what_is_unknown_or_far_off_stays_bounded():
    rr = jnp.array([[NAN, 1.0, 0.8, 0.9], [0.6, NAN, NAN, NAN], [0.0, 90.0, 0.8, 0.9]])
    got = np.asarray(rhythm_features(rr))
    np.testing.assert_allclose(got[0], [0, np.log(1.25) / 0.2, 0], rtol=1e-5)
    np.testing.assert_array_equal(got[1], 0)
    np.testing.assert_array_equal(got[2], [0, 5, 0])
