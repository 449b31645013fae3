"""What programs communicate, move and compute: texts of real compilations, cut to what matters, counted by hand.

The fixtures are v5e:4x4 texts of jax 0.10.2 and libtpu 0.0.42.1 without source locations and most of the backend's
configuration; sparse_core is of tpu7x. Device i of the mesh stands at (i // 4, i % 4), or is the i-th of a slice.
"""

import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ecgjax.plans.program import read_program

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
GRID = {i: (i // 4, i % 4, 0) for i in range(16)}
ONE_SLICE = dict.fromkeys(range(16), 0)
TILE = 512  # A scalar in the main memory takes a tile of 128 words.


def text(name):
    return (FIXTURES / f"{name}.txt").read_text()


def read(program, **keywords):
    return read_program(program, coordinates=GRID, slices=ONE_SLICE, **keywords)


def test_a_plain_all_reduce_is_blocking_and_spans_one_axis():
    program = read(text("all_reduce"))
    (reduce,) = program.collectives
    assert (reduce.kind, reduce.times, reduce.bytes, reduce.group) == ("all-reduce", 1, 4 * 2**20, 4)
    assert (reduce.network, reduce.blocking, reduce.dtypes, reduce.span) == ("ici", True, ("f32",), (1, 4, 1))
    assert program.hbm_bytes == 2 * 4 * 2**20  # Read here, written here.
    assert program.cycles is None
    assert program.flops == 0


def test_an_asynchronous_fusion_prints_one_all_gather_three_times():
    program = text("async_fusion")
    assert program.count(" all-gather(") == 4
    program = read(program)
    plain, fused = program.collectives
    assert plain.bytes == fused.bytes == 2048 * 2048 * 2
    assert plain.group == fused.group == 4
    assert plain.span == fused.span == (1, 4, 1)
    assert (plain.blocking, plain.cover_cycles) == (True, 0)
    assert (fused.blocking, fused.cover_cycles) == (False, 37682)  # The one fusion between its start and end.
    assert program.cycles == 37682 + 38215
    assert program.flops == 2 * 2 * 512 * 2048 * 2048
    # Three arguments are fetched to VMEM, the result is written; what is gathered never leaves VMEM.
    assert program.hbm_bytes == 4 * 512 * 2048 * 2


def test_an_asynchronous_fusion_without_a_start_is_refused():
    with pytest.raises(ValueError, match="starts nowhere"):
        read(text("async_fusion").replace("AsyncCollectiveStart", "AnotherStart"))


def test_what_ends_elsewhere_runs_to_the_end_of_its_computation():
    """As in a loop that ends in one turn what it began in the last."""
    fused = read(text("async_fusion").replace("AsyncCollectiveDone", "AnotherDone")).collectives[1]
    assert fused.cover_cycles == 37682 + 38215


def test_a_collective_of_another_core_is_found_where_it_is_called():
    """tpu7x leaves large sums to its sparse cores, in a computation that the program starts and waits for."""
    program = text("sparse_core")
    (reduce,) = read(program).collectives
    assert (reduce.kind, reduce.bytes, reduce.group, reduce.blocking) == ("all-reduce", 4 * 2**20, 4, True)
    assert read(program).kernels == ()
    # Summed in the main memory, and copied there.
    assert read(program).hbm_bytes == 2 * 2 * 4 * 2**20
    done = "  %all-reduce.2.cloned.1.call-done ="
    copy = next(line for line in program.splitlines() if "ROOT %copy.4" in line)
    meanwhile = copy.replace("ROOT %copy.4", "%copy.5").replace(
        "%all-reduce.2.cloned.1.call-done", "%param.1"
    )
    (hidden,) = read(program.replace(done, f"{meanwhile}\n{done}")).collectives
    assert (hidden.blocking, hidden.cover_cycles) == (False, 7132)


def test_a_collective_in_an_unknown_call_is_refused():
    with pytest.raises(ValueError, match=r"is a quiet-call with communications in called_computation"):
        read(text("sparse_core").replace(" call-start(", " quiet-call("))


def test_permutes_of_one_channel_are_different_permutes():
    program = text("two_permutes")
    assert program.count("channel_id=1,") == 2
    first, second = sorted(read(program).collectives, key=lambda c: c.bytes)
    assert (first.bytes, first.dtypes) == (32 * 128 * 2, ("bf16",))
    assert (second.bytes, second.dtypes) == (64 * 128 * 4, ("f32",))
    for permute in (first, second):
        assert (permute.kind, permute.times, permute.group) == ("permute", 16, 16)
        # Twelve steps along a row, three to the next row's start (1 + 3) and one from corner to corner (3 + 3).
        assert permute.hops == (12 * 1 + 3 * 4 + 6) / 16


def test_a_ring_closes_where_the_torus_wraps():
    permute = read(text("two_permutes"), wrapped=(True, True)).collectives[0]
    assert permute.hops == (12 * 1 + 3 * 2 + 2) / 16


def test_a_traced_bound_is_reported_or_refused():
    program = read(text("bound_in_tuple"))
    assert program.unknown_loops == 1
    assert program.flops == 2 * 256**3
    with pytest.raises(ValueError, match=r"trip count of loop while.9 \(jit\(fori\)/while\) depends on data"):
        read(text("bound_in_tuple"), strict=True)


@pytest.mark.parametrize(
    ("bound", "comparison", "times"),
    [("15", "LT", 15), ("15", "LE", 16), ("15", "NE", 15), ("0", "LT", 0), ("-1", "LT", 0)],
)
def test_a_bound_hoisted_into_the_tuple_is_followed(bound, comparison, times):
    """The compiler hands the bound of this loop on in its tuple; here it is a constant."""
    hoisted = text("bound_in_tuple").replace(
        "%param.3 = s32[]{:T(128)} parameter(0)", f"%param.3 = s32[]{{:T(128)}} constant({bound})"
    )
    hoisted = hoisted.replace("direction=LT", f"direction={comparison}")
    program = read(hoisted, strict=True)
    assert program.flops == times * 2 * 256**3
    assert program.unknown_loops == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "add(%get-tuple-element.48, %constant.0.clone.1..sunk)",
            "add(%get-tuple-element.48, %get-tuple-element.48)",
        ),
        ("direction=LT", "direction=GT"),
        (
            "tuple(%add.4, %convolution_sine_fusion.2, %get-tuple-element.54",
            "tuple(%add.4, %convolution_sine_fusion.2, %add.4",
        ),
    ],
    ids=["step", "direction", "moving bound"],
)
def test_a_loop_that_is_not_understood_is_unknown(old, new):
    constant = text("bound_in_tuple").replace(
        "%param.3 = s32[]{:T(128)} parameter(0)", "%param.3 = s32[]{:T(128)} constant(15)"
    )
    assert old in constant
    assert read(constant.replace(old, new)).unknown_loops == 1


