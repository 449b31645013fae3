import jax
import jax.numpy as jnp
import numpy as np

from ecgjax.core import rng, trees

TREE = {"b": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}, "a": [jnp.zeros(()), jnp.ones(2)]}


def test_leaves_are_named_by_their_path():
    assert list(trees.flatten(TREE)) == ["a/0", "a/1", "b/bias", "b/kernel"]


def test_map_named_gives_every_leaf_its_own_name():
    named = trees.map_named(lambda name, leaf: name, TREE)
    assert named == {"b": {"kernel": "b/kernel", "bias": "b/bias"}, "a": ["a/0", "a/1"]}


def test_count_is_the_number_of_values_of_real_and_abstract_trees():
    assert trees.count(TREE) == 6 + 3 + 1 + 2
    assert trees.count(jax.eval_shape(lambda: TREE)) == 12


def test_equal_trees_have_equal_digests_whatever_holds_them():
    assert trees.digest(TREE) == trees.digest(jax.tree.map(np.asarray, TREE))


def test_every_bit_name_shape_and_type_counts_in_a_digest():
    x = np.arange(6, dtype=np.float32)
    nudged = x.copy()
    nudged[0] = -0.0
    trees_apart = [{"a": x}, {"b": x}, {"a": x.reshape(2, 3)}, {"a": x.astype(np.int32)}, {"a": nudged}]
    assert len({trees.digest(tree) for tree in trees_apart}) == len(trees_apart)


def test_streams_are_independent_and_repeatable():
    def draw(seed, name):
        return tuple(np.asarray(jax.random.bits(rng.stream(seed, name), (4,))).tolist())

    drawn = {draw(seed, name) for seed in (0, 1) for name in ("init", "step", "validation")}
    assert len(drawn) == 6
    assert draw(0, "init") == draw(0, "init")
