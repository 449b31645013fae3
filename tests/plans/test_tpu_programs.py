"""What plan.md verified by compilation for v5e:4x4, with the compiler that is installed."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from ecgjax.plans import environment
from ecgjax.plans.program import read_program

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install ecgjax[plan]"
)
MEBI = 2**20


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Programs and costs by name; one other process compiles them all, so that this one never loads libtpu."""
    directory = tmp_path_factory.mktemp("programs")
    script = pathlib.Path(__file__).with_name("compile_small_programs.py")
    done = subprocess.run(
        [sys.executable, script, directory],
        env=os.environ | environment.TPU,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((directory / "costs.json").read_text())
    coordinates = {i: tuple(at) for i, at in enumerate(written["coordinates"])}

    def read(name, **keywords):
        text = (directory / f"{name}.txt").read_text()
        return read_program(text, coordinates=coordinates, slices=dict.fromkeys(coordinates, 0), **keywords)

    return read, written["costs"]


@pytest.mark.parametrize(
    ("name", "kind", "times", "size", "group"),
    [
        ("psum", "all-reduce", 1, 4 * MEBI, 16),
        ("psum_bf16", "all-reduce", 1, 2 * MEBI, 16),
        ("psum_of_4", "all-reduce", 1, 4 * MEBI, 4),
        ("all_gather", "all-gather", 1, 64 * MEBI, 16),
        ("permutes", "permute", 15, 4 * MEBI, 16),
        ("two_psums", "all-reduce", 1, 4 * (1000 + 3000), 16),
    ],
)
def test_collectives_have_the_bytes_that_were_asked_for(compiled, name, kind, times, size, group):
    read, _ = compiled
    (found,) = read(name, strict=True).collectives
    assert (found.kind, found.times, found.bytes, found.group) == (kind, times, size, group)
    assert (found.network, found.blocking) == ("ici", True)


def test_a_traced_bound_is_unknown(compiled):
    read, _ = compiled
    assert read("traced_bound").unknown_loops == 1
    with pytest.raises(ValueError, match="depends on data"):
        read("traced_bound", strict=True)


def test_products_are_exact(compiled):
    read, costs = compiled
    program = read("matmul")
    assert program.flops == 2 * 1024 * 2048 * 512 == costs["matmul"]["flops"]
    assert program.cycles > 0


def test_layers_of_a_scan_count_each(compiled):
    """Three products a layer, forward and backward, where the compiler's own analysis counts one turn of each loop."""
    read, costs = compiled
    layer = 3 * 2 * 128 * 512 * 512
    assert read("scanned", strict=True).flops == 8 * layer
    assert costs["scanned"]["flops"] < 2 * layer


def test_bytes_are_those_of_the_compiler_where_vmem_is_not_used(compiled):
    """At low effort everything is in the main memory."""
    read, costs = compiled
    assert read("low_effort").hbm_bytes == pytest.approx(costs["low_effort"]["bytes accessed"], rel=0.005)


def test_convolutions_count_where_their_windows_meet_the_image(compiled):
    """Three rows or columns of a kernel meet 32 but for one at either end; at stride 2, 16 but for one at the end."""
    read, _ = compiled
    first = 2 * 8 * 16 * 64 * (3 * 32 - 2) ** 2
    second = 2 * 8 * 64 * 64 * (3 * 16 - 1) ** 2
    # Forward and for the kernels' gradients, and for the gradient of what lies between them.
    assert read("low_effort").flops == 2 * first + 3 * second