def test_what_leaves_a_slice_goes_over_the_data_centre_network():
    """A sum of 4 MiB over two slices of 16: reduced within, a sixteenth sent, gathered within."""
    coordinates = {i: (i % 16 // 4, i % 4, 0) for i in range(32)}
    program = read_program(
        text("two_slices"), coordinates=coordinates, slices={i: i // 16 for i in range(32)}
    )
    reduce, send, gather = program.collectives
    assert [c.kind for c in program.collectives] == ["all-reduce", "send", "all-gather"]
    assert [c.network for c in program.collectives] == ["ici", "dcn", "ici"]
    assert (reduce.bytes, send.bytes, gather.bytes) == (4 * 2**20, 4 * 2**20 // 16, 4 * 2**20)
    assert (reduce.group, send.group, gather.group) == (16, 2, 16)
    assert (reduce.span, send.span) == ((4, 4, 1), ())
    assert send.blocking


ZERO_CROP = """HloModule m, is_scheduled=true, num_partitions=16

ENTRY %main (p: f32[4914]) -> f32[5120] {
  %p = f32[4914]{0:T(1024)} parameter(0)
  ROOT %custom-call = f32[5120]{0:T(1024)} custom-call(%p), custom_call_target="ZeroCrop", \
output_to_operand_aliasing={{}: (0, {})}, frontend_attributes={xla_skip_custom_call_alias_shape_check="1"}
}
"""
"""As compiled for two slices, before a sum of what no number of chips divides."""


def test_what_is_padded_in_place_before_it_leaves_a_slice_is_no_kernel():
    program = read(ZERO_CROP)
    assert program.kernels == ()
    assert program.hbm_bytes == 0


def test_a_reduction_fused_with_its_scatter_is_one():
    """The compiler writes an all-reduce and a slice in a fusion of its own, and the backend scatters."""
    (scatter,) = read(text("reduce_scatter")).collectives
    assert (scatter.kind, scatter.bytes, scatter.group, scatter.span) == (
        "reduce-scatter",
        64 * 64 * 2,
        2,
        (1, 2, 1),
    )


def test_of_branches_the_one_with_more_work_counts():
    """Both write the same array; one multiplies, the other sums over the devices."""
    program = read(text("conditional"))
    assert program.flops == 2 * 256**3
    assert program.collectives == ()


def test_arrays_in_vmem_cost_no_bandwidth():
    """One factor is fetched ahead, the other read in place: each crosses once, as does the result."""
    program = read(text("prefetch"))
    assert program.hbm_bytes == 2 * (1024 * 2048 + 2048 * 512 + 1024 * 512)
    assert program.flops == 2 * 1024 * 2048 * 512
    assert program.cycles == 26308


def test_a_slice_that_is_fetched_costs_what_is_cut_out():
    """Of one example in four; tokens are the minor axis, 301 of 384."""
    assert read(text("slice_start")).hbm_bytes == 8 * 64 * 384 * 2


def test_a_scan_reads_and_writes_rows_of_its_stacks():
    """Fifteen rows of 60 x 301, which tiles of 8 x 128 make 64 x 384."""
    row = 64 * 384 * 4
    program = read(text("scan_stack"))
    turn = (
        4 * row + 3 * TILE
    )  # Carry and input read, carry and output written; the counter copied and increased.
    first = 2 * row + 2 * TILE
    assert program.hbm_bytes == 15 * turn + first
    assert program.cycles == 15 * 2663 + 2239


def test_a_gather_has_no_cycles_and_says_so():
    """Its own analysis lets the compiler count a tile of bytes for every window, whatever the memory it lies in."""
    program = read(text("gather"))
    assert program.unpriced == ("gather: jit(<lambda>)/vmap()/gather",)
    assert program.cycles == 1826 + 2345 + 1997
    # Indices and array are read once into VMEM, where it gathers; the result is written.
    assert program.hbm_bytes == 4 * (8 * 128 + 60 * 8 * 128 + 20 * 8 * 128)
    assert read(text("all_reduce")).unpriced == ()


def test_coordinates_of_another_mesh_are_refused():
    with pytest.raises(ValueError, match=r"runs on 16 device\(s\), coordinates are given for 8"):
        read_program(
            text("all_reduce"), coordinates={i: () for i in range(8)}, slices=dict.fromkeys(range(8), 0)
        )


def test_programs_of_local_devices_are_read_too():
    """The host's compiler prints other shapes of loops and products, no cycles and no tiles."""
    mesh = Mesh(jax.devices()[:8], ("data",), axis_types=(AxisType.Auto,))

    def loss(weights, x):
        y, _ = jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, weights)
        return (y**2).mean()

    weights = jax.ShapeDtypeStruct((5, 16, 16), jnp.float32, sharding=NamedSharding(mesh, P()))
    x = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    compiled = jax.jit(jax.grad(loss)).lower(weights, x).compile()
    program = read_program(
        compiled.as_text(),
        coordinates={i: () for i in range(8)},
        slices=dict.fromkeys(range(8), 0),
        strict=True,
    )
    assert program.flops == 5 * 3 * 2 * 8 * 16 * 16
    reduced = sum(c.times * c.bytes for c in program.collectives if c.kind == "all-reduce")
    assert reduced == 5 * 16 * 16 * 4
    assert {c.group for c in program.collectives} == {8}
    assert program.cycles is None
    assert program.hbm_bytes > 0
