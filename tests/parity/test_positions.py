import re

import numpy as np
import pytest
from formula import Golden, check_positions

from ecgjax.models.mae import kept_tokens
from ecgjax.models.posemb import resize_positions, sincos_positions

USES = {"misc": ["sincos*", "posinterp*", "*len_keep*"]}


@pytest.fixture(scope="module")
def golden(goldens, precision):
    return Golden(goldens, "misc", precision)


def found(golden, pattern):
    """Array names that match, each with its numbers."""
    matches = [(name, re.fullmatch(pattern, name)) for name in golden.files]
    numbers = {name: [int(group) for group in match.groups()] for name, match in matches if match}
    assert numbers, pattern
    return numbers.items()


def test_sincos_table(golden):
    for key, (width, leads, columns) in found(golden, r"sincos_d(\d+)_(\d+)x(\d+)"):
        # The goldens come from the newest release, which computes the frequencies in float32.
        table = sincos_positions(leads=leads, columns=columns, width=width, frequencies="float32")
        check_positions(table, golden[key], leads=leads, columns=columns)


def test_sincos_of_one_axis(golden):
    for key, (width, count) in found(golden, r"sincos1d_d(\d+)_n(\d+)"):
        # The first half of the width encodes the column.
        table = sincos_positions(leads=1, columns=count, width=2 * width, frequencies="float32")[:, :width]
        golden.check(key, table.astype(golden.precision))


def test_resized_positions(golden):
    for key, (old, new) in found(golden, r"posinterp_(\d+)_to_(\d+)/out"):
        table = golden[key.replace("/out", "/in")][0].astype(golden.precision)
        leads = (len(table) - 1) // old
        golden.check(key, resize_positions(table, leads=leads, columns=new)[None])


def test_kept_tokens_truncate_in_double(golden):
    rows = zip(golden["len_keep_L"], golden["f64/len_keep_ratio"], golden["len_keep"], strict=True)
    checked = 0
    for tokens, ratio, kept in rows:
        if kept > 0:
            assert kept_tokens(int(tokens), float(ratio)) == kept
            checked += 1
        else:  # The reference would go on with the class token alone.
            with pytest.raises(ValueError, match="leaves 0 of"):
                kept_tokens(int(tokens), float(ratio))
    assert checked > len(golden["len_keep"]) // 2


@pytest.mark.parametrize("frequencies", ["float64", "float32"])
def test_anchors_of_the_paper_table(frequencies):
    row = sincos_positions(leads=12, columns=25, width=384, frequencies=frequencies)[83]  # Lead 3, time 7.
    want = [0.656987, 0.076363, 0.000770, 0.753902, 0.141120, 0.404141, -0.989992]
    np.testing.assert_allclose(row[[0, 1, 95, 96, 192, 193, 288]], want, atol=1e-6)


def test_the_default_frequencies_are_those_of_the_published_weights():
    tables = {
        f: sincos_positions(leads=12, columns=25, width=384, frequencies=f) for f in ("float64", "float32")
    }
    np.testing.assert_array_equal(sincos_positions(leads=12, columns=25, width=384), tables["float64"])
    apart = np.abs(tables["float64"] - tables["float32"]).max()
    assert 1e-7 < apart < 2e-6
