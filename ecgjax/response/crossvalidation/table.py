"""The rows of a cross-validation: each contender's metrics with intervals, and differences on the same patients."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from ecgjax.evaluators.base import Row
from ecgjax.metrics.bootstrap import percentile_interval
from ecgjax.metrics.calibration import brier_draws, recalibration_draws
from ecgjax.metrics.draws import auprc_draws, auroc_draws
from ecgjax.metrics.paired import mcnemar, permutation_p
from ecgjax.metrics.repeated import fold_mean, over_repeats, patient_draws, pooled
from ecgjax.metrics.thresholds import rate_draws
from ecgjax.response.crossvalidation.predictions import OutOfFold

DIFFERENCES = ("auroc", "accuracy", "balanced_accuracy", "sensitivity", "specificity")


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Makes rows; every value is the mean over repeats, its interval as in `metrics.repeated`.

    Metrics: `auroc` and `auprc` (of all patients' out-of-fold scores pooled), `brier`, `calibration_*`; then rates
    (`metrics.thresholds`) by how the decision was made: `@youden` (threshold chosen inside the training folds), `@0.5`,
    and `@rule`. With `_fold_mean` behind their name, AUROC, AUPRC and rates are means of the folds' own. Patients that
    a contender cannot evaluate are left out of its rows, whose `n` counts the others and whose note says how many.
    """

    truth: Float[np.ndarray, " n"]
    fold: Int[np.ndarray, "repeat n"]
    _: dataclasses.KW_ONLY
    target: str
    draws: int
    permutations: int
    seed: int

    def score(self, name: str, found: OutOfFold) -> tuple[list[Row], dict[str, float]]:
        """All metrics of one contender, and its scalars: patients not evaluable, permutation p, chosen settings."""
        keep = ~np.isnan(found.score).any(axis=0)
        missing = int(np.sum(~keep))
        scalars = {f"{name}|not_evaluable": float(missing)}
        scalars |= {f"{name}|chosen_{key}": float(np.median(values)) for key, values in found.chosen.items()}
        note = f"{missing} of {len(keep)} patients not evaluable" if missing else ""
        if len(np.unique(self.truth[keep])) < 2:
            why = f"the {int(keep.sum())} patients that can be evaluated have one outcome"
            return [self._row(name, "auroc", None, keep, f"{note}; {why}" if note else why)], scalars
        drawn = self._drawn(found, keep)
        scalars[f"{name}|permutation_p"] = permutation_p(
            self.truth[keep], found.score[:, keep], permutations=self.permutations, seed=self.seed
        )
        return [self._row(name, metric, values, keep, note) for metric, values in drawn.items()], scalars

    def compare(
        self, reference: str, first: OutOfFold, name: str, second: OutOfFold
    ) -> tuple[list[Row], dict[str, float]]:
        """Reference minus contender on the patients that both evaluate, with the same draws; McNemar's exact test.

        Decisions are compared as made by each: at Youden's threshold, or by the rule itself. For McNemar a patient's
        decision is that of most repeats, a tie being no.
        """
        label = f"{reference} - {name}"
        keep = ~np.isnan(first.score).any(axis=0) & ~np.isnan(second.score).any(axis=0)
        left_out = int(np.sum(~keep))
        note = f"{left_out} of {len(keep)} patients not evaluable by both" if left_out else ""
        if len(np.unique(self.truth[keep])) < 2:
            return [self._row(label, "auroc_difference", None, keep, f"{note}; one outcome only")], {}
        values = [self._decided(found, keep) for found in (first, second)]
        rows = [
            self._row(label, f"{metric}_difference", values[0][metric] - values[1][metric], keep, note)
            for metric in DIFFERENCES
            if all(metric in each for each in values)
        ]
        if not all("accuracy" in each for each in values):
            return rows, {}
        right = [
            (found.decision[:, keep].mean(axis=0) > 0.5) == (self.truth[keep] == 1)
            for found in (first, second)
        ]
        test = mcnemar(*right)
        return rows, {
            f"{label}|mcnemar_only_first_right": float(test.only_first),
            f"{label}|mcnemar_only_second_right": float(test.only_second),
            f"{label}|mcnemar_p": test.p,
        }

    def curve_row(self, name: str, found: OutOfFold, fraction: float) -> Row:
        """Pooled AUROC after training on a fraction of each training set, as metric `auroc@<percent>_percent`."""
        keep = ~np.isnan(found.score).any(axis=0)
        drawn = pooled(auroc_draws, self.truth[keep], found.score[:, keep], self._counts(keep))
        note = f"trained on {fraction:g} of each training set, {len(found.score)} repeats"
        return self._row(name, f"auroc@{100 * fraction:g}_percent", drawn, keep, note)

    def _drawn(self, found: OutOfFold, keep: np.ndarray) -> dict[str, np.ndarray]:
        """Every metric of the cohort (first) and of its draws."""
        truth = self.truth[keep]
        scores, fold, probability, decision = (
            values[:, keep] for values in (found.score, self.fold, found.probability, found.decision)
        )
        decisions = {} if np.isnan(decision).any() else {"@rule" if found.rule else "@youden": decision}
        if not np.isnan(probability).any():
            decisions["@0.5"] = (probability >= 0.5).astype(float)

        def metrics(repeat, counts):
            def of(rows, counts):
                y, score, index = truth[rows], scores[repeat, rows], np.arange(len(rows))
                drawn = {metric: draws(y, score, index, counts) for metric, draws in _RANKING.items()}
                for how, decided in decisions.items():
                    drawn |= _named(rate_draws(y, decided[repeat, rows], counts), how)
                return drawn

            by_fold = fold_mean(of, truth, fold[repeat], counts)
            drawn = of(np.arange(len(truth)), counts) | {_fold_mean(name): v for name, v in by_fold.items()}
            if "@0.5" in decisions:
                p = probability[repeat]
                drawn |= {"brier": brier_draws(truth, p, counts), **recalibration_draws(truth, p, counts)}
            return drawn

        return over_repeats(metrics, self._counts(keep), repeats=len(scores))

    def _decided(self, found: OutOfFold, keep: np.ndarray) -> dict[str, np.ndarray]:
        """The AUROC, and the rates of the contender's own decisions if it decides on everybody."""
        truth, index = self.truth[keep], np.arange(int(keep.sum()))
        scores, decision = found.score[:, keep], found.decision[:, keep]

        def metrics(repeat, counts):
            drawn = {"auroc": auroc_draws(truth, scores[repeat], index, counts)}
            if not np.isnan(decision).any():
                drawn |= rate_draws(truth, decision[repeat], counts)
            return drawn

        return over_repeats(metrics, self._counts(keep), repeats=len(scores))

    def _counts(self, keep: np.ndarray) -> Float[np.ndarray, "draws n"]:
        """The same draws for the same patients, so that differences are paired."""
        return patient_draws(self.truth[keep], draws=self.draws, seed=self.seed)

    def _row(self, name: str, metric: str, drawn: np.ndarray | None, keep: np.ndarray, note: str) -> Row:
        n = int(keep.sum())
        drawn = np.full(2, np.nan) if drawn is None else drawn
        found = percentile_interval(drawn[0], drawn[1:], n=n, subjects=n)
        undefined = int(np.isnan(drawn[1:]).sum())
        if np.isfinite(drawn[0]) and undefined:
            share = f"undefined in {undefined} of {len(drawn) - 1} draws"
            note = f"{note}; {share}" if note else share
        if np.isnan(drawn[0]) and not note:
            note = "undefined on this cohort"
        return Row(self.target, "binary", False, name, metric, **dataclasses.asdict(found), note=note)


_RANKING = {"auroc": auroc_draws, "auprc": auprc_draws}


def _fold_mean(metric: str) -> str:
    """`accuracy@0.5` to `accuracy_fold_mean@0.5`."""
    name, at, how = metric.partition("@")
    return f"{name}_fold_mean{at}{how}"


def _named(drawn: Mapping[str, np.ndarray], suffix: str) -> dict[str, np.ndarray]:
    return {f"{name}{suffix}": values for name, values in drawn.items()}
