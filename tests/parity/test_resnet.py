import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from formula import Golden, fill_by_formula, merge, zeros

from ecgjax.models.resnet import VARIANTS, ResNet

NAMES = {"r18": "resnet18", "r50": "resnet50"}


USES = {"resnet": ["*"]}


@pytest.fixture(scope="module")
def golden(goldens, precision):
    return Golden(goldens, "resnet", precision)


@pytest.fixture(scope="module", params=NAMES)
def setting(request, golden):
    short = request.param
    graphdef, params, stats = zeros(
        lambda: ResNet(**VARIANTS[NAMES[short]], dtype=golden.precision, rngs=nnx.Rngs(0))
    )
    names = golden[f"{short}/grad__names"]
    fill_by_formula(params, names, golden.meta["base_seed"])
    names = [n for n in golden[f"{short}/bn_after1__names"] if "running" in n]
    fill_by_formula(stats, names, golden.meta["base_seed"])
    return short, graphdef, params, stats


def stages(model, image, *, train):
    """Stem and first 16 channels of each stage of sample 0, embedding, in torch's layout."""
    x = model.first(image, train=train)
    maps = {"stem": x}
    for i, blocks in enumerate(model.stages):
        for block in blocks:
            x = block(x, train=train)
        maps[f"layer{i + 1}"] = x[..., :16]
    return {k: v[:1].transpose(0, 3, 1, 2) for k, v in maps.items()}, x.mean((1, 2))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_forward(golden, setting, mode):
    short, graphdef, params, stats = setting
    image = golden.input(f"{short}/x").transpose(0, 2, 3, 1)
    maps, embedding = jax.jit(lambda p, s: stages(merge(graphdef, p, s), image, train=mode == "train"))(
        params, stats
    )
    for name, value in maps.items():
        golden.check(f"{short}/{mode}/{name}", value)
    golden.check(f"{short}/{mode}/feat", embedding)


def test_gradient_and_running_statistics(golden, setting):
    short, graphdef, params, stats = setting
    image = golden.input(f"{short}/x").transpose(0, 2, 3, 1)

    def loss(params):
        model = merge(graphdef, params, stats)
        value = jnp.mean(jnp.square(model(image, train=True)["embedding"]))
        return value, nnx.to_pure_dict(nnx.split(model, nnx.Param, ...)[2])

    (value, moved), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    golden.check(f"{short}/train/loss", value, floor=1e-5)
    golden.check_gradients(f"{short}/bn_after1", moved, floor=2e-5)
    # Batch norm over few values and ReLU kinks make the deep net chaotic in float32 (goldens' README).
    golden.check_gradients(f"{short}/grad", gradients, floor={"r18": 1e-4, "r50": 2e-2}[short])
