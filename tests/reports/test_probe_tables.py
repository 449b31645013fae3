import pytest

from ecgjax.reports import probe_tables, tables
from ecgjax.reports.claims import decide
from ecgjax.reports.tables import Cell


@pytest.mark.parametrize("form", [tables.to_text, tables.to_markdown, tables.to_html])
def test_every_form_shows_every_row_even_a_missing_one(scored, form):
    text = form(probe_tables.score_table(scored, "r2"))
    for row in scored.rows:
        assert row.name in text
    assert "missing: seed0/never_trained/results/linear_probe/" in text
    assert "and 2 more" in text


def test_seeds_and_controls_are_stated(scored):
    table = probe_tables.score_table(scored, "auroc")
    assert table.header[-2:] == ("LBBB*", "AF*")
    assert any("LBBB, AF: positive controls" in note for note in table.notes)
    assert table.lines[2].cells[0] == Cell("random init", "(3 seeds)")
    spread = probe_tables.seed_table(scored)
    assert len(spread.lines[0].cells[1].text.split(" · ")) == 3


def test_claims_show_difference_seeds_and_records(scored):
    verdicts = decide([{"lower": "MDM", "higher": "MMCL from MDM", "metric": "r2"}], scored)
    text = tables.to_text(probe_tables.claim_table(verdicts))
    assert "holds" in text
    assert "300 of 150 subjects" in text
    assert probe_tables.claim_table([]) is None
