import numpy as np
import pytest
from heart_world import World, separable

from ecgjax.evaluators.reconstruction import Reconstruction


def halved(batch):
    out = separable(batch)
    out["reconstruction"] = batch["ecg"] / 2
    return out


def test_errors_are_over_hidden_samples_only_and_arrays_are_in_mv():
    world = World()
    results = Reconstruction(examples=3).run(halved, world.splits())
    truth = world.ecg["test"].astype(float)
    hidden, visible = truth[:, :, ::2], truth[:, :, 1::2]
    assert results.scalars["mse_hidden/model"] == pytest.approx(np.mean((hidden / 2) ** 2))
    assert results.scalars["mse_hidden/zero"] == pytest.approx(np.mean(hidden**2))
    constant = visible.mean(axis=2, keepdims=True)
    assert results.scalars["mse_hidden/visible_mean"] == pytest.approx(np.mean((hidden - constant) ** 2))
    assert results.scalars["ncc_hidden/model"] == pytest.approx(1)
    assert results.scalars["n"] == 130
    arrays = results.arrays
    np.testing.assert_allclose(arrays["original_mv"], 2 * truth[:3] + 0.1, rtol=1e-5)
    np.testing.assert_allclose(arrays["reconstruction_mv"], truth[:3] + 0.1, rtol=1e-5)
    assert arrays["hidden"].dtype == np.bool_
    np.testing.assert_array_equal(arrays["hidden"][0, 0, :4], [True, False, True, False])
    np.testing.assert_array_equal(arrays["record"], world.table["test"].record[:3])


def test_only_the_first_crop_of_an_example_counts():
    want = Reconstruction().run(halved, World().splits()).scalars
    got = Reconstruction().run(halved, World(crops=3, batch_size=8).splits()).scalars
    assert got == pytest.approx(want)
