import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from formula import Golden, fill_by_formula, fill_from_state, merge, zeros

from ecgjax.losses.reconstruction import reconstruction_loss
from ecgjax.models.mae import MaeDecoder, kept_tokens, masking_from_noise
from ecgjax.models.vit import Vit, patchify, unpatchify


def reconstruct_loss(prediction, ecg, masking, **options):
    target, signal = patchify(ecg, patch=100), unpatchify(prediction, leads=ecg.shape[1])
    return reconstruction_loss(prediction, target, masking.mask, signal, ecg, **options)


class Pair(nnx.Module):
    """Encoder and decoder at the names the torch map uses."""

    def __init__(self, meta):
        _, leads, length = meta["img"]
        model, patch = meta["model"], meta["patch"][1]
        shape = {"leads": leads, "length": length, "patch": patch, "rngs": nnx.Rngs(0)}
        self.encoder = Vit(
            width=model["embed_dim"],
            depth=model["depth"],
            heads=model["num_heads"],
            pooling="mean_of_normed",
            **shape,
        )
        self.decoder = MaeDecoder(
            encoder_width=model["embed_dim"],
            width=model["decoder_embed_dim"],
            depth=model["decoder_depth"],
            heads=model["decoder_num_heads"],
            **shape,
        )


def lift(params):
    """The torch names put encoder tensors at the root."""
    return {**params["encoder"], "decoder": params["decoder"]}


def lower(params):
    return {"encoder": {k: v for k, v in params.items() if k != "decoder"}, "decoder": params["decoder"]}


@pytest.fixture(scope="module", params=["mae_small", "mae_tiny"])
def setting(request, goldens):
    golden = Golden(goldens, request.param)
    graphdef, params, _ = zeros(lambda: Pair(golden.meta))
    params = lift(params)
    if golden.state("sd"):
        fill_from_state(params, golden.state("sd"))
    else:
        fill_by_formula(params, golden["grad_rec__names"], golden.meta["base_seed"])
    return golden, graphdef, lower(params)


def run(golden, graphdef, params, *, noise="noise1"):
    model = merge(graphdef, params)
    ecg = jnp.asarray(golden["x"][:, 0])
    masking = masking_from_noise(jnp.asarray(golden[noise]), kept=golden.meta["len_keep"])
    latent = model.encoder(ecg, keep=masking.keep)["tokens"]
    return ecg, masking, latent, model.decoder(latent, masking.restore)


def test_masking_keeps_the_same_tokens(setting):
    golden, *_ = setting
    assert kept_tokens(golden.meta["L"], golden.meta["mask_ratio"]) == golden.meta["len_keep"]
    masking = masking_from_noise(jnp.asarray(golden["noise1"]), kept=golden.meta["len_keep"])
    np.testing.assert_array_equal(masking.keep, golden["ids_keep"])
    np.testing.assert_array_equal(masking.restore, golden["ids_restore"])
    np.testing.assert_array_equal(masking.mask, golden["mask"])


def test_forward(setting):
    golden, graphdef, params = setting
    with jax.default_matmul_precision("highest"):
        ecg, _, latent, prediction = jax.jit(lambda p: run(golden, graphdef, p))(params)
        every = jax.jit(lambda p: merge(graphdef, p).encoder(ecg)["tokens"])(params)
    golden.check("latent", latent)
    golden.check("pred", prediction)
    golden.check("latent_all_patches", every[: len(golden["latent_all_patches"])])
    if "recon" in golden.arrays:
        golden.check("recon", unpatchify(prediction, leads=12)[:, None])
        np.testing.assert_array_equal(patchify(ecg, patch=100), golden["target_patches"])


@pytest.mark.parametrize(
    ("options", "key", "part"),
    [
        ({}, "loss/mse_all", "mse"),
        ({"scope": "masked"}, "loss/mse_masked_only", "mse"),
        ({}, "loss/rec_w0.1", "loss"),
        ({"targets": "normalised"}, "loss/rec_w0.1_normpix", "loss"),
    ],
)
def test_losses(setting, options, key, part):
    golden, graphdef, params = setting
    with jax.default_matmul_precision("highest"):
        ecg, masking, _, prediction = jax.jit(lambda p: run(golden, graphdef, p))(params)
    loss = reconstruct_loss(prediction, ecg, masking, **options)
    golden.check(key, loss[part], floor=1e-5)
    golden.check("loss/one_minus_ncc", 1 - loss["ncc"], floor=1e-5)


def test_gradients(setting):
    golden, graphdef, params = setting

    def loss(params):
        ecg, masking, _, prediction = run(golden, graphdef, params)
        return reconstruct_loss(prediction, ecg, masking)["loss"]

    with jax.default_matmul_precision("highest"):
        gradients = jax.jit(jax.grad(loss))(params)
    golden.check_gradients("grad_rec", lift(gradients))
