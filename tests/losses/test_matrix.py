import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.losses.contrastive import info_nce, nt_xent
from ecgjax.losses.matrix import (
    draw_positives,
    k_positive,
    positives_from_similarity,
    remove_false_negatives,
    supcon_views,
    supervised_contrastive,
)

B = 5
POSITIVES = np.eye(B, dtype=bool)
POSITIVES[0, 2] = POSITIVES[2, 0] = POSITIVES[0, 3] = POSITIVES[4, 1] = True


def draw(b=B, k=3):
    return tuple(jax.random.normal(jax.random.key(seed), (b, k)) for seed in (0, 1))


def cosines(x, y):
    x, y = (np.asarray(z, np.float64) for z in (x, y))
    return (x / np.linalg.norm(x, axis=1)[:, None]) @ (y / np.linalg.norm(y, axis=1)[:, None]).T


def test_a_similarity_at_the_threshold_is_not_enough():
    matrix = jnp.array([[1.0, 0.5], [0.51, 1.0]])
    np.testing.assert_array_equal(positives_from_similarity(matrix, threshold=0.5), [[1, 0], [1, 1]])


@pytest.mark.parametrize("divisor", [None, 7])
def test_supervised_contrastive_equals_a_loop(divisor):
    z0, z1 = draw()
    total = 0.0
    for logits in (cosines(z0, z1) / 0.3, cosines(z1, z0) / 0.3):
        for i in range(B):
            chosen = [j for j in range(B) if POSITIVES[i, j]]
            row = [logits[i, j] - np.log(np.exp(logits[i]).sum()) for j in chosen]
            total -= sum(row) / (divisor or len(chosen)) / (2 * B)
    got = supervised_contrastive(z0, z1, positives=jnp.asarray(POSITIVES), temperature=0.3, divisor=divisor)
    np.testing.assert_allclose(got, total, rtol=1e-5)


def test_without_other_positives_it_is_info_nce():
    z0, z1 = draw()
    nobody = jnp.zeros((B, B), bool)
    want = info_nce(z0, z1, temperature=0.2)
    np.testing.assert_allclose(
        supervised_contrastive(z0, z1, positives=nobody, temperature=0.2), want, rtol=1e-6
    )
    np.testing.assert_allclose(
        remove_false_negatives(z0, z1, similar=nobody, temperature=0.2), want, rtol=1e-6
    )


def test_similar_subjects_leave_the_denominator_of_both_directions():
    z0, z1 = draw()
    similar = POSITIVES | POSITIVES.T
    total = 0.0
    for logits in (cosines(z0, z1) / 0.3, cosines(z1, z0) / 0.3):
        for i in range(B):
            kept = [j for j in range(B) if j == i or not similar[i, j]]
            total += (np.log(np.exp(logits[i, kept]).sum()) - logits[i, i]) / (2 * B)
    got = remove_false_negatives(z0, z1, similar=jnp.asarray(similar), temperature=0.3)
    np.testing.assert_allclose(got, total, rtol=1e-5)


def test_supcon_views_equals_a_loop():
    z0, z1 = draw()
    z = np.concatenate([z0, z1])
    logits = cosines(z, z) / 0.3
    total = 0.0
    for i in range(2 * B):
        others = [j for j in range(2 * B) if j != i]
        chosen = [j for j in others if POSITIVES[i % B, j % B]]
        denominator = np.log(np.exp(logits[i, others]).sum())
        total -= np.mean([logits[i, j] - denominator for j in chosen]) / (2 * B)
    got = supcon_views(z0, z1, positives=jnp.asarray(POSITIVES), temperature=0.3)
    np.testing.assert_allclose(got, total, rtol=1e-5)


