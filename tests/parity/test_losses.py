import jax
import jax.numpy as jnp
import pytest
from formula import Golden

from ecgjax.losses.contrastive import info_nce, similarity


@pytest.fixture(scope="module")
def golden(goldens):
    return Golden(goldens, "losses")


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("balance", [0.25, 0.5, 1.0])
def test_info_nce(golden, temperature, balance):
    a, b = jnp.asarray(golden["a"]), jnp.asarray(golden["b"])
    with jax.default_matmul_precision("highest"):
        value, gradients = jax.value_and_grad(
            lambda a, b: info_nce(a, b, temperature=temperature, balance=balance), argnums=(0, 1)
        )(a, b)
        logits = similarity(a, b) / temperature
    name = f"clip_tau{temperature}_lam{balance}"
    golden.check(f"{name}/loss", value, floor=1e-5)
    golden.check(f"{name}/logits", logits)
    golden.check(f"{name}/grad_a", gradients[0], floor=1e-4)
    golden.check(f"{name}/grad_b", gradients[1], floor=1e-4)
