import numpy as np
import pytest
from formula import Golden

from ecgjax.models.mae import kept_tokens
from ecgjax.models.posemb import resize_positions, sincos_positions


@pytest.fixture(scope="module")
def golden(goldens):
    return Golden(goldens, "misc")


@pytest.mark.parametrize(
    ("width", "leads", "columns"), [(32, 12, 6), (384, 12, 25), (256, 12, 25), (48, 12, 10), (64, 4, 7)]
)
def test_sincos_table(golden, width, leads, columns):
    table = sincos_positions(leads=leads, columns=columns, width=width)
    golden.check(f"sincos_d{width}_{leads}x{columns}", table)


@pytest.mark.parametrize(("old", "new"), [(25, 50), (50, 25), (10, 17), (25, 24)])
def test_resized_positions(golden, old, new):
    table = golden[f"posinterp_{old}_to_{new}/in"][0]
    golden.check(f"posinterp_{old}_to_{new}/out", resize_positions(table, leads=12, columns=new)[None])


def test_kept_tokens_truncate_in_double(golden):
    rows = zip(golden["len_keep_L"], golden["f64/len_keep_ratio"], golden["len_keep"], strict=True)
    checked = 0
    for tokens, ratio, kept in rows:
        if kept > 0:
            assert kept_tokens(int(tokens), float(ratio)) == kept
            checked += 1
    assert checked > 40


def test_anchors_of_the_paper_table():
    row = sincos_positions(leads=12, columns=25, width=384)[83]  # Lead 3, time 7.
    want = [0.656987, 0.076363, 0.000770, 0.753902, 0.141120, 0.404141, -0.989992]
    np.testing.assert_allclose(row[[0, 1, 95, 96, 192, 193, 288]], want, atol=1e-6)
