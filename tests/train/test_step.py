import jax
import jax.numpy as jnp
import optax
import pytest
from tiny_objectives import batch, initial, objective

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
