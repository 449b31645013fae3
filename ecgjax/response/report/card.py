"""The model card: what was made of whose data, how it was judged, and what it must not be used for.

Headings follow TRIPOD+AI (Collins 2024). What no file tells is said to be unknown.
"""

import dataclasses
import math
from collections.abc import Sequence

from ecgjax.reports.page import Section
from ecgjax.reports.tables import interval_text, number
from ecgjax.response.report.cohort import Described
from ecgjax.response.report.contenders import CrossValidated
from ecgjax.response.report.differences import Judgement

RESEARCH_USE = "Research use only. Not for selecting patients, and not a medical device."

OUTCOMES = {
    "lvesv15": "left ventricular end-systolic volume fell by at least 15 % at follow-up",
    "super": "left ventricular ejection fraction rose by at least 15 points at follow-up",
    "clinical": (
        "alive, left ventricular ejection fraction risen by more than 5 points at follow-up, and no admission for "
        "heart failure until then"
    ),
    "given": "as the table gives it; its definition is not known to the program",
}

PAPER_NUMBERS = (
    "The published system (arXiv 2306.01210; 71 patients) reports accuracy 72 %, sensitivity 0.78 and specificity "
    "0.79. Accuracy is a weighted mean of the other two, so no one confusion matrix has all three; they may come from "
    "two thresholds, or from pooling in two ways. Hence decisions are shown both at probability 0.5 and at the "
    "threshold that the training folds choose, pooled and as the mean of folds."
)

SELECTED = (
    "In a cohort that guidelines selected, a guideline has high sensitivity and hardly any specificity; to beat it "
    "says little."
)

LIMITATIONS = (
    "Few patients of one cohort, and no external validation: intervals are wide, and say nothing of other hospitals.",
    "The published system's transform settings, network, classes, folds and definition of response are not public; "
    "those used here are this project's own, and its numbers can be neither confirmed nor refuted without its data.",
    "Where the encoder was trained on MIT-BIH: those are two-lead Holter recordings of 1975 to 1979, with left bundle "
    "branch block in four people only, far from 12-lead ECGs of heart failure.",
    "The time-frequency image drops phase, and with it polarity between leads, which criteria of bundle branch block "
    "use; measures of the vectorcardiogram stand beside it for that reason.",
    "ECGs of already paced hearts have to be left out: their spikes reveal the timing of the outcome. Spikes that a "
    "recorder has filtered away cannot be found.",
    SELECTED,
)


_BESIDES = (
    "Output: a number that ranks patients, and of models and networks a probability of response; a threshold is chosen "
    "anew by the training patients of every fold. No single model is fitted for use, and none is delivered.",
    "Not known to the program, to be said by whoever reports: setting and dates of inclusion, who assessed the outcome "
    "and whether blinded, treatments, funding and interests, protocol and registration, involvement of patients.",
    "Code, recipes and the settings of every run are open (below, and in each workdir); data of patients are not part "
    "of it.",
)


@dataclasses.dataclass(frozen=True)
class Card:
    """Headings with their paragraphs."""

    title: str
    parts: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def markdown(self) -> str:
        """The card as a Markdown document's part."""
        lines = [f"## Model card: {self.title}", "", f"**{RESEARCH_USE}**", ""]
        for heading, paragraphs in self.parts:
            lines += [f"### {heading}", "", *(line for text in paragraphs for line in (text, ""))]
        return "\n".join(lines)

    @property
    def sections(self) -> list[Section]:
        """The card as the last part of a page."""
        intro = Section(
            "Model card", warnings=[RESEARCH_USE], text=[f"{self.title}. Headings follow TRIPOD+AI."]
        )
        return [intro, *(Section(f"Card: {heading}", text=paragraphs) for heading, paragraphs in self.parts)]


