import jax
import numpy as np
import published
import pytest
from flax import nnx

from ecgjax.core import trees
from ecgjax.models.posemb import resize_positions
from ecgjax.models.resnet import VARIANTS, ResNet
from ecgjax.models.vit import VARIANTS as VIT_VARIANTS
from ecgjax.models.vit import Vit
from ecgjax.weights.fit import fit, unfit
from ecgjax.weights.names import from_torch, leaf_of, name_of, to_torch
from ecgjax.weights.objects import Record
from ecgjax.weights.states import CmrSizes, heads_of, inspect_state, nearest, state_of

TINY = published.transformer(384, 3, columns=25, patch=100)
RESNET50 = published.resnet((3, 4, 6, 3), (64, 128, 256, 512), bottleneck=True)
SMALL = {"leads": 12, "length": 100, "patch": 50, "width": 16, "depth": 1, "heads": 2}


def shapes_only(shapes):
    """A state dict of these shapes that takes no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def abstract(factory, modality):
    """Shapes of the parameters and statistics of an encoder at its place in our trees."""
    module = nnx.eval_shape(factory)
    parts = nnx.split(module, nnx.Param, ...)[1:]
    return tuple({modality: {"encoder": nnx.to_pure_dict(part)}} for part in parts)


def small(**options):
    return abstract(lambda: Vit(**{**SMALL, "positions": "learnable", **options}, rngs=nnx.Rngs(0)), "ecg")


def test_the_42_tensors_of_the_published_ecg_encoder_have_a_place_each():
    assert len(TINY) == 42
    assert sum(int(np.prod(shape)) for shape in TINY.values()) == 5_478_912
    sizes = {**VIT_VARIANTS["tiny"], "leads": 12, "length": 2500, "patch": 100}
    target = abstract(lambda: Vit(**sizes, pooling="cls", positions="learnable", rngs=nnx.Rngs(0)), "ecg")
    *_, account = fit(shapes_only(TINY), *target, rows=12, where="file")
    assert len(account.copied) == 42
    assert (account.missing, account.surplus, account.resized, account.cast) == ((), (), (), ())


def test_the_318_tensors_of_the_published_image_encoder_have_a_place_each():
    assert len(RESNET50) == 318
    target = abstract(lambda: ResNet(**VARIANTS["resnet50"], rngs=nnx.Rngs(0)), "cmr")
    *_, account = fit(shapes_only(RESNET50), *target, rows=1, where="file")
    assert len(account.copied) + account.counters == 318
    assert account.counters == 53
    assert (account.missing, account.surplus) == ((), ())


def test_with_mean_pooling_the_unused_norm_has_no_place_and_a_fresh_one_is_drawn():
    *_, account = fit(
        shapes_only(published.transformer(16, 1)), *small(pooling="mean"), rows=12, where="file"
    )
    assert account.surplus == ("norm.weight (16,) float32", "norm.bias (16,) float32")
    assert account.missing == ("ecg/encoder/pool_norm/bias (16,)", "ecg/encoder/pool_norm/scale (16,)")
    assert "as drawn: ecg/encoder/pool_norm/scale (16,)" in str(account)


EVERY = {
    **published.transformer(16, 2),
    **published.decoder(8, 1, encoder_width=16),
    **published.negative_free(16),
    **published.resnet(),
    **published.resnet((1, 1), (4, 8), bottleneck=True),
    **published.heads(16, 8),
    "fc_norm.weight": (16,),
    "fc_norm.bias": (16,),
    "attention_pool.in_proj_weight": (48, 16),
    "attention_pool.in_proj_bias": (48,),
    "attention_pool.out_proj.weight": (16, 16),
    "attention_pool.out_proj.bias": (16,),
    "head.weight": (2, 16),
    "head.bias": (2,),
}


@pytest.mark.parametrize("name", [n for n in EVERY if "tracked" not in n and n != "decoder_pos_embed"])
def test_every_name_has_a_place_and_the_place_that_name(name):
    leaf = leaf_of(name)
    assert leaf is not None
    assert name_of(leaf) == name
    values = np.arange(np.prod(EVERY[name]), dtype=np.float32).reshape(EVERY[name])
    np.testing.assert_array_equal(to_torch(name, from_torch(name, values)), values)


def test_names_of_linear_probing_and_of_both_towers():
    assert leaf_of("head.0.running_mean") == "ecg/head/norm/mean"
    assert leaf_of("head.1.weight") == leaf_of("head.weight") == "ecg/head/linear/kernel"
    assert name_of("ecg/head/norm/var", probe=True) == "head.0.running_var"
    assert name_of("ecg/head/linear/bias", probe=True) == "head.1.bias"
    leaf = "ecg/encoder/blocks/0/attention/qkv/kernel"
    assert leaf_of("encoder_ecg.blocks.0.attn.qkv.weight") == leaf
    assert name_of(leaf, prefixed=True) == "encoder_ecg.blocks.0.attn.qkv.weight"
    assert leaf_of("layer4.2.bn3.running_var") == "cmr/encoder/stages/3/2/norm3/var"
    assert leaf_of("classifier.model.weight") == "online/kernel"
    assert name_of("online/bias") == "classifier.model.bias"
    for name in ("encoder_ecg.head.weight", "criterion_train.weight", "fc.weight", "w"):
        assert leaf_of(name) is None, name


@pytest.mark.parametrize("patch_leads", [1, 3, 12])
def test_a_patch_kernel_of_several_leads_reads_them_one_after_the_other(patch_leads):
    torch_kernel = np.random.default_rng(0).standard_normal((4, 1, patch_leads, 5)).astype(np.float32)
    kernel = from_torch("patch_embed.proj.weight", torch_kernel)
    patch = np.random.default_rng(1).standard_normal((patch_leads, 5)).astype(np.float32)
    want = np.einsum("dclt,lt->d", torch_kernel, patch)
    np.testing.assert_allclose(patch.reshape(-1) @ kernel, want, atol=1e-5)  # Sums of 60 terms of size 1.
    back = to_torch("patch_embed.proj.weight", kernel, patch_leads=patch_leads)
    np.testing.assert_array_equal(back, torch_kernel)


def test_positions_of_another_length_are_resized_in_time_and_said_to_be():
    state = published.by_formula(published.transformer(16, 1, columns=4), moved_positions=True)
    params, _, account = fit(state, *small(pooling="cls"), rows=12, where="file")
    want = resize_positions(state["pos_embed"][0], leads=12, columns=2)
    np.testing.assert_array_equal(params["ecg"]["encoder"]["positions"][0], want)
    assert account.resized == (("pos_embed (1, 49, 16)", "ecg/encoder/positions"),)
    assert "resized in time (bicubic): pos_embed (1, 49, 16)" in str(account)


def test_positions_that_fit_no_number_of_rows_are_refused():
    state = shapes_only({**published.transformer(16, 1), "pos_embed": (1, 31, 16)})
    with pytest.raises(ValueError, match="30 positions, no whole number of columns for 12 rows"):
        fit(state, *small(pooling="cls"), rows=12, where="file")


def test_a_decoder_table_that_is_not_ours_is_refused():
    state = published.by_formula(
        {**published.transformer(16, 1), **published.decoder(8, 1, encoder_width=16)}
    )
    fit(state, *small(pooling="cls"), rows=12, where="file")
    state["decoder_pos_embed"] = state["decoder_pos_embed"] + 0.01
    with pytest.raises(
        ValueError, match=r"decoder_pos_embed is off the sine-cosine table of 12 rows by up to 0\.01"
    ):
        fit(state, *small(pooling="cls"), rows=12, where="file")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floating_types_become_float32_and_are_listed(dtype):
    state = {
        name: value.astype(dtype)
        for name, value in published.by_formula(published.transformer(16, 1)).items()
    }
    params, _, account = fit(state, *small(pooling="cls"), rows=12, where="file")
    leaf = params["ecg"]["encoder"]["norm"]["scale"]
    assert leaf.dtype == np.float32
    np.testing.assert_array_equal(leaf, state["norm.weight"].astype(np.float32))
    assert len(account.cast) == len(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.weight": np.ones(16, np.int8)}, "norm.weight is int8, weights are floating point"),
        ({"norm.weight": np.full(16, np.nan, np.float32)}, "norm.weight holds values that are not finite"),
        ({"norm.weight": np.ones(17, np.float32)}, r"norm\.weight gives shape \(17,\).*needs \(16,\)"),
        (
            {"blocks.0.mlp.fc2.bias": None},
            r"lacks 1 tensors that this model has, such as blocks\.0\.mlp\.fc2\.bias",
        ),
    ],
)
def test_damaged_weights_are_refused_by_name(change, message):
    state = {**published.by_formula(published.transformer(16, 1)), **change}
    state = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        fit(state, *small(pooling="cls"), rows=12, where="file")


def test_our_trees_become_the_same_tensors_again():
    shapes = {**published.transformer(16, 1), **published.resnet()}
    state = published.by_formula(shapes, moved_positions=True)
    ecg = small(pooling="cls")
    cmr = abstract(lambda: ResNet(depths=(1, 1), widths=(4, 8), rngs=nnx.Rngs(0)), "cmr")
    params, extra, _ = fit(state, ecg[0] | cmr[0], cmr[1], rows=12, where="file")
    again = unfit(params, extra, patch_leads=1, tables={}, prefixed=False)
    assert again.keys() == state.keys()
    for name, value in state.items():
        assert again[name].dtype == value.dtype, name
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_every_leaf_of_ours_that_has_no_torch_name_is_an_error():
    with pytest.raises(ValueError, match="ecg/target/kernel has no name in the published files"):
        unfit({"ecg": {"target": {"kernel": np.ones(2)}}}, {}, patch_leads=1, tables={}, prefixed=False)


def found(shapes):
    return inspect_state(shapes_only(shapes), where="file")


def test_sizes_follow_from_shapes():
    ecg = found(TINY).ecg
    assert (ecg.width, ecg.depth, ecg.mlp_width, ecg.tokens) == (384, 3, 1536, 300)
    assert (ecg.channels, ecg.patch_leads, ecg.patch, ecg.pooling) == (1, 1, 100, None)
    assert heads_of(ecg, None, where="file") == 6
    assert found({**TINY, "fc_norm.weight": (384,)}).ecg.pooling == "mean"
    attention = {"attention_pool.in_proj_weight": (1152, 384), "fc_norm.weight": (384,)}
    assert found({**TINY, **attention}).ecg.pooling == "attention"
    both = found({**TINY, **published.decoder(256, 2, encoder_width=384), **published.negative_free(384)})
    assert (both.decoder.width, both.decoder.depth) == (256, 2)
    assert (both.decoder.projector_hidden, both.decoder.predictor_hidden) == (32, 8)
    assert heads_of(both.decoder, None, where="file") == 8


@pytest.mark.parametrize(
    ("variant", "depths", "bottleneck"), [("resnet18", (2, 2, 2, 2), False), ("resnet50", (3, 4, 6, 3), True)]
)
def test_residual_networks_are_told_apart(variant, depths, bottleneck):
    cmr = found(published.resnet(depths, (64, 128, 256, 512), bottleneck=bottleneck)).cmr
    assert cmr.variant == variant
    assert cmr.channels == 3
    assert CmrSizes("basic", (3, 4, 6, 3), (64, 128, 256, 512), 3).variant is None


def test_heads_that_no_table_knows_must_be_given():
    sizes = found(published.transformer(400, 3)).ecg
    with pytest.raises(ValueError, match=r"nearest is tiny: width 384, depth 3, heads 6.*give --heads=N"):
        heads_of(sizes, None, where="file")
    assert heads_of(sizes, 5, where="file") == 5
    with pytest.raises(ValueError, match="--heads=6 does not divide the width 400"):
        heads_of(sizes, 6, where="file")
    assert "nearest is small: width 512, depth 4" in nearest(found(published.transformer(500, 5)).ecg)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            {"bert.encoder.layer.0.attention.self.query.weight": (768, 768)},
            "no encoder of ours: an ECG transformer has",
        ),
        (
            published.transformer(768, 12, channels=3, patch=16, patch_leads=4),
            "3 channels.*nearest is base: width 768",
        ),
        ({"features.0.weight": (64, 3, 3, 3)}, "1 tensors .features.0.weight."),
        (
            {**TINY, "patch_embed.proj.weight": (384, 100)},
            r"proj\.weight is of shape \(384, 100\).*with 4 axes",
        ),
        ({n: s for n, s in TINY.items() if n != "pos_embed"}, "pos_embed is missing"),
        (
            {n: s for n, s in TINY.items() if not n.startswith("patch")},
            r"patch_embed\.proj\.weight is missing",
        ),
        ({"conv1.weight": (64, 3, 3, 3), "bn1.running_mean": (64,)}, r"first convolution is \(64, 3, 3, 3\)"),
        ({**TINY, "encoder_ecg.cls_token": (1, 1, 384)}, "two tensors belong to ecg/encoder/cls_token"),
    ],
)
def test_a_state_dict_of_another_model_is_described(shapes, message):
    with pytest.raises(ValueError, match=message):
        found(shapes)


def test_containers_of_the_published_files():
    tensors = {"w": np.ones(2)}
    args = Record("argparse.Namespace", (), {"input_size": (1, 12, 2500)})
    assert state_of({"model": tensors, "epoch": 399, "args": args}, where="f") == (
        tensors,
        {"input_size": (1, 12, 2500)},
    )
    assert state_of({"state_dict": tensors}, where="f") == (tensors, {})
    assert state_of(tensors, where="f") == (tensors, {})
    assert state_of({"model": {"module.w": tensors["w"]}}, where="f") == (tensors, {})
    for tree, message in (
        ([1], "f holds a list"),
        ({"model": {"w": 1}}, "but w"),
        ({"epoch": 3, "best": {}}, "but epoch, best"),
        ({}, "but nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            state_of(tree, where="f")


def test_leaf_paths_are_those_of_the_trees():
    params, extra = abstract(lambda: ResNet(depths=(1, 1), widths=(4, 8), rngs=nnx.Rngs(0)), "cmr")
    ours = {*trees.flatten(params), *trees.flatten(extra)}
    assert ours == {leaf_of(name) for name in published.resnet() if "tracked" not in name}
    assert jax.tree.leaves(params)
