import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import build
from flax import nnx
from test_encoders import IMAGE, LEAD

from configs.prepare import IMAGES
from ecgjax.core.spec import EcgSpec, ImageSpec, InputSpec
from ecgjax.models.stft import stft_image
from ecgjax.models.stft_cnn import StftCnn, StftResNet, StftVit
from ecgjax.objectives.encoders import encoder_factory

FULL = ImageSpec(**IMAGES["default"], mean=0.0, std=1.0)


def cnn(**changes):
    return build(lambda: StftCnn(**{**LEAD, "widths": (8, 16), **changes}, rngs=nnx.Rngs(0)))


def test_the_default_has_98_thousand_parameters_with_its_readout():
    model = nnx.eval_shape(lambda: StftCnn(leads=1, length=1024, image=FULL, rngs=nnx.Rngs(0)))
    encoder = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    kernels = 9 * (1 * 16 + 16 * 32 + 32 * 64 + 64 * 128)
    assert encoder == kernels + 2 * (16 + 32 + 64 + 128) == 97_392
    assert encoder + 4 * (128 + 1) == 97_908


@pytest.mark.parametrize(("image", "size"), [("default", (4, 4)), ("short", (2, 8)), ("large", (16, 16))])
def test_four_blocks_leave_a_sixteenth_of_the_image(image, size):
    spec = ImageSpec(**IMAGES[image], mean=0.0, std=1.0)
    model = nnx.eval_shape(lambda: StftCnn(leads=1, length=1024, image=spec, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    x = jax.ShapeDtypeStruct((3, 1, 1024), jnp.float32)
    out = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, x)
    assert out["map"].shape == (3, *size, 128)
    assert out["embedding"].shape == (3, 128)


def test_a_block_is_convolution_norm_rectifier_and_maximum():
    """One block against numpy, written from the equations."""
    model = cnn(widths=(8,), groups=4)
    x = jax.random.normal(jax.random.key(0), (2, 1, 64))
    image = np.pad(np.asarray(stft_image(x[:, 0], IMAGE), np.float64), ((0, 0), (1, 1), (1, 1)))
    kernel = np.asarray(model.blocks[0].conv.kernel[...], np.float64)
    conv = sum(
        image[:, dy : dy + 16, dx : dx + 16, None] * kernel[dy, dx, 0] for dy in range(3) for dx in range(3)
    )
    groups = conv.reshape(2, 256, 4, 2)
    normed = (groups - groups.mean((1, 3), keepdims=True)) / np.sqrt(groups.var((1, 3), keepdims=True) + 1e-5)
    relu = np.maximum(normed.reshape(2, 16, 16, 8), 0)
    want = relu.reshape(2, 8, 2, 8, 2, 8).max((2, 4))
    out = jax.jit(model)(x)
    np.testing.assert_allclose(out["activation"], relu, atol=1e-4)
    np.testing.assert_allclose(out["map"], want, atol=1e-4)
    np.testing.assert_allclose(out["embedding"], want.mean((1, 2)), atol=1e-5)


def test_masks_and_dropout_act_in_training_alone():
    x = jax.random.normal(jax.random.key(0), (2, 1, 64))
    plain, masked = cnn(), cnn(mask_frequencies=6, mask_times=6, dropout=0.5)
    run = jax.jit(lambda x, key: masked(x, train=True, key=key)["embedding"])
    evaluated = jax.jit(lambda x: [model(x)["embedding"] for model in (masked, plain)])(x)
    np.testing.assert_array_equal(*evaluated)
    first, again, other = (run(x, jax.random.key(i)) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    assert np.mean(np.asarray(first) == 0) > 0.2


@pytest.mark.parametrize(
    ("make", "changes", "match"),
    [
        (StftCnn, {"leads": 12}, "12 leads, the image is that of one.*leadwise"),
        (StftCnn, {"length": 60}, r"spans 64 samples.*60; set config\.data\.crop to 64"),
        (StftCnn, {"widths": (8,) * 5}, "can be halved by 4 blocks at most"),
        (StftCnn, {"widths": (12,)}, "12 channels do not split into 8 groups"),
        (StftCnn, {"mask_times": 16}, "mask_times is 16; it must be at least 0 and below the 16"),
        (StftCnn, {"dropout": 1.0}, "dropout is 1.0"),
        (StftVit, {"patch": (5, 4), "width": 16, "depth": 1, "heads": 2}, r"patch is \(5, 4\).*16 x 16"),
        (StftCnn, {"image": ImageSpec(**IMAGES["default"]), "length": 1024}, "no mean and std"),
    ],
)
def test_wrong_settings_say_what_is_wrong(make, changes, match):
    with pytest.raises(ValueError, match=match):
        make(**{**LEAD, **changes}, rngs=nnx.Rngs(0))


def spec(image=IMAGE):
    return InputSpec(EcgSpec(("MLII",), 360.0, 64, "mV", {}, window="beat", image=image))


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ({"name": "stft_cnn", "widths": (8, 8)}, StftCnn),
        ({"name": "stft_resnet", "variant": "resnet18_2d", "stem": "small"}, StftResNet),
        ({"name": "stft_vit", "variant": "pluto", "patch": (8, 4)}, StftVit),
    ],
)
def test_a_config_chooses_the_encoder_and_the_data_its_image(section, kind):
    factory = encoder_factory(section, "ecg", spec(), 64, "config.objective.encoder")
    model = nnx.eval_shape(lambda: factory(nnx.Rngs(0)))
    assert isinstance(model, kind)
    assert model.image.image == IMAGE


def test_data_without_an_image_are_refused_with_the_path():
    with pytest.raises(
        ValueError, match=r"config\.objective\.encoder\.name: stft_cnn reads.*config\.ecg\.image"
    ):
        encoder_factory({"name": "stft_cnn"}, "ecg", spec(None), 64, "config.objective.encoder")
    with pytest.raises(ValueError, match=r"config\.objective\.encoder\.image: set by the program"):
        encoder_factory({"name": "stft_cnn", "image": {}}, "ecg", spec(), 64, "config.objective.encoder")
