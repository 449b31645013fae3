"""Reading the text: types as they lie in memory, and groups of devices in every spelling."""

import pytest

from ecgjax.plans import groups, hlo

SCHEDULED = (
    "HloModule m, is_scheduled=true, num_partitions={}\n\nENTRY %main (p: f32[8]) -> f32[8] {{\n{}\n}}\n"
)


def instruction(line, *, partitions=16):
    text = SCHEDULED.format(partitions, f"  %p = f32[8]{{0}} parameter(0)\n  {line}")
    return hlo.parse_module(text).entry.root


@pytest.mark.parametrize(
    ("text", "logical", "padded", "space"),
    [
        ("f32[60,301]{1,0:T(8,128)}", 60 * 301 * 4, 64 * 384 * 4, 0),
        ("f32[60,301]{0,1:T(8,128)}", 60 * 301 * 4, 304 * 128 * 4, 0),
        ("bf16[8,32,32,16]{3,0,2,1:T(8,128)(2,1)}", 8 * 32 * 32 * 16 * 2, 32 * 32 * 8 * 128 * 2, 0),
        ("bf16[3,64]{1,0:T(4,128)(2,1)S(1)}", 3 * 64 * 2, 4 * 128 * 2, 1),
        ("pred[32]{0:T(512)(128)(4,1)}", 32, 512, 0),
        ("s32[]{:T(128)S(6)}", 4, 512, 6),
        ("f32[16]{0}", 64, 64, 0),
        ("u32[]{:S(2)}", 4, 4, 2),
        ("token[]", 0, 0, 0),
        ("s4[3,256]{1,0:T(8,128)(8,1)}", 384, 1024, 0),
    ],
)
def test_arrays_take_whole_tiles(text, logical, padded, space):
    root = instruction(f"ROOT %x = {text} bitcast(%p)")
    assert (root.type.bytes, root.type.padded_bytes, root.type.space) == (logical, padded, space)
    assert root.type.hbm_bytes == (0 if space else padded)


def test_tuples_nest_and_count_their_elements_in_comments():
    root = instruction("ROOT %x = ((f32[4]{0:T(128)}, s32[]), /*index=1*/bf16[2,2]{1,0}) custom-call(%p, %p)")
    (inner, scalar), last = root.type
    assert (inner.dims, scalar.dims, last.dtype) == ((4,), (), "bf16")
    assert [array.bytes for array in hlo.arrays(root.type)] == [16, 4, 8]
    assert root.operands == ("p", "p")


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("{{0,1},{2,3}}", ((0, 1), (2, 3))),
        ("{}", ((0, 1, 2, 3, 4, 5, 6, 7),)),
        ("[2,4]<=[8]", ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("[4,2]<=[2,4]T(1,0)", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("[2,4]<=[2,2,2]T(1,0,2)", ((0, 1, 4, 5), (2, 3, 6, 7))),
        ("mesh['axis_0'=8,'axis_1'=1] {'axis_0'}", ((0, 1, 2, 3, 4, 5, 6, 7),)),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("mesh['a'=2,'b'=2,'c'=2] {'a','c'}", ((0, 1, 4, 5), (2, 3, 6, 7))),
        # The devices of this mesh are those of a [4,2] one read by columns: 0 2 4 6 / 1 3 5 7.
        ("mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}", ((0, 1), (2, 3), (4, 5), (6, 7))),
        ("mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}", ((0, 2, 4, 6), (1, 3, 5, 7))),
        ("mesh['a'=2,'b'=2], device_ids=(0,1,3,2) {'a'}", ((0, 3), (1, 2))),
        ("mesh['a'=8] {'a':(2)2}", ((0, 2), (1, 3), (4, 6), (5, 7))),
        ("mesh['a'=8] {'a':(1)2,'a':(4)2}", ((0, 1, 4, 5), (2, 3, 6, 7))),
    ],
)
def test_groups_in_every_spelling(spelling, expected):
    line = f"ROOT %r = f32[8]{{0}} all-reduce(%p), channel_id=1, replica_groups={spelling}, to_apply=%add"
    assert groups.replica_groups(instruction(line), (tuple(range(8)),)) == expected


def test_a_mesh_axis_that_is_not_there_is_an_error():
    line = "ROOT %r = f32[8]{0} all-reduce(%p), replica_groups=mesh['a'=8] {'b'}, to_apply=%add"
    with pytest.raises(ValueError, match=r"name axes \['b'\], the mesh has \['a'\]"):
        groups.replica_groups(instruction(line), ())


def test_distances_go_round_where_an_axis_is_a_ring():
    coordinates = {i: (i % 4, i // 4, 0) for i in range(16)}
    line, ring = (
        groups.Devices(coordinates, dict.fromkeys(range(16), 0), partitions=16, wrapped=wrapped)
        for wrapped in ((), (True, False))
    )
    # From the first to the last of a row, and to its neighbour; the pair of a device with itself moves nothing.
    pairs = ((0, 3), (0, 1), (2, 2))
    assert line.hops(pairs) == (3 + 1) / 2
    assert ring.hops(pairs) == (1 + 1) / 2
    assert line.hops(((3, 3),)) == 0
    assert line.span(((0, 1, 2, 3), (4, 5, 6, 7))) == (4, 1, 1)
    assert line.span(((0, 5, 10, 15),)) == (4, 4, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HloModule m, num_partitions=1\n", "not as a scheduled HLO module"),
        (SCHEDULED.format(1, "  ROOT %p = f32[8]{0} parameter(0)")[:-3], "no whole ENTRY computation"),
        (SCHEDULED.format(1, "  what is this"), "no HLO instruction"),
    ],
)
def test_other_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        hlo.parse_module(text)
