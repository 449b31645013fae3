"""Names of slices against the product pages' counts, and against what libtpu makes of them."""

import math

import pytest

from ecgjax.core import chips
from ecgjax.plans import topologies


@pytest.mark.parametrize(
    ("name", "same", "chips_", "devices", "hosts", "wrap"),
    [
        ("v5e:4x4", "v5e:4x4", 16, 16, 4, (False, False)),
        ("V5E:2x4", "v5e:2x4", 8, 8, 1, (False, False)),
        ("v5e:8x16", "v5e:8x16", 128, 128, 32, (False, True)),
        ("v5litepod-256", "v5e:16x16", 256, 256, 64, (True, True)),
        ("v6e-64", "v6e:8x8", 64, 64, 16, (False, False)),
        ("v5p-512", "v5p:4x8x8", 256, 256, 64, (True, True, True)),  # The number counts cores.
        ("v5p:2x2x4", "v5p:2x2x4", 16, 16, 4, (False, False, False)),
        ("v4-128", "v4:4x4x4", 64, 64, 16, (True, True, True)),
        ("tpu7x:4x4x4", "tpu7x:4x4x4", 64, 128, 16, (True, True, True)),
        ("tpu7x-32", "tpu7x:2x2x4", 16, 32, 4, (False, False, False)),
        ("2xv5e:16x16", "2xv5e:16x16", 512, 512, 128, (True, True)),
        ("local:8", "local:8", 8, 8, 1, (False,)),
    ],
)
def test_a_name_says_chips_devices_and_hosts(name, same, chips_, devices, hosts, wrap):
    found = topologies.parse(name)
    assert (found.name, found.chips, found.devices, found.hosts) == (same, chips_, devices, hosts)
    assert found.wrap == wrap
    assert topologies.parse(found.name) == found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e:6x6", "no slice of v5e has that shape"),  # libtpu would compile for these three.
        ("v5e:4x4x4", "no slice of v5e has that shape"),
        ("v5e:16x32", "no slice of v5e has that shape"),
        ("v5p:8x8x4", "no slice of v5p has that shape"),
        ("v4:16x16x32", "no slice of v4 has that shape"),
        ("v7x:2x2x1", "unknown generation 'v7x'"),
        ("v5lite-16", "unknown product 'v5lite'"),
        ("v5p-100", "v5p comes with 8, 16, 32, 64, 128, .* cores; give another shape as v5p:AxBxC"),
        ("16 chips", "not understood"),
        ("0xv5e:4x4", "at least one slice"),
        ("local:0", "at least one device"),
    ],
)
def test_what_nobody_rents_is_refused_with_a_way_out(name, message):
    with pytest.raises(ValueError, match=rf"--topology={name}: {message}") as caught:
        topologies.parse(name)
    if message[:2] in ("no", "un"):
        assert "Known: v5e and v6e of 1x1 2x2 2x4 4x4" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["v4:2x2x1", "v4:4x4x4", "v5e:1x1", "v5e:2x4", "v5p-512", "v6e:16x16", "tpu7x:2x2x1", "2xv5e:4x4"]
)
def test_libtpu_agrees_on_devices_and_hosts(libtpu, name):
    topology = topologies.parse(name)
    found = libtpu.get_topology_desc(**topology.describe()).devices
    assert len(found) == topology.devices
    assert len({device.process_index for device in found}) == topology.hosts
    assert len({getattr(device, "slice_index", 0) for device in found}) == topology.slices
    assert chips.of_kind(found[0].device_kind) == topology.chip
    sides = [len({device.coords[axis] for device in found}) for axis in range(len(topology.shape))]
    assert math.prod(sides) * topology.slices >= topology.chips
    assert tuple(sides) == topology.shape


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("foo:2x2", "Invalid TPU external name"),
        ("v5e;2", "does not match regex"),
        ("v5e:3x3", "not divisible by the given .* chips_per_host_bounds"),
    ],
)
def test_libtpu_refuses_in_words_that_name_no_way_out(libtpu, name, message):
    """Why names are checked before they reach it."""
    with pytest.raises(Exception, match=message):
        libtpu.get_topology_desc(name, platform="tpu")
