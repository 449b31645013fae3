import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.augment.mixing import Mixing, cutmix, mix, mix_targets, mixup, random_box

DRAWS = 400


def drawn(mixing, draws=DRAWS):
    """Share, and what row 0 of a batch of ones and minus ones keeps of its own, over many keys."""
    x = jnp.stack([jnp.ones((6, 40)), jnp.full((6, 40), -1.0)])
    keys = jax.random.split(jax.random.key(0), draws)
    out = jax.jit(jax.vmap(lambda key: mix(key, x, mixing)))(keys)
    return np.asarray(out.share), np.asarray(out.x[:, 0])


def test_mixup_by_hand():
    x = jnp.array([1.0, 2.0, 4.0])[:, None, None]
    np.testing.assert_allclose(mixup(x, jnp.float32(0.75))[:, 0, 0], [0.75 + 1, 2, 3 + 0.25])


def test_cutmix_pastes_the_box_and_counts_its_area():
    x = jnp.stack([jnp.zeros((2, 4)), jnp.ones((2, 4))])
    inside = jnp.zeros((2, 4), bool).at[1, 1:3].set(True)
    mixed = cutmix(x, inside)
    np.testing.assert_array_equal(mixed.x[0], [[0, 0, 0, 0], [0, 1, 1, 0]])
    np.testing.assert_array_equal(mixed.x[1], [[1, 1, 1, 1], [1, 0, 0, 1]])
    assert float(mixed.share) == 1 - 2 / 8


def test_cutmix_pastes_all_channels_of_an_image_alike():
    x = jnp.stack([jnp.zeros((2, 2, 3)), jnp.ones((2, 2, 3))])
    mixed = cutmix(x, jnp.array([[True, False], [False, False]]))
    np.testing.assert_array_equal(mixed.x[0, 0, 0], [1, 1, 1])
    np.testing.assert_array_equal(mixed.x[0, 1], 0)


def test_share_of_mixup_is_beta():
    alpha = 0.5
    share, row = drawn(Mixing(mixup=alpha), draws=1500)
    assert share.mean() == pytest.approx(0.5, abs=0.04)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    np.testing.assert_allclose(row, np.broadcast_to((2 * share - 1)[:, None, None], row.shape), atol=1e-6)


def test_share_of_cutmix_is_the_area_that_is_left():
    share, row = drawn(Mixing(cutmix=1.0))
    assert set(np.unique(row)) == {-1.0, 1.0}
    np.testing.assert_allclose(share, (row == 1).mean((1, 2)), atol=1e-6)
    want = simulated_areas(alpha=1.0, rows=6, columns=40)
    assert share.mean() == pytest.approx(want.mean(), abs=0.03)
    assert share.std() == pytest.approx(want.std(), abs=0.03)


def simulated_areas(*, alpha, rows, columns, draws=5000):
    """Area left by a box of sqrt(1 - Beta) of either side around a uniform centre, by a numpy loop."""
    generator = np.random.default_rng(0)
    areas = []
    for _ in range(draws):
        side = np.sqrt(1 - generator.beta(alpha, alpha))
        area = 1
        for size in (rows, columns):
            half, centre = int(size * side) // 2, generator.integers(size)
            area *= min(centre + half, size) - max(centre - half, 0)
        areas.append(1 - area / (rows * columns))
    return np.array(areas)


def test_a_box_is_contiguous_and_centred_anywhere():
    boxes = jax.vmap(lambda key: random_box(key, jnp.float32(0.75), rows=6, columns=40))
    inside = np.asarray(boxes(jax.random.split(jax.random.key(1), DRAWS)))
    for box in inside:
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert box.sum() == len(rows) * len(columns)
        # Half of either side, made even, and cut off at the borders.
        assert len(rows) <= 2
        assert len(columns) <= 20
        assert np.all(np.diff(columns) == 1)
    assert inside.mean(0).min() > 0
    assert inside[:, 3, 20].mean() == pytest.approx((2 / 6) * (20 / 40), abs=0.07)


def test_both_methods_switch_with_their_probability():
    share, row = drawn(Mixing(mixup=1.0, cutmix=1.0, probability=0.8, switch_probability=0.25))
    untouched = (row == 1).all((1, 2))
    blended = ~np.isin(row, (-1.0, 1.0)).all((1, 2))
    assert untouched.mean() == pytest.approx(0.2, abs=0.08)  # With the few boxes of no area.
    assert blended.mean() == pytest.approx(0.8 * 0.75, abs=0.08)
    np.testing.assert_array_equal(share[untouched], 1)


def test_nothing_is_mixed_where_both_alphas_are_zero():
    x = jnp.ones((2, 3, 4))
    assert mix(jax.random.key(0), x, Mixing()).x is x


def test_targets_follow_the_share_and_what_meets_a_missing_one_is_missing():
    nan = float("nan")
    target = jnp.array([[1.0, 0.0], [nan, nan], [1.0, 0.0], [0.0, 1.0]])
    mixed = mix_targets(target, jnp.float32(0.75))
    np.testing.assert_allclose(mixed, [[0.75, 0.25], [nan, nan], [nan, nan], [0.25, 0.75]])
    np.testing.assert_array_equal(mix_targets(target, jnp.float32(1.0)), target)


@pytest.mark.parametrize(
    ("fields", "message"), [({"mixup": -0.1}, r"mixup is -0\.1"), ({"probability": 1.2}, "probability is")]
)
def test_settings_out_of_range_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Mixing(**fields)
