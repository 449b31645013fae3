"""Encoders that see the batch in parts under a loss that sees all of it: the gradient is that of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_objectives import LABELS, RESNET, SPEC, TOWERS, VIT, batch, initial, objective

from ecgjax.core import mesh as meshes
from ecgjax.core import trees
from ecgjax.core.interfaces import Aux, Comparing
from ecgjax.losses import blockwise
from ecgjax.objectives.cross_modal import CrossModal
from ecgjax.objectives.siamese import SimClr
from ecgjax.train import state, step

KEY = jax.random.key(5)
TX = optax.sgd(1.0)  # What a step takes off the parameters is the gradient.


def halves(**changes):
    """Without any draw: the two halves of a record as they are."""
    fields = {"modality": "ecg", "encoder": VIT, "pairs": "halves", "views": "none", "projection": 8}
    return SimClr(spec=SPEC, crop=40, **{**fields, **changes})


def stepped(subject, drawn, inputs, *, shape=None, **parts):
    """Gradient, moved statistics and metrics of one compiled step."""
    shape = shape or {"data": 1, "fsdp": 1}
    mesh = meshes.make_mesh(**shape, devices=jax.devices()[: shape["data"] * shape["fsdp"]])
    train, _ = step.compile_steps(subject, TX, mesh, **parts)
    params, extra = drawn
    now = state.TrainState(jnp.zeros((), jnp.int32), params, extra, TX.init(params))
    after, metrics = train(jax.tree.map(jnp.copy, now), inputs, KEY)
    after, params, metrics = jax.device_get((after, params, metrics))
    grads = jax.tree.map(np.subtract, params, after.params)
    return {"grads": grads, "extra": after.extra, "metrics": metrics}


def same(got, want, *, atol=1e-5):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for path, value in trees.flatten(want).items():
        scale = max(np.abs(value).max(), 1.0)
        np.testing.assert_allclose(trees.flatten(got)[path] / scale, value / scale, atol=atol, err_msg=path)


@pytest.fixture(scope="module")
def whole():
    """One device, the batch and its logits as a whole."""
    return stepped(halves(), initial("simclr halves"), batch(32))


@pytest.mark.parametrize(
    ("tile", "shape"), [(None, None), (2, {"data": 4, "fsdp": 2})], ids=["one device", "eight, in tiles"]
)
def test_without_draws_the_gradient_is_that_of_the_whole_batch(tile, shape, whole):
    same(
        stepped(halves(tile=tile), initial("simclr halves"), batch(32), shape=shape, grad_cache=4),
        whole,
    )


class Linear:
    """Projections of two leads by one kernel, drawn apart by noise and centred as by batch norm, then contrasted."""

    def __init__(self, noise):
        self.noise = noise

    frozen_paths = ()

    def init(self, key):
        return {"kernel": jax.random.normal(key, (40, 5))}, {"mean": jnp.zeros(())}

    def embed(self, params, extra, batch, key, *, train):
        z = batch["ecg"][:, :2] @ params["kernel"]
        z += self.noise * jax.random.normal(key, z.shape)
        moved = 2 * extra["mean"] + self.noise * jax.lax.stop_gradient(z.mean()) + 1
        return z - self.noise * z.mean(0), {"mean": moved}

    def compare(self, params, embedded, batch, key, *, train):
        return blockwise.info_nce(embedded[:, 0], embedded[:, 1], temperature=0.5, size=1), {}

    def loss(self, params, extra, batch, key, *, train):
        embedded, extra = self.embed(params, extra, batch, key, train=train)
        return self.compare(params, embedded, batch, key, train=train)[0], Aux({}, extra)

    def predict(self, params, extra, batch):
        return {}

    def after_update(self, params, extra):
        return extra


def test_parts_of_microbatches_leave_the_step_as_it_is():
    subject, shape = Linear(noise=0.0), {"data": 4, "fsdp": 2}
    drawn = subject.init(KEY)
    want = stepped(subject, drawn, batch(32), accumulate=2)
    got = stepped(subject, drawn, batch(32), shape=shape, accumulate=2, grad_cache=2)
    assert got["extra"].pop("mean") == 15  # Statistics go through the parts one after the other.
    assert want["extra"].pop("mean") == 3
    same(got, want)


def in_plain_words(subject, params, extra, inputs, count):
    """The parts one after the other, each with its key and the statistics so far, compared as a whole."""
    size = len(inputs["index"])
    order = np.argsort(np.concatenate([np.arange(size)[j::count] for j in range(count)]))
    key = jax.random.fold_in(KEY, 0)

    @jax.jit
    def loss(params):
        moved, embedded = extra, []
        for j in range(count):
            part = {name: array[j::count] for name, array in inputs.items()}
            out, moved = subject.embed(params, moved, part, jax.random.fold_in(key, j), train=True)
            embedded.append(out)
        whole = jax.tree.map(lambda *parts: jnp.concatenate(parts)[order], *embedded)
        value, metrics = subject.compare(params, whole, inputs, jax.random.fold_in(key, count), train=True)
        return value, (moved, {"loss": value, **metrics})

    (_, (moved, metrics)), grads = jax.device_get(jax.value_and_grad(loss, has_aux=True)(params))
    return {
        "grads": grads,
        "extra": moved,
        "metrics": {**metrics, "grad_norm": np.asarray(optax.tree.norm(grads))},
    }


def test_draws_and_statistics_are_those_of_the_parts():
    subject = Linear(noise=0.5)
    drawn = subject.init(KEY)
    got = stepped(subject, drawn, batch(16), shape={"data": 2, "fsdp": 2}, grad_cache=4)
    same(got, in_plain_words(subject, *drawn, batch(16), 4))


@pytest.mark.slow
def test_batch_norm_and_the_classifier_see_the_parts():
    fields = {k: v for k, v in TOWERS.items() if k != "name"} | {"cmr": {**RESNET, "norm": "batch"}}
    online = {"modality": "cmr", "label": "lbbb"}
    subject = CrossModal(spec=SPEC, crop=40, labels=LABELS, **fields, online=online)
    drawn = jax.jit(subject.init)(KEY)
    got = stepped(subject, drawn, batch(32), shape={"data": 4, "fsdp": 2}, grad_cache=2)
    # float32 through a network with batch norm: sums over the batch are merely taken in another order.
    same(got, in_plain_words(subject, *drawn, batch(32), 2), atol=1e-4)


def test_activations_are_those_of_a_part():
    subject = halves(encoder={**VIT, "patch": 2})
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    inputs = jax.eval_shape(lambda: batch(256))

    def temporaries(grad_cache):
        train, _ = step.compile_steps(subject, TX, mesh, grad_cache=grad_cache)
        lowered = train.lower(state.abstract_state(subject, TX, mesh), inputs, jax.random.key(0))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    one, four = temporaries(1), temporaries(4)
    assert four < one / 2, (one, four)


def test_parts_that_do_not_divide_and_losses_that_compare_nothing_are_refused():
    mesh = meshes.make_mesh(data=8)
    given = {"batch_size": 64, "mesh": mesh, "accumulate": 1, "objective": halves(), "name": "simclr"}
    step.check_grad_cache(8, **given)
    message = (
        r"config\.grad_cache is 3, which does not divide the 8 examples .* = 64; choose one of \[1, 2, 4, 8\]"
    )
    with pytest.raises(ValueError, match=message):
        step.check_grad_cache(3, **given)
    message = r"is 8, which does not divide the 4 examples .* = 64 / config\.accumulate = 2; choose one of \[1, 2, 4\]"
    with pytest.raises(ValueError, match=message):
        step.check_grad_cache(8, **{**given, "accumulate": 2})
    with pytest.raises(ValueError, match=r"config\.grad_cache is 0; it must be at least 1"):
        step.check_grad_cache(0, **given)
    masked = {**given, "objective": objective("masked"), "name": "masked"}
    message = (
        r"grad_cache is 4, but the loss of objective masked is a mean over examples; use config\.accumulate"
    )
    with pytest.raises(ValueError, match=message):
        step.check_grad_cache(4, **masked)
    step.check_grad_cache(1, **masked)


@pytest.mark.parametrize("name", ["masked", "supervised ecg", "byol ecg", "cross_modal_byol"])
def test_what_compares_no_examples_says_so(name):
    assert not isinstance(objective(name), Comparing)


@pytest.mark.parametrize("name", ["cross_modal group", "simclr halves", "barlow_twins ecg"])
def test_what_compares_examples_says_so(name):
    assert isinstance(objective(name), Comparing)
