import pytest

from ecgjax.metrics.bootstrap import Interval
from ecgjax.reports import tables
from ecgjax.reports.claims import decide
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
    nan = float("nan")
    assert tables.cell(Interval(0.5, 0.4, 0.6, 3, 3)) == Cell(".50", "[.40, .60]")
    assert tables.cell(Interval(0.5, nan, nan, 3, 3)) == Cell(".50")
    assert tables.cell(Interval(nan, nan, nan, 3, 3)) == tables.cell(None) == Cell("–")


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


@pytest.mark.parametrize("form", [tables.to_text, tables.to_markdown, tables.to_html])
def test_every_form_shows_every_row_even_a_missing_one(scored, form):
    text = form(tables.score_table(scored, "r2"))
    for row in scored.rows:
        assert row.name in text
    assert "missing: seed0/never_trained/results/linear_probe/" in text
    assert "and 2 more" in text


def test_seeds_and_controls_are_stated(scored):
    table = tables.score_table(scored, "auroc")
    assert table.header[-2:] == ("LBBB*", "AF*")
    assert any("LBBB, AF: positive controls" in note for note in table.notes)
    assert table.lines[2].cells[0] == Cell("random init", "(3 seeds)")
    spread = tables.seed_table(scored)
    assert len(spread.lines[0].cells[1].text.split(" · ")) == 3


def test_claims_show_difference_seeds_and_records(scored):
    verdicts = decide([{"lower": "MDM", "higher": "MMCL from MDM", "metric": "r2"}], scored)
    text = tables.to_text(tables.claim_table(verdicts))
    assert "holds" in text
    assert "300 of 150 subjects" in text
    assert tables.claim_table([]) is None
