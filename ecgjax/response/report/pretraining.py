"""What the encoder learned before it saw a patient: its beat classes, one by one, beside the majority class."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from ecgjax.core.result_files import missing_below, read_results
from ecgjax.metrics.bootstrap import Interval
from ecgjax.reports.intervals import of_row
from ecgjax.reports.page import Section
from ecgjax.reports.specs import check_keys
from ecgjax.reports.tables import DASH, Cell, Line, Table, cell, each, fine

EVALUATOR = "classes"
_BY_CLASS = {"sensitivity": "sensitivity", "positive_predictivity": "positive predictivity", "f1": "F1"}
_OVERALL = {"macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}
_ALL = "all classes"
_KEYS = {"name", "workdirs", "step", "optional"}
_LEAKY = "LEAKY: people of the test split were trained on"


def pretraining_section(specs: Sequence[Mapping[str, Any]], root: epath.Path) -> Section:
    """Runs `{"name", "workdirs": [one a seed], "step"}`: classes of the first seed, totals beside the majority.

    Of a run that is `"optional": True` nothing is said where it is missing.
    """
    summary, tables, warnings = [], [], []
    for position, spec in enumerate(specs):
        check_keys(spec, f"pretraining[{position}]", _KEYS)
        trees = []
        for workdir in spec["workdirs"]:
            try:
                trees.append(read_results(root / workdir, EVALUATOR, spec.get("step", "last"))[0])
            except FileNotFoundError as error:
                if not spec.get("optional", False):
                    warnings.append(f"{spec['name']}: missing {missing_below(root, error)}")
        if trees:
            leaky = any(tree["settings"].get("leaky", False) for tree in trees)
            summary += _totals(spec["name"], trees, leaky)
            tables.append(_classes(spec["name"], trees[0], leaky))
    if summary:
        notes = (
            "95 % intervals over people, of the first seed. The majority class takes every beat for the most frequent "
            "one: a useful model beats its macro-F1 and need not beat its accuracy.",
        )
        header = ("run", "", *_OVERALL.values(), "macro-F1 by seed")
        tables.insert(0, Table("Beat classes, all together", header, tuple(summary), notes))
    text = (
        "The encoder was trained to name single beats of other people; what it knows of them is no evidence that it "
        "helps in patients, which is what the comparisons above ask."
    )
    return Section("Pre-training", text=[text] if tables else [], warnings=warnings, tables=tables)


def _totals(name: str, trees: Sequence[Mapping[str, Any]], leaky: bool) -> list[Line]:
    model, majority = (_rows(trees[0], source) for source in ("prediction", "majority"))
    seeds = [_rows(tree, "prediction")[_ALL, "macro_f1"].value for tree in trees]
    label = Cell(name, _LEAKY if leaky else trees[0]["settings"].get("cohort", ""))
    return [
        Line(
            (
                label,
                Cell("model"),
                *(cell(model.get((_ALL, metric))) for metric in _OVERALL),
                each(seeds, fine),
            )
        ),
        Line(
            (
                Cell(name),
                Cell("majority class"),
                *(cell(majority.get((_ALL, metric))) for metric in _OVERALL),
                DASH,
            ),
            reference=True,
        ),
    ]


def _classes(name: str, tree: Mapping[str, Any], leaky: bool) -> Table:
    rows = _rows(tree, "prediction")
    lines = []
    for target in dict.fromkeys(target for target, _ in rows if target != _ALL):
        found = [rows.get((target, metric)) for metric in _BY_CLASS]
        size = next(value for value in found if value is not None)
        counts = Cell(f"{size.n}", f"of {size.subjects} people")
        lines.append(Line((Cell(target), counts, *(cell(value) for value in found))))
    return Table(
        f"{name}: {_LEAKY}" if leaky else name, ("class", "beats", *_BY_CLASS.values()), tuple(lines)
    )


def _rows(tree: Mapping[str, Any], source: str) -> dict[tuple[str, str], Interval]:
    return {(row["target"], row["metric"]): of_row(row) for row in tree["rows"] if row["input"] == source}
