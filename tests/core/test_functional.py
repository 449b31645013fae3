import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ecgjax.core import trees
from ecgjax.core.functional import Functional


class Normed(nnx.Module):
    """A linear layer and a running mean: the smallest module with parameters and statistics."""

    def __init__(self, *, rngs):
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), (3, 2)))
        self.mean = nnx.BatchStat(jnp.zeros(2))

    def __call__(self, x, *, train=False):
        y = x @ self.kernel[...]
        if train:
            self.mean[...] = 0.9 * self.mean[...] + 0.1 * y.mean(0)
        return y - self.mean[...]

    def double(self, x):
        return 2 * self(x)


@pytest.fixture(scope="module")
def functional():
    return Functional(lambda rngs: Normed(rngs=rngs))


X = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_apply_equals_calling_the_module(functional):
    key = jax.random.key(3)
    params, stats = functional.init(key)
    want = Normed(rngs=nnx.Rngs(params=key))(X)
    got, _ = functional.apply(params, stats, X)
    np.testing.assert_array_equal(got, want)


def test_what_is_drawn_is_what_flax_draws():
    class Drawing(nnx.Module):
        def __init__(self, *, rngs):
            self.token = nnx.Param(jax.random.normal(rngs.params(), (2,)))
            self.bias = nnx.Param(jax.random.normal(rngs.params(), (2,)))
            self.inner = Normed(rngs=rngs)

    key = jax.random.key(3)
    want = nnx.to_pure_dict(nnx.state(Drawing(rngs=nnx.Rngs(params=key)), nnx.Param))
    init = Functional(lambda rngs: Drawing(rngs=rngs)).init
    for found, _ in (init(key), jax.jit(init)(key)):
        assert trees.digest(found) == trees.digest(want)


def test_trees_are_pure_dicts_of_arrays(functional):
    params, stats = functional.init(jax.random.key(0))
    assert set(params) == {"kernel"}
    assert isinstance(params["kernel"], jax.Array)
    assert set(stats) == {"mean"}


def test_statistics_come_back_and_what_went_in_stays(functional):
    params, stats = functional.init(jax.random.key(0))
    _, moved = functional.apply(params, stats, X, train=True)
    np.testing.assert_allclose(moved["mean"], 0.1 * (X @ np.asarray(params["kernel"])).mean(0), rtol=1e-5)
    np.testing.assert_array_equal(stats["mean"], 0)
    _, kept = functional.apply(params, moved, X, train=False)
    np.testing.assert_array_equal(kept["mean"], moved["mean"])


def test_another_method_can_be_called(functional):
    params, stats = functional.init(jax.random.key(0))
    out, _ = functional.apply(params, stats, X, method="double")
    np.testing.assert_array_equal(out, 2 * functional.apply(params, stats, X)[0])


def test_trees_of_another_module_are_refused(functional):
    params, stats = functional.init(jax.random.key(0))
    with pytest.raises(ValueError, match="does not fit the module"):
        functional.apply({**params, "bias": params["kernel"]}, stats, X)
    with pytest.raises(ValueError, match="does not fit the module"):
        functional.apply(params, {}, X)


def test_other_kinds_of_state_are_refused():
    class Counting(nnx.Module):
        def __init__(self, *, rngs):
            self.kernel = nnx.Param(rngs.params())
            self.calls = nnx.Variable(jnp.zeros(()))

    with pytest.raises(TypeError, match="neither Param nor BatchStat"):
        Functional(lambda rngs: Counting(rngs=rngs))
