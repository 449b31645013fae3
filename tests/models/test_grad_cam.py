import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from filled import build
from flax import nnx
from test_encoders import IMAGE, make

from ecgjax.models.classifier import Classifier
from ecgjax.models.grad_cam import grad_cam
from ecgjax.models.leadwise import Leadwise
from ecgjax.models.stft_cnn import StftCnn, halved


def test_of_a_linear_readout_of_means_it_is_the_class_activation_map():
    draw = np.random.default_rng(0)
    activation, kernel = draw.normal(size=(3, 2, 4, 5, 6)), draw.normal(size=(12, 7))
    embedding = activation.mean((2, 3))
    got = grad_cam(
        lambda z: z.reshape(3, 12) @ jnp.asarray(kernel, jnp.float32),
        jnp.asarray(embedding, jnp.float32),
        jnp.asarray(activation, jnp.float32),
    )
    want = np.einsum("bryxc,rcm->bmryx", activation, kernel.reshape(2, 6, 7)) / 20
    assert got.shape == (3, 7, 2, 4, 5)
    np.testing.assert_allclose(got, np.maximum(want, 0), atol=1e-5)


@pytest.mark.parametrize("mode", ["full", "probe"])
def test_it_is_the_gradient_by_the_activation_before_the_maximum(mode):
    """Against its definition, differentiated through maximum and mean."""
    model = build(lambda: Classifier(encoder=make("stft_cnn")(), outputs=3, mode=mode, rngs=nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(0), (2, 1, 64))
    out = jax.jit(lambda x: model(x, explain=True))(x)

    def logits(activation):
        embedding = halved(activation[None]).mean((1, 2))
        return (model.head(embedding) if mode == "full" else model.head(embedding, train=False))[0]

    slopes = jax.jit(jax.vmap(jax.jacrev(logits)))(out["activation"])  # [b m y x c]
    want = jnp.einsum("bmc,byxc->bmyx", slopes.mean((2, 3)), out["activation"])
    np.testing.assert_allclose(out["grad_cam"][:, :, 0], jnp.maximum(want, 0), atol=1e-6)


@pytest.mark.slow
def test_every_lead_has_its_own_map_weighed_over_beats_as_its_embedding():
    """Logit and maps of one lead and beat, read through the other parts of the kernel, are those of the beat alone."""
    settings = {"leads": 2, "length": 128, "lead_names": ("I", "V1"), "image": IMAGE, "read": ("V1", "I")}

    def whole(rngs):
        return Classifier(
            encoder=Leadwise(**settings, encoder=make("stft_cnn"), rngs=rngs), outputs=2, rngs=rngs
        )

    several = build(lambda: whole(nnx.Rngs(0)))
    single = build(lambda: Classifier(encoder=make("stft_cnn")(), outputs=2, rngs=nnx.Rngs(0)))
    nnx.update(single.encoder, nnx.state(several.encoder.shared))
    x, beats = jax.random.normal(jax.random.key(0), (1, 2, 128)), jnp.array([[60, -1]])
    got = jax.jit(lambda x: several(x, beats=beats, explain=True))(x)["grad_cam"]
    assert got.shape == (1, 2, 2, 8, 8)
    kernel = several.head.linear.kernel[...].reshape(2, 16, 2)
    explain = jax.jit(lambda state, x: nnx.merge(nnx.graphdef(single), state)(x, explain=True)["grad_cam"])
    for r, lead in enumerate((1, 0)):
        single.head.linear.kernel[...] = kernel[r]
        want = explain(nnx.state(single), x[:, lead, None, 28:92])
        np.testing.assert_allclose(got[:, :, r], want[:, :, 0], atol=1e-5)


def bursts(seed, size=64):
    """Noise, and in half of the signals a tone of 4 to 11 bins under a bell somewhere; with its frame and bin."""
    draw = np.random.default_rng(seed)
    label = np.arange(size) % 2
    frame, row = draw.integers(3, 13, size), draw.integers(4, 12, size)
    time = np.arange(64)
    bell = np.exp(-(((time - 4 * frame[:, None]) / 5) ** 2))
    tone = bell * np.cos(2 * np.pi * row[:, None] * time / 32 + draw.uniform(0, 6, (size, 1)))
    x = 0.05 * draw.normal(size=(size, 64)) + label[:, None] * tone
    return jnp.asarray(x[:, None], jnp.float32), jnp.asarray(label), frame, row


@pytest.mark.slow
def test_the_map_of_a_trained_encoder_lies_on_the_tone_that_the_label_tells_of():
    sizes = {"leads": 1, "length": 64, "image": IMAGE, "widths": (8, 16)}

    def classifier(rngs):
        return Classifier(encoder=StftCnn(**sizes, rngs=rngs), outputs=2, rngs=rngs)

    graph, params = nnx.split(build(lambda: classifier(nnx.Rngs(0))))
    tx = optax.adam(1e-2)
    x, label, _, _ = bursts(0)

    @jax.jit
    def step(params, opt):
        def loss(params):
            logits = nnx.merge(graph, params)(x)["logits"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt = tx.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt, value

    opt = tx.init(params)
    for _ in range(40):
        params, opt, value = step(params, opt)
    assert value < 0.1
    x, label, frame, row = bursts(1)
    out = jax.jit(lambda x: nnx.merge(graph, params)(x, explain=True))(x)
    assert np.mean(np.argmax(out["logits"], 1) == label) > 0.9
    positive = np.asarray(label) == 1
    maps = np.asarray(out["grad_cam"])[positive, 1, 0]  # [n 8 8], pixels of two rows and two frames.
    y, x = np.unravel_index(maps.reshape(len(maps), -1).argmax(1), (8, 8))
    distance = np.hypot(2 * y + 0.5 - row[positive], 2 * x + 0.5 - frame[positive])
    shuffled = np.hypot(2 * y + 0.5 - np.roll(row[positive], 1), 2 * x + 0.5 - np.roll(frame[positive], 1))
    assert np.median(distance) < 2.5 < np.median(shuffled)
