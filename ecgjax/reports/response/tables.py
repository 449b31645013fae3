"""Tables of a cross-validation: how contenders rank and calibrate, how they decide, what separates them."""

import math
from collections.abc import Sequence

import numpy as np

from ecgjax.reports.response.differences import Judgement, p_value
from ecgjax.reports.response.results import Contender, CrossValidated
from ecgjax.reports.tables import Cell, Line, Table, cell, number, signed

RANKING = {
    "auroc": "AUROC, pooled",
    "auroc_fold_mean": "AUROC, mean of folds",
    "auprc": "AUPRC",
    "brier": "Brier",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
}
RATES = {
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
}


def ranking_table(found: CrossValidated) -> Table:
    """How well the scores rank patients, and how far probabilities can be trusted."""
    header = ("contender", *RANKING.values(), "permutation p", "patients", "run")
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
                    Cell(str(n) if n else "–"),
                    Cell(contender.workdir),
                )
            )
        )
    prevalence = found.truth.mean() if len(found.truth) else math.nan
    notes = (
        f"Out-of-fold predictions of {len(found.truth)} patients, {found.truth.sum():.0f} with the outcome: mean over "
        f"up to {len(found.fold)} repeats of {_folds(found)}-fold cross-validation; below each value its 95 % interval "
        "over draws of patients, each with the predictions of one repeat: what other patients and another dealing of "
        "the folds would change.",
        f"Without any knowledge AUROC is .50, AUPRC {prevalence:.2f}, Brier {prevalence * (1 - prevalence):.2f}. "
        "Permutation p: of a pooled AUROC above .50.",
        *_left_out(found.contenders),
    )
    return Table("Ranking and calibration", header, tuple(lines), notes)


def decision_table(found: CrossValidated, how: str) -> Table | None:
    """Rates of decisions, `how` being "youden" (with the rules' own) or "0.5"; None where nobody decided so."""
    suffixes = ("youden", "rule") if how == "youden" else (how,)
    lines = []
    for contender in found.contenders:
        used = next((s for s in suffixes if f"accuracy@{s}" in contender.metrics), None)
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
    return Table(title, header, tuple(lines))


def difference_table(judgement: Judgement) -> Table:
    """The contender under judgement against each other one, on the same draws of patients."""
    lines = []
    for difference in judgement.differences:
        name = Cell(difference.other, "required" if difference.other in judgement.required else "")
        if difference.auroc is None:
            lines.append(Line((name,), difference.reason))
            continue
        found, test = difference.auroc, difference.mcnemar
        bounds = f"[{signed(found.low)}, {signed(found.high)}]"
        decided = (
            (Cell("–"), Cell("–"))
            if test is None
            else (Cell(f"{test.only_first} against {test.only_second}"), Cell(p_value(test.p)))
        )
        patients = Cell(str(found.n), f"{difference.left_out} left out" if difference.left_out else "")
        lines.append(
            Line((name, Cell(signed(found.value), bounds), *decided, patients, Cell(str(difference.repeats))))
        )
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
        "than four standard errors; p is how often a permutation reached the AUROC of the true labels.",
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


def _left_out(contenders: Sequence[Contender]) -> list[str]:
    return [f"{contender.name}: {contender.note}." for contender in contenders if contender.note]
