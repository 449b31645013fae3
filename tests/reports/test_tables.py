import math

from ecgjax.metrics.bootstrap import Interval
from ecgjax.reports import tables
from ecgjax.reports.tables import Cell, Line, Table

TABLE = Table(
    "A | B",
    ("row", "x*"),
    (Line((Cell("a<b"), Cell(".35", "[.30, .39]"))), Line((Cell("gone"),), "missing: f|g")),
    ("n & m",),
)


def test_numbers_are_short_and_keep_their_sign():
    assert [tables.number(x) for x in (0.354, -0.05, 1.0, -0.001, 12.3)] == [
        ".35",
        "−.05",
        "1.00",
        ".00",
        "12.30",
    ]
    assert [tables.signed(x) for x in (0.0354, -0.05, 0.0)] == ["+.035", "−.050", "+.000"]
    nan = math.nan
    assert tables.cell(Interval(0.5, 0.4, 0.6, 3, 3)) == Cell(".50", "[.40, .60]")
    assert tables.cell(Interval(0.5, nan, nan, 3, 3)) == Cell(".50")
    assert tables.cell(Interval(nan, nan, nan, 3, 3)) == tables.cell(None) == Cell("–")


def test_a_difference_has_a_sign_on_its_bounds_too():
    assert tables.cell(Interval(0.1, -0.05, 0.25, 3, 3), tables.signed) == Cell("+.100", "[−.050, +.250]")
    assert tables.each([0.1, -0.05], tables.signed) == Cell("+.100 · −.050")
    assert tables.each([]) == tables.value_cell(math.nan) == Cell("–")


def test_p_values_are_short():
    assert [tables.p_value(p) for p in (0.0004, 0.0126, 1.0, math.nan)] == ["<.001", ".013", "1.000", "–"]


def test_text_is_aligned():
    assert tables.to_text(TABLE) == (
        "A | B\nrow   x*\n----  --------------\na<b   .35 [.30, .39]\ngone  missing: f|g\nn & m\n"
    )


def test_markdown_keeps_its_columns():
    lines = tables.to_markdown(TABLE).splitlines()
    assert lines[2:6] == [
        "| row | x\\* |",
        "|---|---|",
        "| a&lt;b | .35 [.30, .39] |",
        "| gone | missing: f\\|g |",
    ]


def test_html_escapes_everything():
    page = tables.to_html(TABLE)
    assert "a&lt;b" in page
    assert "n &amp; m" in page
    assert "a<b" not in page
    assert '<td colspan="1" class="note">missing: f|g</td>' in page