def make_card(
    title: str, found: CrossValidated, judgement: Judgement | None, described: Described | None
) -> Card:
    """The card of a report; None where no contender was judged, or the data directory was not at hand."""
    return Card(
        title,
        (
            ("Intended use", _use(judgement)),
            ("Source of data and participants", _participants(described)),
            ("Outcome", _outcome(described)),
            ("Predictors", _predictors(found)),
            ("Sample size and missing data", _sample(found, described)),
            ("Development and validation", _validation(found)),
            ("Performance", _performance(found, judgement)),
            ("Fairness", _fairness()),
            ("Limitations", LIMITATIONS),
            ("Versions", _versions(found)),
            ("What TRIPOD+AI asks besides", _BESIDES),
        ),
    )


def outcome_of(described: Described | None) -> str:
    """The definition of response in words, with what deaths count as."""
    if described is None:
        return "Definition of response: unknown, since the data directory was not at hand."
    if described.planted is not None:
        return "Response: drawn by the simulation, from the same latent that shapes the ECG unless the cohort is null."
    settings = described.settings
    name = settings.get("response")
    if name == "lvef5":
        by = "more than 5 points" if settings["strict"] else "5 points or more"
        text = f"left ventricular ejection fraction rose by {by} at follow-up"
    else:
        text = OUTCOMES.get(name, "as the cohort makes it")
    own = settings.get("taken_as_given", 0) if name != "given" else 0
    if own:
        text += f"; of {own} of {settings['patients']} patients the table's own response, whose definition is not known"
    deaths = {
        "nonresponder": " Deaths before follow-up count as no response.",
        "excluded": " Deaths before follow-up are left out, which flatters the treatment.",
    }.get(settings.get("deaths"), "")
    return f"Response: {text}{f' ({name})' if name else ''}.{deaths}"


def inclusion_of(described: Described | None) -> str:
    """Who came into the table, as whoever prepared it said."""
    if described is not None and described.planted is not None:
        return "Included: whom the simulation draws, as a clinic refers them."
    rule = described.settings.get("inclusion") if described else None
    if rule:
        return f"Included: {rule}."
    return (
        "Who was included is not recorded: say it when preparing the data (config.cohort.inclusion), and wherever this "
        "is quoted."
    )


def _use(judgement: Judgement | None) -> tuple[str, ...]:
    verdict = (judgement.sentence,) if judgement else ()
    return (
        RESEARCH_USE,
        "Meant for finding out whether the ECG before implantation tells who will respond to cardiac "
        "resynchronisation, and whether an encoder trained on other people's ECGs helps in it.",
        *verdict,
    )


def _participants(described: Described | None) -> tuple[str, ...]:
    if described is None:
        return ("Unknown: the data directory was not at hand.",)
    lines = []
    if described.planted is not None:
        lines.append(
            f"Simulated patients (cohort {described.cohort}), which are no evidence about people. By construction no "
            f"reader of their ECG exceeds an AUROC of {number(described.planted)} in expectation."
        )
    settings = described.settings
    if "recordings" in settings:
        died = "an unknown number" if settings["died"] is None else settings["died"]
        lines.append(
            f"{settings['patients']} patients with {settings['recordings']} recordings in the table; "
            f"{died} died before follow-up, and {settings['disagreements']} had a given response that "
            f"disagreed with their measurements (settled by: {settings['on_disagreement']})."
        )
    rejects = ", ".join(f"{kind} {count}" for kind, count in sorted(described.rejects.items())) or "none"
    left = len(described.subject) - described.evaluated
    lines.append(
        f"Recordings rejected: {rejects}. {len(described.subject)} patients had a usable recording, {left} of them no "
        f"known response; {described.evaluated} were analysed."
    )
    if described.planted is None:
        lines.append(inclusion_of(described))
    return tuple(lines)


def _outcome(described: Described | None) -> tuple[str, ...]:
    return (
        outcome_of(described),
        "Results flip on ties of such definitions; the inequality is the one stated.",
    )


def _predictors(found: CrossValidated) -> tuple[str, ...]:
    names = "; ".join(contender.name for contender in found.contenders) or "none"
    return (
        f"Contenders: {names}.",
        *_read(found),
        "Columns that are known only after implantation are refused as predictors.",
    )


