import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import mesh_utils
from jax.sharding import PartitionSpec as P
from tiny_objectives import SECTIONS, objective

from ecgjax.core import mesh as meshes
from ecgjax.core import trees
from ecgjax.train import optim, state

SCHEDULE = {"name": "constant", "learning_rate": 1e-3}


@pytest.mark.parametrize("optimizer", list(optim.OPTIMIZERS))
@pytest.mark.parametrize("name", list(SECTIONS))
def test_every_leaf_of_every_training_state_has_a_rule(name, optimizer):
    tx, _ = optim.build({"name": optimizer, "schedule": SCHEDULE}, steps=10)
    mesh = meshes.make_mesh(slices=2, data=2, fsdp=2)
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


LEAVES = {"ecg": {"qkv": {"kernel": jnp.zeros((4, 12))}, "fc1": {"kernel": jnp.zeros((4, 12))}}}


@pytest.mark.parametrize(
    ("layout", "spec"), [("replicated", P()), ("fsdp:0", P("fsdp")), ("fsdp", P(None, "fsdp"))]
)
def test_rules_of_the_config_go_before_the_built_in(layout, spec):
    found = meshes.shardings(LEAVES, meshes.make_mesh(data=4, fsdp=2), [[r"qkv/kernel$", layout]])
    assert found["ecg"]["qkv"]["kernel"].spec == spec
    assert found["ecg"]["fc1"]["kernel"].spec == P(None, "fsdp")


def test_optimiser_moments_follow_the_rule_of_their_parameter():
    tx, _ = optim.build({"name": "adamw", "schedule": SCHEDULE}, steps=10)
    rules = [(r"ecg/encoder/patch_embed/kernel$", "fsdp:0")]
    whole = state.abstract_state(objective("masked"), tx, meshes.make_mesh(data=4, fsdp=2), rules)
    leaves = trees.flatten(whole)
    found = [path for path in leaves if path.endswith("ecg/encoder/patch_embed/kernel")]
    assert len(found) == 3  # With both moments.
    assert all(leaves[path].sharding.spec == P("fsdp") for path in found)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (("qvk/kernel", "fsdp"), r"rules\[1\]: 'qvk/kernel' finds no leaf.*near it are ecg/qkv/kernel"),
        (("qkv/(kernel", "fsdp"), r"rules\[1\]: 'qkv/\(kernel' is no regex: missing \)"),
        (("kernel", "data"), r"rules\[1\]: unknown layout 'data'; choose fsdp, replicated, or fsdp:AXIS"),
        (("kernel",), r"rules\[1\]: expected a pair of a regex and a layout, got \('kernel',\)"),
        (
            ("qkv/kernel", "fsdp:2"),
            r"fsdp:2 splits axis 2 of ecg/qkv/kernel of shape \(4, 12\) over 4.*\[0, 1\]",
        ),
    ],
)
def test_a_wrong_rule_of_the_config_says_what_is_wrong(rule, message):
    rules = [("fc1", "replicated"), rule]
    with pytest.raises(ValueError, match=r"config\.mesh\.rules.*" + message.removeprefix("rules")):
        meshes.shardings(LEAVES, meshes.make_mesh(data=2, fsdp=4), rules)


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


@pytest.mark.parametrize(
    ("size", "choices"),
    [
        (12, r"take 8 or 16\. A run that has begun keeps its batch: go on with 6 devices"),
        (3, r"take 8\. A run that has begun keeps its batch: go on with 3 devices"),
        (0, "take 8"),
    ],
)
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


def test_a_mesh_larger_than_the_devices_is_refused():
    with pytest.raises(ValueError, match=r"slices 2 x data 8 x fsdp 1 = 16 devices, 8 are visible"):
        meshes.make_mesh(slices=2, data=8)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"slices": 3}, r"config\.mesh\.slices is 3.*8 devices; choose one of \[1, 2, 4, 8\]"),
        ({"slices": 0}, r"config\.mesh\.slices is 0.*choose one of \[1, 2, 4, 8\]"),
        (
            {"slices": 2, "fsdp": 8},
            r"config\.mesh\.fsdp is 8.*4 devices of a slice; choose one of \[1, 2, 4\]",
        ),
    ],
)
def test_slices_that_do_not_divide_the_devices_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        meshes.make_mesh(**shape)


def test_devices_without_slices_are_cut_into_consecutive_groups():
    mesh = meshes.make_mesh(slices=2, fsdp=2)
    assert dict(mesh.shape) == {"dcn": 2, "data": 2, "fsdp": 2}
    assert list(mesh.devices.flat) == jax.devices()


@dataclasses.dataclass(frozen=True)
class Chip:
    """What arranging a mesh asks of a TPU chip."""

    id: int
    process_index: int
    slice_index: int
    coords: tuple[int, int, int]
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"


def pod(slices):
    """Slices of 4 x 4 chips, each 2 x 2 of them at one host."""
    return [
        Chip(16 * s + 4 * y + x, 4 * s + y // 2 * 2 + x // 2, s, (x, y, 0))
        for s in range(slices)
        for y in range(4)
        for x in range(4)
    ]


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_slices_of_a_pod_are_arranged_as_a_hybrid_mesh(fsdp):
    mesh = meshes.make_mesh(slices=2, fsdp=fsdp, devices=pod(2)[::-1])
    shape, outer = (1, 16 // fsdp, fsdp), (2, 1, 1)
    hybrid = mesh_utils.create_hybrid_device_mesh(shape, outer, pod(2), allow_split_physical_axes=True)
    assert list(mesh.devices.flat) == list(hybrid.flat)
    assert [{chip.slice_index for chip in part.flat} for part in mesh.devices] == [{0}, {1}]


@pytest.mark.parametrize(("slices", "found"), [(1, 2), (2, 1), (4, 2)])
def test_slices_other_than_the_pods_are_refused(slices, found):
    with pytest.raises(
        ValueError, match=rf"slices is {slices}, but the \d+ devices make {found} slice.*slices={found}"
    ):
        meshes.make_mesh(slices=slices, devices=pod(found))


def test_a_process_reads_the_rows_that_its_devices_hold():
    mesh = meshes.make_mesh(
        slices=2, devices=pod(2)
    )  # A ring through each slice: hosts are left and come back to.
    assert [chip.process_index for chip in mesh.devices[0].flat] == [
        0,
        0,
        1,
        1,
        1,
        1,
        0,
        2,
        3,
        3,
        3,
        3,
        2,
        2,
        2,
        0,
    ]
    rows = [meshes.process_rows(mesh, 64, process=process) for process in range(8)]
    np.testing.assert_array_equal(rows[0], [0, 1, 2, 3, 12, 13, 30, 31])
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(64))
    where = meshes.batch_sharding(mesh).devices_indices_map((64,))
    for process in range(8):
        held = [np.arange(64)[rows] for chip, rows in where.items() if chip.process_index == process]
        np.testing.assert_array_equal(np.sort(np.concatenate(held)), rows[process])


def test_one_process_reads_every_row():
    np.testing.assert_array_equal(meshes.process_rows(meshes.make_mesh(fsdp=2), 16), np.arange(16))


def test_a_global_batch_keeps_its_rows_in_order_over_the_devices():
    mesh = meshes.make_mesh(data=4, fsdp=2)
    batch = {"ecg": np.arange(16.0).reshape(16, 1)}
    placed = meshes.to_global(batch, mesh)["ecg"]
    np.testing.assert_array_equal(placed, batch["ecg"])
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 1)}
