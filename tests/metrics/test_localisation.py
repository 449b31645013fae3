import numpy as np
import pytest

from ecgjax.metrics.localisation import entropy, partner_auc, region_weight, shared_variance


def test_the_best_place_is_compared_with_other_subjects_only():
    partner = np.eye(3)
    # The first example's second place is its partner's; the second's best place is the first's partner.
    local = np.array([[[0, 0, 1.0], [5, 0, 0]], [[1, 0, 0], [0.5, 0.5, 0]], [[1, 1, 1], [1, 1, 1]]])
    got = partner_auc(local, partner, np.array([0, 1, 2]))
    # First: 1 against 0 and 1 (a tie); second: .71 against 1 and 0; third: ties with all.
    np.testing.assert_allclose(got, [0.75, 0.5, 0.5])
    got = partner_auc(local, partner, np.array([0, 0, 1]))
    np.testing.assert_allclose(got, [0.5, 1.0, 0.5])
    assert np.isnan(partner_auc(local, partner, np.zeros(3, int))).all()


def test_a_map_that_everyone_has_is_shared_and_unrelated_maps_are_not():
    generator = np.random.default_rng(0)
    one = generator.normal(size=500)
    same = one + np.arange(20)[:, None]  # The level of a map does not count.
    assert shared_variance(same) == pytest.approx(1)
    assert shared_variance(generator.normal(size=(20, 500))) == pytest.approx(1 / 20, abs=0.02)
    assert np.isnan(shared_variance(np.ones((3, 4))))


def test_entropy_is_a_part_of_the_flat_maps():
    shares = np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(entropy(shares), [1, 0, 0.5], atol=1e-12)


def test_region_weights_cells_by_what_lies_inside():
    got = region_weight((0.25, 0.0, 0.5, 0.125), height=4, width=4)
    np.testing.assert_allclose(got, np.outer([0, 1, 1, 0], [0.5, 0, 0, 0]))
    assert region_weight((0.1, 0.2, 0.3, 0.4), height=7, width=5).mean() == pytest.approx(0.3 * 0.4)
