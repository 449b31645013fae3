import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.losses.reconstruction import mse_all, mse_masked, ncc, normalise_patches, reconstruction_loss


def draw(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def test_masked_error_counts_hidden_patches_alone():
    prediction, target = jnp.array([[[1.0, 1.0], [5.0, 5.0]]]), jnp.zeros((1, 2, 2))
    np.testing.assert_allclose(mse_all(prediction, target), 13)
    np.testing.assert_allclose(mse_masked(prediction, target, jnp.array([[1.0, 0.0]])), 1)
    np.testing.assert_allclose(mse_masked(prediction, target, jnp.zeros((1, 2))), 0)


def test_correlation_equals_numpy_lead_by_lead():
    prediction, target = draw(2, 3, 50), draw(2, 3, 50, seed=1)
    want = np.mean([np.corrcoef(prediction[b, l], target[b, l])[0, 1] for b in range(2) for l in range(3)])
    np.testing.assert_allclose(ncc(prediction, target), want, atol=1e-5)


def test_correlation_ignores_gain_and_offset_and_sees_the_sign():
    signal = draw(2, 3, 50)
    np.testing.assert_allclose(ncc(3 * signal + 7, signal), 1, rtol=1e-5)
    np.testing.assert_allclose(ncc(-signal, signal), -1, rtol=1e-5)


def test_correlation_averages_over_channels():
    prediction, target = draw(2, 2, 3, 50), draw(2, 2, 3, 50, seed=1)
    channels = [ncc(prediction[:, c], target[:, c]) for c in range(2)]
    np.testing.assert_allclose(ncc(prediction, target), np.mean(channels), atol=1e-6)


def test_flat_leads_give_zero_correlation_and_finite_gradients():
    target = draw(2, 3, 20).at[:, 1].set(0.0)
    prediction = draw(2, 3, 20, seed=1).at[0, 2].set(0.5)

    def loss(patches, target):
        mask = jnp.ones(patches.shape[:2])
        wanted, ecg = target.reshape(2, 6, 10), patches.reshape(2, 3, 20)
        return reconstruction_loss(patches, wanted, mask, ecg, target, targets="normalised")["loss"]

    value, gradient = jax.value_and_grad(loss)(prediction.reshape(2, 6, 10), target)
    assert bool(jnp.isfinite(value))
    assert bool(jnp.isfinite(gradient).all())
    np.testing.assert_allclose(ncc(prediction[:, 1:2], target[:, 1:2]), 0, atol=1e-6)


def test_normalised_patches_have_unit_unbiased_variance():
    patches = 5 + 3 * draw(2, 4, 30)
    got = np.asarray(normalise_patches(patches))
    np.testing.assert_allclose(got.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(got.var(-1, ddof=1), 1, rtol=1e-4)


def test_loss_weighs_its_parts_over_whole_leads():
    prediction, target = draw(2, 6, 10), draw(2, 6, 10, seed=1)
    leads = prediction.reshape(2, 3, 20), target.reshape(2, 3, 20)
    loss = reconstruction_loss(prediction, target, jnp.ones((2, 6)), *leads, ncc_weight=0.25)
    correlation = ncc(*leads)
    np.testing.assert_allclose(loss["ncc"], correlation)
    want = 0.75 * np.mean(np.square(prediction - target)) + 0.25 * (1 - float(correlation))
    np.testing.assert_allclose(loss["loss"], want, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"scope": "hidden"}, "unknown scope 'hidden'"), ({"targets": "z"}, "choose from raw, normalised")],
)
def test_unknown_choices_are_named(options, match):
    patches = jnp.zeros((1, 2, 4))
    with pytest.raises(ValueError, match=match):
        reconstruction_loss(patches, patches, jnp.ones((1, 2)), patches, patches, **options)
