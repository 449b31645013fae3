"""From a declarative spec and the cross-validations it names to the report of a response to treatment."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from ecgjax.reports.page import Picture, Section, page
from ecgjax.reports.report import Report
from ecgjax.reports.specs import check_keys
from ecgjax.reports.tables import interval_text
from ecgjax.response.report import card, cohort, contender_figures, contender_tables
from ecgjax.response.report.beat_maps import grad_cam_section
from ecgjax.response.report.contenders import Contender, CrossValidated, load
from ecgjax.response.report.differences import Judgement, judge
from ecgjax.response.report.pretraining import pretraining_section
from ecgjax.response.report.response_maps import response_maps_section
from ecgjax.response.report.subgroups import subgroup_table

_KEYS = {
    "title",
    "lead",
    "data",
    "response",
    "runs",
    "judged",
    "against",
    "required",
    "shown",
    "permuted",
    "pretraining",
    "grad_cam",
    "draws",
    "seed",
}


def build(spec: Mapping[str, Any], *, root: epath.PathLike = ".") -> Report:
    """Builds the report of `spec`; whatever file is missing is said where its content would stand.

    `{"title", "lead", "data": prepared directory, "response": label column, "runs": [contenders.load], "judged": the
    contender that transfer stands or falls with, "against": [contenders], "required": [those of them that it must
    beat], "shown": [contenders with curves], "permuted": [runs on permuted labels], "pretraining":
    [pretraining_section], "grad_cam": grad_cam_section, "draws", "seed"}`; all but title and runs may be left out.
    Paths are relative to `root`.
    """
    check_keys(spec, "report", _KEYS, needed={"title", "runs"})
    root = epath.Path(root)
    found = load(spec["runs"], root=root)
    judgement = _judgement(spec, found)
    described, warnings = _described(spec, root, found)
    warnings += [f"missing: {path}" for path in found.missing]
    warnings += [
        f"LEAK ALARM: {contender.name} predicts permuted labels; believe none of its numbers."
        for contender in found.contenders
        if contender.leaks
    ]
    controls, absent = _controls(spec, root)
    warnings += [
        f"{contender.workdir}: {contender.name} has AUROC {interval_text(contender.metric('auroc'))} where nothing is "
        "to be found. One such run in 40 does by chance; it is a leak otherwise."
        for contender in controls
        if contender.metric("auroc").low > 0.5
    ]
    written = card.make_card(spec["title"], found, judgement, described)
    sections = [
        Section(
            "Verdict", warnings=[card.RESEARCH_USE, *warnings], text=[judgement.sentence] if judgement else []
        ),
        *_patients(described),
        *_comparison(found, judgement, described, spec),
        *_subgroups(found, described, spec),
        *_alarm(found, controls, absent),
        *response_maps_section(found, _central(spec)),
        *([grad_cam_section(spec["grad_cam"], root)] if spec.get("grad_cam") else []),
        *([pretraining_section(spec["pretraining"], root)] if spec.get("pretraining") else []),
        *written.sections,
        _provenance(found),
    ]
    every = tuple(table for section in sections for table in section.tables)
    html = page(spec["title"], lead=spec.get("lead", ""), sections=sections)
    conclusion = judgement.sentence if judgement else ""
    return Report(every, (), tuple(warnings), html, conclusion, written.markdown)


def _judgement(spec: Mapping[str, Any], found: CrossValidated) -> Judgement | None:
    if "judged" not in spec:
        return None
    return judge(
        found,
        spec["judged"],
        against=spec.get("against", ()),
        required=spec.get("required", ()),
        draws=spec.get("draws", 2000),
        seed=spec.get("seed", 0),
    )


def _described(
    spec: Mapping[str, Any], root: epath.Path, found: CrossValidated
) -> tuple[cohort.Described | None, list[str]]:
    if "data" not in spec:
        return None, []
    if not (root / spec["data"] / "manifest.json").exists():
        return None, [f"missing: {spec['data']}/manifest.json"]
    described = cohort.describe(root / spec["data"], response=spec.get("response", "response"))
    known = set(described.subject[~np.isnan(described.response)])
    if len(found.subject) and known != set(found.subject):
        raise ValueError(
            f"{spec['data']} has {len(known)} patients with a known response, the cross-validations "
            f"{len(found.subject)}, of whom {len(known & set(found.subject))} are the same; name the data directory "
            "that they were run on."
        )
    return described, []


def _patients(described: cohort.Described | None) -> list[Section]:
    if described is None:
        return []
    found = [
        cohort.inclusion_table(described, outcome=card.outcome_of(described)),
        cohort.characteristics_table(described),
    ]
    return [Section("Patients", tables=found)]


def _comparison(
    found: CrossValidated,
    judgement: Judgement | None,
    described: cohort.Described | None,
    spec: Mapping[str, Any],
) -> list[Section]:
    if not found.contenders:
        return []
    judged = judgement.contender if judgement else ""
    against = [difference.other for difference in judgement.differences] if judgement else []
    everyone = [contender.name for contender in found.contenders]
    shown = spec.get("shown") or ([judged, *against] if judged else everyone)
    decided = [t for how in ("youden", "0.5") if (t := contender_tables.decision_table(found, how))]
    if (mine := found.find(judged)) and (ways := contender_tables.four_ways_table(mine)):
        decided.insert(0, ways)
    reference = judgement.required[0] if judgement and judgement.required else None
    forest = "Pooled AUROC with 95 % intervals over patients. Grey: chance."
    forest += f" Dashed: {reference}." if reference else ""
    planted = described.planted if described else None
    forest += " Dotted: what no reader of the simulated ECG exceeds in expectation." if planted else ""
    pictures = [
        Picture(
            contender_figures.auroc_forest(found, judged=judged, reference=reference, planted=planted),
            forest,
            "AUROC of all contenders",
        )
    ]
    return [
        Section(
            "Contenders",
            tables=[
                contender_tables.ranking_table(found),
                *([calibrated] if (calibrated := contender_tables.calibration_table(found)) else []),
            ],
            pictures=pictures,
        ),
        *(
            [Section("Differences", tables=[contender_tables.difference_table(judgement)])]
            if judgement
            else []
        ),
        *(
            [
                Section(
                    "Decisions",
                    text=[card.PAPER_NUMBERS, f"{card.SELECTED} {card.inclusion_of(described)}"],
                    tables=decided,
                )
            ]
            if decided
            else []
        ),
        Section("Curves", pictures=_curves(found, shown)),
    ]


def _subgroups(
    found: CrossValidated, described: cohort.Described | None, spec: Mapping[str, Any]
) -> list[Section]:
    """The contender under judgement and those that it has to beat, group by group."""
    if described is None or not found.contenders:
        return []
    options = {"draws": spec.get("draws", 2000), "seed": spec.get("seed", 0)}
    table = subgroup_table(found, described, _central(spec), **options)
    return [Section("Groups", tables=[table])] if table else []


def _curves(found: CrossValidated, shown: Sequence[str]) -> list[Picture]:
    caption = "Mean over repeats of the sensitivity at each specificity, on all out-of-fold scores."
    pictures = [Picture(contender_figures.roc_curves(found, shown), f"ROC. {caption}", "ROC curves")]
    if (calibration := contender_figures.calibration_plot(found, shown)) is not None:
        caption = (
            "Calibration: fifths of the patients by predicted probability, each the mean of a patient's repeats, with "
            "95 % intervals; ticks are patients. Slope and intercept are of single repeats."
        )
        pictures.append(Picture(calibration, caption, "calibration of probabilities"))
    if (learning := contender_figures.learning_curves(found)) is not None:
        caption = (
            "Learning curve: pooled AUROC after training on a part of each training set; same test patients."
        )
        pictures.append(Picture(learning, caption, "learning curve"))
    return pictures


def _central(spec: Mapping[str, Any]) -> list[str]:
    """The contender under judgement, and those that it has to beat."""
    return [name for name in (spec.get("judged"), *spec.get("required", ())) if name]


def _controls(spec: Mapping[str, Any], root: epath.Path) -> tuple[list[Contender], list[str]]:
    """Contenders of runs with nothing to find, and the files of such runs that are missing."""
    contenders, missing = [], []
    for run in spec.get("permuted", ()):
        permuted = load([run], root=root)
        contenders += permuted.contenders
        missing += [f"missing: {path}" for path in permuted.missing]
    return contenders, missing


def _alarm(found: CrossValidated, controls: Sequence[Contender], missing: Sequence[str]) -> list[Section]:
    """What permuted labels gave, within the runs and in runs of their own, and what a null cohort gave."""
    made = [contender_tables.permuted_table(controls)] if controls else []
    dealt = contender_tables.dealt_table(found.contenders)
    if not made and not missing and dealt is None:
        return []
    text = [
        "Where every patient gets the response of another, or responds by chance, whatever is above chance has found "
        "a leak."
    ]
    return [
        Section("Leakage alarm", text=text, warnings=missing, tables=[*([dealt] if dealt else []), *made])
    ]


def _provenance(found: CrossValidated) -> Section:
    details = [
        (f"{run.workdir}: settings and config", {"crossvalidation": run.settings, "config": run.config})
        for run in found.runs
    ]
    text = ["Every prediction of every patient is in predictions.csv of each workdir."] if details else []
    return Section("What was run", text=text, details=details)
