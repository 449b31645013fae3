"""Tables of a cross-validation: how contenders rank and calibrate, how they decide, what separates them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ecgjax.reports.tables import DASH, Cell, Line, Table, cell, number, p_value, signed
from ecgjax.response.report.contenders import Contender, CrossValidated
from ecgjax.response.report.differences import Judgement

RANKING = {
    "auroc": "AUROC, pooled",
    "auroc_fold_mean": "AUROC, mean of folds",
    "auprc": "AUPRC, pooled",
    "auprc_fold_mean": "AUPRC, mean of folds",
}
CALIBRATION = {
    "brier": "Brier",
    "calibration_slope": "slope",
    "calibration_intercept": "intercept beside it",
    "calibration_in_the_large": "intercept at slope 1",
}
RATES = {
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
}


def ranking_table(found: CrossValidated) -> Table:
    """How well the scores rank patients."""
    header = ("contender", *RANKING.values(), "permutation p", "patients")
    lines = []
    for contender in found.contenders:
        values = [cell(contender.metric(metric)) for metric in RANKING]
        n = contender.metric("auroc").n
        lines.append(
            Line(
                (
                    Cell(contender.name),
                    *values,
                    Cell(p_value(contender.permutation_p)),
                    Cell(str(n)) if n else DASH,
                )
            )
        )
    prevalence = found.truth.mean() if len(found.truth) else math.nan
    notes = (
        f"Out-of-fold predictions of {len(found.truth)} patients, {found.truth.sum():.0f} with the outcome: mean over "
        f"up to {len(found.fold)} repeats of {_folds(found)}-fold cross-validation; below each value its 95 % interval "
        "over draws of patients, each with the predictions of one repeat: what other patients and another dealing of "
        "the folds would change.",
        f"Without any knowledge AUROC is .50 and AUPRC {number(prevalence)}. Permutation p: of a pooled AUROC above "
        ".50, labels being dealt anew to the scores as they are; where everything was fitted again for each dealing, "
        "see the leakage alarm.",
        *_left_out(found),
    )
    return Table("Ranking", header, tuple(lines), notes)


def calibration_table(found: CrossValidated) -> Table | None:
    """How far probabilities can be trusted; None where nobody gives any."""
    lines = [
        Line((Cell(contender.name), *(cell(contender.metric(metric)) for metric in CALIBRATION)))
        for contender in found.contenders
        if not math.isnan(contender.metric("brier").value)
    ]
    if not lines:
        return None
    prevalence = found.truth.mean()
    notes = (
        "Of whoever gives probabilities; a guideline's yes is none. Without any knowledge Brier is "
        f"{number(prevalence * (1 - prevalence))}. Slope and the intercept beside it are of the logistic regression of "
        "the outcome on the logit, 1 and 0 where calibrated; the intercept at slope 1 (calibration in the large) is "
        "below 0 where probabilities are too high on average.",
    )
    return Table("Calibration", ("contender", *CALIBRATION.values()), tuple(lines), notes)


def decision_table(found: CrossValidated, how: str) -> Table | None:
    """Rates of decisions, `how` being "youden" (with the rules' own) or "0.5"; None where nobody decided so."""
    suffixes = ("youden", "rule") if how == "youden" else (how,)
    lines, undecided = [], []
    for contender in found.contenders:
        used = next((s for s in suffixes if f"accuracy@{s}" in contender.metrics), None)
        if used is None and how == "youden":
            undecided.append(contender.name)
        if used is not None:
            values = [cell(contender.metric(f"{rate}@{used}")) for rate in RATES]
            lines.append(Line((Cell(contender.name), Cell(_how(contender, used)), *values)))
    if not lines:
        return None
    title = {
        "youden": "Decisions at the threshold of the training folds (Youden), or by the rule",
        "0.5": "Decisions at probability 0.5",
    }[how]
    header = ("contender", "yes from", *RATES.values())
    notes = (
        f"Not in every fold a threshold, or evaluable in nobody: {', '.join(undecided)}. A threshold needs two values "
        "of the measure, and both outcomes, among the training patients.",
    )
    return Table(title, header, tuple(lines), notes if undecided else ())


def four_ways_table(contender: Contender) -> Table | None:
    """One contender's rates at either threshold, pooled and as the mean of folds; None where it decides nothing."""
    lines = []
    for how, threshold in (("youden", "training folds' threshold"), ("0.5", "probability 0.5")):
        for suffix, pooling in (("", "pooled"), ("_fold_mean", "mean of folds")):
            values = [contender.metric(f"{rate}{suffix}@{how}") for rate in RATES]
            if not math.isnan(values[0].value):
                lines.append(Line((Cell(f"{threshold}, {pooling}"), *map(cell, values))))
    if not lines:
        return None
    note = "The same predictions throughout: what remains between the lines is how numbers were made of them."
    return Table(f"{contender.name}, four ways", ("", *RATES.values()), tuple(lines), (note,))


def difference_table(judgement: Judgement) -> Table:
    """The contender under judgement against each other one, on the same draws of patients."""
    lines = []
    for difference in judgement.differences:
        name = Cell(difference.other, "required" if difference.other in judgement.required else "")
        if difference.auroc is None:
            lines.append(Line((name,), difference.reason))
            continue
        found, test = difference.auroc, difference.mcnemar
        decided = (
            (DASH, DASH)
            if test is None
            else (Cell(f"{test.only_first} against {test.only_second}"), Cell(p_value(test.p)))
        )
        patients = Cell(str(found.n), f"{difference.left_out} left out" if difference.left_out else "")
        lines.append(Line((name, cell(found, signed), *decided, patients, Cell(str(difference.repeats)))))
    header = (
        "against",
        "AUROC difference",
        "rightly decided by one only",
        "McNemar p",
        "patients",
        "repeats",
    )
    notes = (
        f"AUROC of {judgement.contender} minus that of the row; 95 % interval over the same draws of patients. "
        "McNemar's exact test is of the decisions of most repeats. Intervals and p are not corrected for their number.",
    )
    return Table(f"{judgement.contender} against each", header, tuple(lines), notes)


def dealt_table(contenders: Sequence[Contender]) -> Table | None:
    """AUROCs under labels dealt anew, of contenders that were cross-validated so; None where none was."""
    lines = []
    for contender in contenders:
        dealt = contender.dealt
        if len(dealt):
            spread = Cell(number(float(dealt.mean())), f"{number(dealt.min())} to {number(dealt.max())}")
            alarm = Cell("LEAK" if contender.leaks else "no")
            p = Cell(p_value(contender.refitted_p))
            lines.append(Line((Cell(contender.name), Cell(str(len(dealt))), spread, alarm, p)))
    if not lines:
        return None
    header = ("contender", "permutations", "mean AUROC", "alarm", "permutation p, refitted")
    notes = (
        "Everything is fitted again under each permutation. The alarm is raised where the mean is above .50 by more "
        "than four standard errors; p is how often a permutation reached the AUROC of the true labels, and rather too "
        "large, since a permutation has one repeat where the true labels have the mean of all.",
    )
    return Table("Labels dealt anew", header, tuple(lines), notes)


def permuted_table(contenders: Sequence[Contender]) -> Table:
    """Contenders of runs on permuted labels or on a null cohort: their interval should cover chance."""
    lines = []
    for contender in contenders:
        found = contender.metric("auroc")
        if found.low > 0.5:
            said = "above: something leaks, or this is the 1 in 40 that chance puts there"
        elif found.high < 0.5:
            said = "below: by chance"
        else:
            said = "covered"
        lines.append(Line((Cell(contender.name), Cell(contender.workdir), cell(found), Cell(said))))
    header = ("contender", "run", "AUROC, pooled", ".50")
    return Table("Runs with nothing to find", header, tuple(lines))


def _how(contender: Contender, used: str) -> str:
    if used == "rule":
        return "the rule"
    if used != "youden":
        return "p ≥ 0.5"
    low, high = np.nanmin(contender.threshold), np.nanmax(contender.threshold)
    return f"p ≥ {low:.2f}–{high:.2f}" if high - low >= 0.005 else f"p ≥ {low:.2f}"


def _folds(found: CrossValidated) -> int:
    return len(set(found.fold[0].tolist())) if len(found.fold) else 0


def _left_out(found: CrossValidated) -> list[str]:
    """Who could not evaluate how many patients, most first."""
    missing: Mapping[str, int] = {
        contender.name: int(np.isnan(contender.score).any(axis=0).sum()) for contender in found.contenders
    }
    said = [f"{name} {count}" for name, count in sorted(missing.items(), key=lambda one: -one[1]) if count]
    whole = f"Patients not evaluable, of {len(found.truth)}, left out and never taken for a no: {', '.join(said)}."
    return [whole] if said else []
