import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from formula import Golden

from ecgjax.train import optim, schedules

USES = {
    "misc": [
        "opt/*",
        "halfcos_*",
        "f64/halfcos_*",
        "warmcos_*",
        "f64/warmcos_*",
    ]
}

# The README's settings; betas, momentum, trust and eps are our defaults, and theirs.
SETTINGS = {
    "adamw": {"name": "adamw", "weight_decay": 0.15, "rate": 1e-2},
    "adam_l2": {"name": "adam_l2", "weight_decay": 0.1, "rate": 1e-2},
    "lars": {"name": "lars", "weight_decay": 0.1, "rate": 0.5},
    "sgd_m": {"name": "sgd", "weight_decay": 0.01, "rate": 0.1},
}


@pytest.fixture(scope="module")
def golden(goldens, precision):
    return Golden(goldens, "misc", precision)


def test_every_optimiser_of_the_goldens_is_compared(golden):
    found = {match[1] for key in golden.files if (match := re.match(r"opt/([^/]+)/w\d+$", key))}
    assert found == set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_of_the_optimiser(golden, name):
    section = dict(SETTINGS[name])
    schedule = {"name": "constant", "learning_rate": section.pop("rate")}
    tx, _ = optim.build({**section, "schedule": schedule}, steps=10)
    params = {"kernel": golden.input("opt/w0"), "bias": golden.input("opt/b0")}
    state = tx.init(params)
    steps = sorted(int(key[6:]) for key in golden.files if re.match(r"opt/gw\d+$", key))
    assert steps == list(range(len(steps))) != []
    update = jax.jit(tx.update)
    for step in steps:
        gradients = {"kernel": golden.input(f"opt/gw{step}"), "bias": golden.input(f"opt/gb{step}")}
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        golden.check(f"opt/{name}/w{step + 1}", params["kernel"])
        golden.check(f"opt/{name}/b{step + 1}", params["bias"])


def test_half_cosine_over_fractional_epochs(golden):
    names = [match[1] for key in golden.files if (match := re.match(r"(halfcos_\w+)/epoch$", key))]
    assert names
    for name in names:
        rate, end, warmup, epochs = _exact(golden[f"{name}/cfg_lr_min_warm_epochs"])
        grid = golden[f"{name}/epoch"]
        per_epoch = round(1 / float(grid[1] - grid[0]))
        counts = np.rint(grid * per_epoch)
        np.testing.assert_allclose(counts / per_epoch, grid, atol=1e-6)
        schedule = schedules.half_cosine(
            learning_rate=rate,
            steps=round(epochs * per_epoch),
            steps_per_epoch=per_epoch,
            warmup_epochs=warmup,
            end_rate=end,
        )
        counts = jnp.asarray(counts, jnp.int32)
        golden.check(f"f64/{name}/lr", schedule(counts), floor=1e-5)
        golden.check(f"f64/{name}/lr_scaled0.5", schedules.scaled(schedule, 0.5)(counts), floor=1e-5)


@pytest.mark.parametrize("per_epoch", [1, 3])
def test_epoch_cosine_in_closed_form_and_by_recursion(golden, per_epoch):
    names = [match[1] for key in golden.files if (match := re.match(r"(warmcos_\w+)/cfg_", key))]
    assert names
    for name in names:
        rate, warmup, epochs, start, end = _exact(golden[f"{name}/cfg_lr_warm_max_start_etamin"])
        closed, recursive = golden[f"f64/{name}/closed_form"], golden[f"f64/{name}/recursive"]
        schedule = schedules.epoch_cosine(
            learning_rate=rate,
            steps=int(epochs) * per_epoch,
            steps_per_epoch=per_epoch,
            warmup_epochs=int(warmup),
            start_rate=start,
            end_rate=end,
        )
        counts = jnp.arange(len(closed) * per_epoch, dtype=jnp.int32)
        rates = np.asarray(schedule(counts)).reshape(-1, per_epoch)
        assert np.all(rates == rates[:, :1])  # One rate an epoch.
        golden.check(f"f64/{name}/closed_form", rates[:, 0], floor=1e-5)
        # The recursion is the same thing as long as the run lasts.
        last = min(len(recursive), int(epochs) + 1)
        golden.check(f"f64/{name}/recursive", rates[:last, 0], want=recursive[:last], floor=1e-5)


def _exact(values):
    """Settings as they were written, before they were rounded to float32."""
    return [float(str(value)) for value in values]
