import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_objectives import batch, initial, objective

from ecgjax.core import mesh as meshes
from ecgjax.core.interfaces import Aux
from ecgjax.train import state, step

NAME = "supervised ecg"


@pytest.fixture(scope="module")
def stepped():
    """The same state and batch at steps 0 and 1, without learning: only the draws may differ."""
    tx = optax.sgd(0.0)
    train = jax.jit(step.make_train_step(objective(NAME), tx))
    params, extra = initial(NAME)

    def at(number):
        now = state.TrainState(jnp.asarray(number, jnp.int32), params, extra, tx.init(params))
        return train(now, batch(), jax.random.key(0))

    return at


def test_every_step_draws_anew_and_a_repeated_step_draws_the_same(stepped):
    first, second, again = (float(stepped(number)[1]["loss"]) for number in (0, 1, 0))
    assert first != second
    assert first == again


def test_a_step_counts_itself_and_reports_loss_and_gradient_norm(stepped):
    now, metrics = stepped(4)
    assert int(now.step) == 5
    assert {"loss", "grad_norm", "mse", "bce"} == set(metrics)
    assert float(metrics["grad_norm"]) > 0


class Ensemble:
    """A deterministic mean over examples that counts its calls, and looks at the key it was given."""

    frozen_paths = ()

    def init(self, key):
        return {"kernel": jax.random.normal(key, (4, 3))}, {"mean": jnp.zeros(())}

    def loss(self, params, extra, batch, key, *, train):
        error = jnp.square(batch["ecg"] @ params["kernel"] - 1).sum(1)
        draw = jax.random.uniform(key)
        return error.mean(), Aux({"error": error.mean(), "draw": draw}, {"mean": 2 * extra["mean"] + 1})

    def predict(self, params, extra, batch):
        return {}

    def after_update(self, params, extra):
        return extra


@pytest.fixture(scope="module")
def accumulated():
    """State and metrics after one step with these settings; `order` permutes the batch."""
    tx = optax.sgd(0.1)

    def run(count, shape, order=None):
        mesh = meshes.make_mesh(**shape) if shape else meshes.make_mesh(devices=jax.devices()[:1])
        train, _ = step.compile_steps(Ensemble(), tx, mesh, accumulate=count)
        rows = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
        batch = meshes.to_global({"ecg": rows if order is None else rows[order]}, mesh)
        now = state.create(Ensemble(), tx, mesh, jax.random.key(0))
        return jax.device_get(train(now, batch, jax.random.key(1)))

    return run


def test_microbatches_take_the_step_of_the_whole_batch(accumulated):
    (whole, metrics), (parts, averaged) = accumulated(1, None), accumulated(4, None)
    np.testing.assert_allclose(parts.params["kernel"], whole.params["kernel"], rtol=1e-6)
    for name in ("loss", "error", "grad_norm"):
        np.testing.assert_allclose(averaged[name], metrics[name], rtol=1e-6)
    assert whole.extra["mean"] == 1
    assert parts.extra["mean"] == 15  # Statistics go through the microbatches one after the other.
    assert averaged["draw"] != metrics["draw"]


def test_every_microbatch_has_a_key_of_its_own(accumulated):
    _, averaged = accumulated(4, None)
    key = jax.random.fold_in(jax.random.key(1), 0)
    draws = [float(jax.random.uniform(jax.random.fold_in(key, number))) for number in range(4)]
    assert len(set(draws)) == 4
    assert float(averaged["draw"]) == pytest.approx(np.mean(draws), rel=1e-6)


@pytest.mark.parametrize("shape", [{"data": 8}, {"data": 2, "fsdp": 4}], ids=["data 8", "data 2 fsdp 4"])
def test_microbatches_are_the_same_on_one_device_and_on_eight(accumulated, shape):
    (one, metrics), (eight, found) = accumulated(2, None), accumulated(2, shape)
    np.testing.assert_allclose(eight.params["kernel"], one.params["kernel"], rtol=1e-6)
    for name, value in metrics.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_no_example_changes_its_device_for_a_microbatch():
    mesh = meshes.make_mesh(data=8)
    tx, batch = optax.sgd(0.1), {"ecg": jax.ShapeDtypeStruct((32, 4), jnp.float32)}
    train, _ = step.compile_steps(Ensemble(), tx, mesh, accumulate=4)
    text = (
        train.lower(state.abstract_state(Ensemble(), tx, mesh), batch, jax.random.key(0)).compile().as_text()
    )
    assert "all-to-all" not in text
    assert "all-gather" not in text
    assert "collective-permute" not in text


@pytest.mark.parametrize("parts", [{}, {"accumulate": 2}], ids=["whole", "microbatches"])
def test_all_of_the_state_is_written_over(parts):
    """Parameters, statistics and moments are there once: donated, every byte of them is used for the new ones."""
    mesh, tx, subject = meshes.make_mesh(data=4, fsdp=2), optax.adam(0.1), Ensemble()
    train, _ = step.compile_steps(subject, tx, mesh, **parts)
    now = state.create(subject, tx, mesh, jax.random.key(0))
    batch = meshes.to_global({"ecg": np.zeros((32, 4), np.float32)}, mesh)
    memory = train.lower(now, batch, jax.random.key(1)).compile().memory_analysis()
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(now))
    assert (
        memory.alias_size_in_bytes == held == 4 + 3 * (2 * 3 * 4) + 4 + 4
    )  # Step, kernels, mean, Adam's count.
    train(now, batch, jax.random.key(1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(now))


def test_a_batch_that_microbatches_do_not_divide_is_refused():
    mesh = meshes.make_mesh(data=8)
    step.check_accumulate(2, batch_size=32, mesh=mesh)
    message = r"config\.accumulate is 3, which does not divide the 4 examples .* choose one of \[1, 2, 4\]"
    with pytest.raises(ValueError, match=message):
        step.check_accumulate(3, batch_size=32, mesh=mesh)
    with pytest.raises(ValueError, match=r"config\.accumulate is 0; it must be at least 1"):
        step.check_accumulate(0, batch_size=32, mesh=mesh)