def _read(found: CrossValidated) -> list[str]:
    """What models and networks read, by the configs of their runs, and the settings that the inner folds chose."""
    lines = []
    for run in found.runs:
        columns: dict[str, list[str]] = {}
        for section in run.config.get("contenders", {}).values():
            if section.get("name") == "classical":
                columns.setdefault(", ".join(section["columns"]), []).append(section["model"])
        lines += [f"{', '.join(models)} ({run.workdir}) read {names}." for names, models in columns.items()]
        encoder = run.config.get("objective", {}).get("encoder", {})
        if "read" in encoder:
            lines.append(
                f"{run.config['mode']} ({run.workdir}) reads the time-frequency image of the beats of leads "
                f"{', '.join(encoder['read'])}, pooled by {encoder['pool']}."
            )
        chosen = [
            f"{name.replace('|chosen_', ' ')} {value:g}"
            for name, value in run.scalars.items()
            if "|chosen_" in name and not math.isnan(value)
        ]
        if chosen:
            lines.append(
                f"Settings that inner folds chose, the median fit ({run.workdir}): {', '.join(chosen)}."
            )
    return lines


def _sample(found: CrossValidated, described: Described | None) -> tuple[str, ...]:
    responders = int(found.truth.sum())
    lines = [f"{len(found.truth)} patients, {responders} with the outcome; no sample size was planned."]
    if described is not None:
        missing = ", ".join(f"{name} {count}" for name, count in described.missing.items()) or "none"
        lines.append(f"Values missing, by column: {missing}.")
    lines.append(
        "Patients whom a contender cannot evaluate are left out of its rows and counted there, never taken for a no; "
        "classical models fill gaps by the median of the training patients."
    )
    return tuple(lines)


def _validation(found: CrossValidated) -> tuple[str, ...]:
    settings = found.runs[0].settings if found.runs else {}
    folds, repeats = settings.get("folds", "?"), len(found.fold)
    return (
        f"Up to {repeats} repeats of stratified {folds}-fold cross-validation by patient: all recordings of a patient "
        "are in one fold. Standardisation, selection and threshold are made inside the training folds; networks are "
        "trained for a number of steps that was set beforehand. Values are means over repeats; intervals are "
        f"percentiles over draws of patients ({settings.get('draws', '?')}), each with the predictions of one repeat. "
        "No external data.",
        PAPER_NUMBERS,
    )


def _performance(found: CrossValidated, judgement: Judgement | None) -> tuple[str, ...]:
    judged = found.find(judgement.contender) if judgement else None
    if judged is None:
        return ("See the tables.",)
    names = {
        "auroc": "AUROC pooled",
        "auroc_fold_mean": "AUROC mean of folds",
        "brier": "Brier score",
        "calibration_slope": "calibration slope",
        "accuracy@youden": "accuracy at the training folds' threshold",
        "sensitivity@youden": "sensitivity there",
        "specificity@youden": "specificity there",
        "accuracy@0.5": "accuracy at 0.5",
    }
    known = [
        f"{text} {interval_text(judged.metric(metric))}"
        for metric, text in names.items()
        if metric in judged.metrics
    ]
    return (f"{judged.name}: {'; '.join(known)}.", judgement.sentence)


def _fairness() -> tuple[str, ...]:
    return (
        "Described by sex, age, cause, rhythm, LBBB and QRS duration in the table of groups, and not tested: in groups "
        "of so few patients no difference could be told from chance. Ethnicity and income are not in the data. Sex "
        "enters one definition of left bundle branch block and one guideline as their authors wrote them.",
    )


_WEIGHTS = {"": "no encoder", "none": "no encoder", "fresh weights": "encoder of fresh weights"}


def _versions(found: CrossValidated) -> Sequence[str]:
    return tuple(
        f"{run.workdir}: {_WEIGHTS.get(run.checkpoint, f'encoder {run.checkpoint[:12]}')}, ecgjax {run.version}."
        for run in found.runs
    ) or ("Unknown.",)