def test_supcon_views_without_other_positives_is_nt_xent():
    z0, z1 = draw()
    nobody = jnp.zeros((B, B), bool)
    got = supcon_views(z0, z1, positives=nobody, temperature=0.2)
    np.testing.assert_allclose(got, nt_xent(z0, z1, temperature=0.2), rtol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        lambda z0, z1, m: supervised_contrastive(z0, z1, positives=m, temperature=0.1),
        lambda z0, z1, m: remove_false_negatives(z0, z1, similar=m, temperature=0.1),
        lambda z0, z1, m: k_positive(z0, z1, mask=m, temperature=0.1),
        lambda z0, z1, m: supcon_views(z0, z1, positives=m, temperature=0.01),
    ],
    ids=["supervised", "remove", "k positive", "views"],
)
def test_zero_rows_and_everyone_similar_keep_value_and_gradient_finite(loss):
    z0, z1 = draw()
    for mask in (jnp.asarray(POSITIVES), jnp.ones((B, B), bool), jnp.zeros((B, B), bool)):
        value, gradient = jax.value_and_grad(loss)(z0.at[0].set(0.0), z1, mask)
        assert bool(jnp.isfinite(value))
        assert bool(jnp.isfinite(gradient).all())


def draws(positives, *, k, among="positives", n=4000):
    keys = jax.random.split(jax.random.key(3), n)
    return np.asarray(jax.vmap(lambda key: draw_positives(key, positives, k=k, among=among))(keys))


def test_k_positives_are_the_own_subject_and_true_positives_drawn_alike():
    b, k = 8, 3
    positives = np.eye(b, dtype=bool)
    positives[0, [1, 3, 4, 6, 7]] = True  # More than k - 1 to choose from.
    positives[1, [0, 5]] = True  # As many.
    positives[2, [6]] = True  # Fewer; the others have none at all.
    drawn = draws(jnp.asarray(positives), k=k)
    assert drawn[:, np.eye(b, dtype=bool)].all()
    assert not drawn[:, ~positives].any()
    np.testing.assert_array_equal(drawn.sum(2), np.broadcast_to([3, 3, 2, 1, 1, 1, 1, 1], (len(drawn), b)))
    share = drawn[:, 0, [1, 3, 4, 6, 7]].mean(0)
    # 4000 draws with probability 2/5: a deviation of 0.008 each.
    np.testing.assert_allclose(share, 2 / 5, atol=0.04)
    pairs = np.corrcoef(drawn[:, 0, [1, 3, 4, 6, 7]].T)[~np.eye(5, dtype=bool)]
    np.testing.assert_allclose(
        pairs, -1 / 4, atol=0.08
    )  # No two columns go together: drawn without replacement.


def test_rows_draw_independently():
    drawn = draws(jnp.ones((4, 4), bool), k=2)
    same = (drawn[:, 0, 3] & drawn[:, 1, 3]).mean()
    np.testing.assert_allclose(same, 1 / 9, atol=0.03)


def test_the_released_draw_takes_counts_for_columns():
    b = 6
    positives = np.eye(b, dtype=bool)
    positives[5, [3, 4]] = True  # Three positives: columns 0 to 2, none of which is one.
    drawn = draws(jnp.asarray(positives), k=3, among="count", n=2000)
    assert drawn[:, np.eye(b, dtype=bool)].all()
    assert drawn[:, 5].any(0).tolist() == [True, True, True, False, False, True]
    assert drawn[:, 4].any(0).tolist() == [True, False, False, False, True, False]
    # Two draws with replacement below 3: column 0 is met with 1 - (2/3)^2.
    np.testing.assert_allclose(drawn[:, 5, 0].mean(), 5 / 9, atol=0.05)


def test_k_positive_divides_by_what_was_drawn():
    z0, z1 = draw()
    mask = draw_positives(jax.random.key(0), jnp.asarray(POSITIVES), k=2)
    assert set(np.asarray(mask).sum(1)) == {1, 2}
    want = supervised_contrastive(z0, z1, positives=mask, temperature=0.2)
    np.testing.assert_allclose(k_positive(z0, z1, mask=mask, temperature=0.2), want)


def test_a_k_that_leaves_out_the_own_subject_is_refused():
    with pytest.raises(ValueError, match="k is 0"):
        draw_positives(jax.random.key(0), jnp.eye(3, dtype=bool), k=0)
