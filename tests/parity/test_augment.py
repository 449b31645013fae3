import jax
import jax.numpy as jnp
import numpy as np
import pytest
from formula import Golden

from ecgjax.augment import ecg as ops


@pytest.fixture(scope="module")
def golden(goldens):
    return Golden(goldens, "augment")


@pytest.mark.parametrize("parity", ["even", "odd"])
@pytest.mark.parametrize("magnitude", ["0.1", "1.0"])
def test_surrogate_phases(golden, parity, magnitude):
    ecg = jnp.asarray(golden["x"][0])[:, : int(golden[f"ft_{parity}/n"])]
    uniform = jnp.asarray(golden[f"ft_{parity}/u"][0], jnp.float32)
    assert ops.shifted_frequencies(ecg.shape[1]) == len(uniform)
    got = ops.shift_phases(ecg, uniform, magnitude=float(magnitude))
    golden.check(f"ft_{parity}/out_mag{magnitude}", got[None], floor=1e-5)


def test_jitter(golden):
    # The golden's noise already holds the deviation of 0.25.
    got = ops.jitter_by(jnp.asarray(golden["x"][0]), jnp.asarray(golden["jitter/noise"][0]), deviation=1.0)
    golden.check("jitter/out", got[None], floor=1e-5)


@pytest.mark.parametrize("name", ["timeflip", "signflip"])
def test_flips(golden, name):
    flip = {"timeflip": ops.time_flip, "signflip": ops.sign_flip}[name]
    got = flip(jax.random.key(0), jnp.asarray(golden["x"][0]), probability=1.0)
    np.testing.assert_array_equal(got[None], golden[f"{name}/out"])


def test_rescale(golden):
    got = ops.rescale_by(jnp.asarray(golden["x"][0]), jnp.asarray(golden["rescale/factor"]))
    golden.check("rescale/out", got[None], floor=1e-6)


def test_crop(golden):
    got = ops.crop(
        jnp.asarray(golden["x"][0]),
        jnp.asarray(golden["crop/start"], jnp.int32),
        length=int(golden["crop/len"]),
    )
    np.testing.assert_array_equal(got[None], golden["crop/out"])
