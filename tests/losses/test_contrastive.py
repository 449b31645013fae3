import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.losses.contrastive import info_nce, nt_xent, ranks, share_within, sigmoid, unit


def draw(b=16, k=8):
    return (jax.random.normal(jax.random.key(seed), (b, k)) for seed in (0, 1))


def test_info_nce_of_orthogonal_pairs():
    z = jnp.eye(4)
    want = jnp.log1p(3 * jnp.exp(-1 / 0.5))  # One positive at cosine 1, three at 0.
    np.testing.assert_allclose(info_nce(z, z, temperature=0.5), want, rtol=1e-6)


def test_info_nce_of_a_collapsed_encoder_is_the_logarithm_of_the_batch():
    z = jnp.ones((256, 8))
    np.testing.assert_allclose(info_nce(z, z, temperature=0.1), 5.545177, rtol=1e-6)


def test_info_nce_equals_a_loop():
    z0, z1 = (np.asarray(z, np.float64) for z in draw(5, 3))
    total = 0.0
    for i in range(5):
        for balance, query, keys in ((0.3, z0[i], z1), (0.7, z1[i], z0)):
            cosines = [key @ query / np.linalg.norm(key) / np.linalg.norm(query) for key in keys]
            scores = np.exp(np.array(cosines) / 0.2)
            total -= balance * np.log(scores[i] / scores.sum()) / 5
    got = info_nce(jnp.asarray(z0, jnp.float32), jnp.asarray(z1, jnp.float32), temperature=0.2, balance=0.3)
    np.testing.assert_allclose(got, total, rtol=1e-5)


def test_another_recording_of_the_subject_is_no_negative():
    z0, z1 = draw(4)
    subject = jnp.array([0, 1, 0, 2])
    same = subject[:, None] == subject[None]
    got = info_nce(z0, z1, temperature=0.2, same_subject=same)
    logits = np.asarray(unit(z0) @ unit(z1).T, np.float64) / 0.2
    total = 0.0
    for i in range(4):
        others = [j for j in range(4) if j == i or subject[j] != subject[i]]
        total += np.log(np.exp(logits[i, others]).sum()) - logits[i, i]
        total += np.log(np.exp(logits[others, i]).sum()) - logits[i, i]
    np.testing.assert_allclose(got, total / 8, rtol=1e-5)
    gradient = jax.grad(lambda z: info_nce(z, z1, temperature=0.2, same_subject=same))(z0)
    assert bool(jnp.isfinite(gradient).all())


@pytest.mark.parametrize("subject", [None, [0, 1, 0, 2]], ids=["all differ", "one comes twice"])
def test_nt_xent_equals_a_loop(subject):
    b = 4
    z0, z1 = draw(b, 3)
    z = np.concatenate([z0, z1]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    logits = z @ z.T / 0.2
    person = range(b) if subject is None else subject
    total = 0.0
    for i in range(2 * b):
        other = (i + b) % (2 * b)
        kept = [j for j in range(2 * b) if j == other or (j != i and person[j % b] != person[i % b])]
        total += (np.log(np.exp(logits[i, kept]).sum()) - logits[i, other]) / (2 * b)
    ids = None if subject is None else jnp.array(subject)
    same = None if ids is None else ids[:, None] == ids[None]

    def loss(z):
        return nt_xent(z, z1, temperature=0.2, same_subject=same)

    value, gradient = jax.value_and_grad(loss)(z0)
    np.testing.assert_allclose(value, total, rtol=1e-5)
    assert bool(jnp.isfinite(gradient).all())


def test_sigmoid_equals_a_loop():
    z0, z1 = draw(4, 3)
    subject = [0, 1, 0, 2]
    cosines = np.asarray(unit(z0) @ unit(z1).T, np.float64)
    total = 0.0
    for i in range(4):
        for j in range(4):
            if i == j or subject[i] != subject[j]:
                label = 1 if i == j else -1
                total += np.log1p(np.exp(-label * (np.exp(1.5) * cosines[i, j] - 2.0)))
    same = jnp.array(subject)[:, None] == jnp.array(subject)
    got = sigmoid(z0, z1, log_scale=1.5, bias=-2.0, same_subject=same)
    np.testing.assert_allclose(got, total / 4, rtol=1e-5)


def test_nt_xent_of_a_collapsed_encoder_is_the_logarithm_of_the_other_views():
    z = jnp.ones((64, 8))
    np.testing.assert_allclose(nt_xent(z, z, temperature=0.1), np.log(127), rtol=1e-6)


def test_nt_xent_keeps_a_zero_row_finite():
    z0, z1 = draw(4)
    value, gradient = jax.value_and_grad(lambda z: nt_xent(z, z1, temperature=0.1))(z0.at[0].set(0.0))
    assert bool(jnp.isfinite(value))
    assert bool(jnp.isfinite(gradient).all())


def test_eight_devices_give_the_loss_and_gradient_of_one():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    step = jax.jit(jax.value_and_grad(lambda z0, z1: info_nce(z0, z1, temperature=0.1), argnums=(0, 1)))
    z0, z1 = draw(32)
    value, gradients = step(z0, z1)
    value8, gradients8 = step(jax.device_put(z0, sharding), jax.device_put(z1, sharding))
    assert len(gradients8[0].sharding.device_set) == 8
    np.testing.assert_allclose(value8, value, rtol=1e-6)
    for one, eight in zip(gradients, gradients8, strict=True):
        np.testing.assert_allclose(eight, one, atol=1e-6)


def test_a_zero_row_keeps_value_and_gradient_finite():
    z0, z1 = draw(4)
    value, gradient = jax.value_and_grad(lambda z: info_nce(z, z1, temperature=0.1))(z0.at[0].set(0.0))
    assert bool(jnp.isfinite(value))
    assert bool(jnp.isfinite(gradient).all())


def test_bfloat16_projections_are_compared_in_float32():
    z0, z1 = (z.astype(jnp.bfloat16) for z in draw())
    got = info_nce(z0, z1, temperature=0.1)
    assert got.dtype == jnp.float32
    want = info_nce(z0.astype(jnp.float32), z1.astype(jnp.float32), temperature=0.1)
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize(("k", "want"), [(1, 0.5), (2, 0.75), (4, 1.0)])
def test_retrieval_among_the_nearest_by_hand(k, want):
    z0 = jnp.eye(4)
    # Rows 0 and 1 find themselves first, row 2 second, row 3 fourth.
    rows = [[0.9, 0.1, 0.3, 0.4], [0.2, 0.9, 0.2, 0.3], [0.1, 0.2, 0.8, 0.5], [0.1, 0.1, 0.85, 0.05]]
    similarity = np.array(rows)
    z1 = jnp.asarray(similarity.T / np.linalg.norm(similarity.T, axis=1, keepdims=True))
    order = np.asarray(z0 @ z1.T)
    before = [(order[i] > order[i, i]).sum() for i in range(4)]
    assert np.mean([rank < k for rank in before]) == want
    np.testing.assert_allclose(share_within(ranks(z0, z1), k=k), want)


def test_a_collapsed_encoder_retrieves_nothing():
    assert float(share_within(ranks(jnp.ones((8, 4)), jnp.ones((8, 4))), k=1)) == 0
