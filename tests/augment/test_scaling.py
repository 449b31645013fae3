import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.augment import scaling as ops

ECG = 3 + 2 * jax.random.normal(jax.random.key(3), (12, 40)) * jnp.arange(1.0, 13.0)[:, None]
PARTS = {
    "record": [range(12)],
    "lead": [[i] for i in range(12)],
    "group": [range(3), range(3, 6), range(6, 12)],
}


@functools.partial(jax.jit, static_argnums=1)
def both(ecg, scope):
    return ops.normalise(ecg, scope=scope), ops.min_max(ecg, scope=scope)


@pytest.mark.parametrize("scope", PARTS)
def test_each_part_has_its_own_scale(scope):
    standard, ranged = (np.asarray(out, np.float64) for out in both(ECG, scope))
    for part in PARTS[scope]:
        part = list(part)
        np.testing.assert_allclose(standard[part].mean(), 0, atol=1e-6)
        np.testing.assert_allclose(standard[part].var(ddof=1), 1, rtol=1e-5)
        np.testing.assert_allclose([ranged[part].min(), ranged[part].max()], [-1, 1], atol=1e-6)
        assert np.corrcoef(ranged[part].ravel(), np.asarray(ECG)[part].ravel())[0, 1] > 0.99999


def test_a_constant_lead_becomes_zero():
    flat = ECG.at[4].set(2.0)
    for out in both(flat, "lead"):
        assert bool(jnp.isfinite(out).all())
        np.testing.assert_array_equal(out[4], 0)


def test_groups_need_the_standard_leads():
    with pytest.raises(ValueError, match='scope "group" needs the 12 standard leads, got 3'):
        ops.normalise(ECG[:3], scope="group")
