import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiny_objectives import SECTIONS, objective

from ecgjax.core import mesh as meshes
from ecgjax.core import trees
from ecgjax.models import ENCODERS
from ecgjax.train import optim, state

SCHEDULE = {"name": "constant", "learning_rate": 1e-3}


def test_every_registered_encoder_is_among_the_objectives_below():
    parts = [part for section in SECTIONS.values() for part in section.values() if isinstance(part, dict)]
    assert {part["name"] for part in parts if "name" in part} == set(ENCODERS)


@pytest.mark.parametrize("optimizer", list(optim.OPTIMIZERS))
@pytest.mark.parametrize("name", list(SECTIONS))
def test_every_leaf_of_every_training_state_has_a_rule(name, optimizer):
    tx, _ = optim.build({"name": optimizer, "schedule": SCHEDULE}, steps=10)
    mesh = meshes.make_mesh(data=4, fsdp=2)
    whole = state.abstract_state(objective(name), tx, mesh)  # Raises where a leaf has none.
    specs = {path: leaf.sharding.spec for path, leaf in trees.flatten(whole).items()}
    kernels = [path for path in specs if path.endswith("kernel")]
    assert kernels
    assert all("fsdp" in specs[path] for path in kernels)
    assert all(specs[path] == P() for path in specs if path.endswith(("bias", "scale", "mean", "var")))


def test_a_leaf_without_a_rule_is_named():
    with pytest.raises(
        ValueError, match=r"no sharding rule for leaf ecg/codebook of shape \(4, 2\).*core\.mesh\.RULES"
    ):
        meshes.shardings({"ecg": {"codebook": jnp.zeros((4, 2))}}, meshes.make_mesh())


def test_scalars_need_no_rule():
    spec = meshes.shardings({"anything": jnp.zeros(())}, meshes.make_mesh())["anything"].spec
    assert spec == P()


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((6, 8), P(None, "fsdp")),
        ((8, 6), P("fsdp")),
        ((8, 3), P("fsdp")),
        ((3, 5), P()),
        ((2, 2, 7), P("fsdp")),
    ],
)
def test_fsdp_splits_the_largest_axis_it_divides(shape, spec):
    mesh = meshes.make_mesh(data=4, fsdp=2)
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert meshes.shardings({"kernel": leaf}, mesh)["kernel"].spec == spec


def test_a_device_of_an_fsdp_mesh_holds_its_part_only():
    mesh = meshes.make_mesh(data=2, fsdp=4)
    kernel = jnp.arange(32.0).reshape(8, 4)
    placed = jax.device_put(kernel, meshes.shardings({"kernel": kernel}, mesh)["kernel"])
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 4)}
    np.testing.assert_array_equal(placed, kernel)


@pytest.mark.parametrize(("size", "choices"), [(12, "take 8 or 16"), (3, "take 8"), (0, "take 8")])
def test_a_batch_that_devices_do_not_divide_is_refused_with_choices(size, choices):
    with pytest.raises(
        ValueError, match=rf"config\.data\.batch_size is {size}, which 8 devices.*{choices}\."
    ):
        meshes.check_batch_size(size, meshes.make_mesh())


def test_a_batch_that_devices_divide_is_admitted():
    meshes.check_batch_size(24, meshes.make_mesh())


def test_an_fsdp_size_that_does_not_divide_the_devices_lists_those_that_do():
    with pytest.raises(ValueError, match=r"config\.mesh\.fsdp is 3.*8 devices; choose one of \[1, 2, 4, 8\]"):
        meshes.make_mesh(fsdp=3)


def test_a_mesh_of_another_size_than_the_devices_is_refused():
    with pytest.raises(
        ValueError, match=r"data 2 x fsdp 2 = 4 devices, 8 are visible.*config\.mesh\.data=-1"
    ):
        meshes.make_mesh(data=2, fsdp=2)


def test_a_global_batch_keeps_its_rows_in_order_over_the_devices():
    mesh = meshes.make_mesh(data=4, fsdp=2)
    batch = {"ecg": np.arange(16.0).reshape(16, 1)}
    placed = meshes.to_global(batch, mesh)["ecg"]
    np.testing.assert_array_equal(placed, batch["ecg"])
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 1)}
