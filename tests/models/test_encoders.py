"""What every registered encoder must satisfy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import build
from flax import nnx

from ecgjax.core import mesh as meshes
from ecgjax.core import trees
from ecgjax.core.spec import ImageSpec
from ecgjax.models import ENCODERS
from ecgjax.models.classifier import Classifier
from ecgjax.objectives.encoders import all_but_last_block

IMAGE = ImageSpec(span=64, win=16, hop=4, n_fft=32, bins=16, frames=16, mean=-2.0, std=1.5)
LEAD = {"leads": 1, "length": 64, "image": IMAGE}
TRANSFORMER = {"width": 16, "depth": 2, "heads": 2}
SETTINGS = {
    "vit": {"leads": 3, "length": 40, "patch": 10, **TRANSFORMER},
    "resnet": {"depths": (1, 1), "widths": (8, 8), "stem": "small", "norm": "group"},
    "unet": {"widths": (8, 8)},
    "stft_cnn": {**LEAD, "widths": (8, 16), "mask_frequencies": 4, "mask_times": 4, "dropout": 0.1},
    "stft_resnet": {**LEAD, "depths": (1, 1), "widths": (8, 8), "mask_times": 4},
    "stft_vit": {**LEAD, **TRANSFORMER, "patch": (8, 4), "mask_frequencies": 4},
    "leadwise": {
        "leads": 2,
        "length": 100,
        "image": IMAGE,
        "lead_names": ("I", "V1"),
        "read": ("V1", "I"),
        "pool": "attention",
        "join": "attention",
        "train_beats": 2,
    },
}
SHAPES = {"vit": (3, 40), "resnet": (8, 8, 3), "unet": (8, 8, 2)}
SHAPES |= {name: (1, 64) for name in ("stft_cnn", "stft_resnet", "stft_vit")}
SHAPES["leadwise"] = (2, 100)
INPUTS = {"leadwise": {"beats": jnp.array([[40, 50, -1], [-1, -1, -1]], jnp.int32)}}
"""What an encoder is given beside its signal."""


def make(name, **changes):
    settings = dict(SETTINGS[name])
    if name == "leadwise":
        settings["encoder"] = make("stft_cnn", **changes)
        changes = {}
    return lambda rngs=None: ENCODERS[name](**settings, **changes, rngs=rngs or nnx.Rngs(0))


def test_every_encoder_is_tested_below():
    assert set(SETTINGS) == set(ENCODERS)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_flat_line_has_a_finite_embedding_and_finite_gradients(name):
    graphdef, params, rest = nnx.split(build(make(name)), nnx.Param, ...)
    x = jnp.zeros((2, *SHAPES[name]))

    @jax.jit
    @jax.value_and_grad
    def loss(params, x):
        model = nnx.merge(graphdef, params, rest)
        out = model(x, train=True, key=jax.random.key(0), **INPUTS.get(name, {}))
        return jnp.sum(jnp.square(out["embedding"] - 1))

    value, gradients = loss(params, x)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_embedding_has_the_width_and_the_precision_that_the_encoder_tells(name, dtype):
    model = nnx.eval_shape(make(name, dtype=dtype))
    graphdef, state = nnx.split(model)
    x = jax.ShapeDtypeStruct((2, *SHAPES[name]), jnp.float32)
    out = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x, **INPUTS.get(name, {})), state, x)
    assert out["embedding"].shape == (2, model.width)
    assert out["embedding"].dtype == dtype
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", ENCODERS)
def test_every_leaf_has_a_sharding_rule_and_its_last_block_is_a_part(name):
    model = nnx.eval_shape(make(name))
    meshes.shardings(
        nnx.to_pure_dict(nnx.state(model)), meshes.make_mesh(fsdp=2)
    )  # Raises where a leaf has none.
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    paths = list(trees.flatten(params))
    kept = re.compile(all_but_last_block(make(name), "ecg/encoder"))
    frozen = [path for path in paths if kept.search(f"ecg/encoder/{path}")]
    assert any(path.endswith("kernel") for path in frozen)
    assert any(path.endswith("kernel") for path in set(paths) - set(frozen))
    assert not kept.search("ecg/head/linear/kernel")


def test_a_readout_reads_the_rhythm_beside_the_embedding():
    model = build(lambda: Classifier(encoder=make("stft_cnn")(), outputs=3, rhythm_width=2, rngs=nnx.Rngs(0)))
    x, rhythm = jax.random.normal(jax.random.key(0), (2, 1, 64)), jnp.array([[1.0, -1.0], [0.5, 2.0]])
    out = jax.jit(lambda x, rhythm: model(x, rhythm=rhythm))(x, rhythm)
    kernel = model.head.linear.kernel[...]
    want = out["embedding"] @ kernel[:16] + rhythm @ kernel[16:]
    np.testing.assert_allclose(out["logits"], want, atol=1e-6)
    with pytest.raises(ValueError, match="0 rhythm features; the readout was built for 2"):
        jax.eval_shape(model, x)


def test_hidden_units_read_embedding_and_rhythm_together():
    model = build(
        lambda: Classifier(encoder=make("stft_cnn")(), outputs=3, rhythm_width=2, hidden=5, rngs=nnx.Rngs(0))
    )
    x, rhythm = jax.random.normal(jax.random.key(0), (2, 1, 64)), jnp.array([[1.0, -1.0], [0.5, 2.0]])
    out = jax.jit(lambda x, rhythm: model(x, rhythm=rhythm))(x, rhythm)
    first, second = model.head.fc1, model.head.fc2
    units = jnp.concatenate([out["embedding"], rhythm], axis=1) @ first.kernel[...] + first.bias[...]
    want = jnp.maximum(units, 0) @ second.kernel[...] + second.bias[...]
    np.testing.assert_allclose(out["logits"], want, rtol=1e-5, atol=1e-6)
