import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from formula import Golden, fill_from_state, merge, zeros

from ecgjax.models.heads import LinearHead
from ecgjax.models.vit import Vit

POOLINGS = {"avg": "mean", "attn": "attention", "cls": "cls"}


class Classifier(nnx.Module):
    """Encoder and linear layer; the reference applies `pool_norm` a second time between the two."""

    def __init__(self, pooling):
        rngs = nnx.Rngs(0)
        self.encoder = Vit(
            leads=12,
            length=600,
            patch=100,
            width=32,
            depth=2,
            heads=4,
            pooling=pooling,
            positions="learnable",
            rngs=rngs,
        )
        self.head = LinearHead(width_in=32, outputs=2, rngs=rngs)

    def __call__(self, ecg, keep=None):
        embedding = self.encoder(ecg, keep=keep)["embedding"]
        if self.encoder.pooling != "cls":
            return embedding, self.head(self.encoder.pool_norm(embedding))
        return embedding, self.head(embedding)


@pytest.fixture(scope="module")
def golden(goldens):
    return Golden(goldens, "vit_small")


def build(golden, short):
    graphdef, params, _ = zeros(lambda: Classifier(POOLINGS[short]))
    tree = {**params["encoder"], "head": params["head"]["linear"]}
    fill_from_state(tree, golden.state(f"sd_{short}"))
    head = tree.pop("head")
    return graphdef, {"encoder": tree, "head": {"linear": head}}


def apply(golden, short, *args, **kwargs):
    graphdef, params = build(golden, short)
    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda p: merge(graphdef, p)(jnp.asarray(golden["x"][:, 0]), *args, **kwargs))(params)


@pytest.mark.parametrize("short", POOLINGS)
def test_embedding_and_logits(golden, short):
    embedding, logits = apply(golden, short)
    golden.check(f"feat_{short}", embedding)
    golden.check(f"logits_{short}", logits)


@pytest.mark.parametrize("short", POOLINGS)
def test_attention_of_the_last_block(golden, short):
    graphdef, params = build(golden, short)
    # The reference shuffles the tokens even when it hides none, and its map is in that order.
    order = np.concatenate([np.zeros((4, 1), int), 1 + np.argsort(golden["noise"], axis=1)], axis=1)
    with jax.default_matmul_precision("highest"):
        attention = merge(graphdef, params).encoder.last_attention(jnp.asarray(golden["x"][:, 0]))
    shuffled = np.stack([a[:, o][:, :, o] for a, o in zip(np.asarray(attention), order, strict=True)])
    golden.check(f"attnmap_last_{short}", shuffled)


def test_half_of_the_tokens(golden):
    keep = np.argsort(golden["noise"], axis=1)[:, :36]
    golden.check("logits_avg_mask0.5", apply(golden, "avg", jnp.asarray(keep))[1])


def test_gradient_of_cross_entropy(golden):
    graphdef, params = build(golden, "avg")
    label = jax.nn.one_hot(golden["y"], 2) * 0.9 + 0.05
    weight = golden["class_weight"]

    def loss(params):
        # torch's weighted, smoothed cross-entropy: weights in the smoothing term too, divided by theirs.
        _, logits = merge(graphdef, params)(jnp.asarray(golden["x"][:, 0]))
        per_class = -jax.nn.log_softmax(logits) * label * weight
        return per_class.sum() / weight[golden["y"]].sum()

    with jax.default_matmul_precision("highest"):
        value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    golden.check("ft_loss_step0", value, floor=1e-5)
    golden.check_gradients("ft_grad", {**gradients["encoder"], "head": gradients["head"]["linear"]})
