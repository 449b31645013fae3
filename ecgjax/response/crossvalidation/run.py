"""Repeated cross-validation of contenders on one cohort, with everything reported side by side."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from ecgjax.evaluators.base import Results, Row
from ecgjax.response.crossvalidation.contenders import Contender
from ecgjax.response.crossvalidation.folds import check_nested, repeated_folds, smallest_class
from ecgjax.response.crossvalidation.leaks import PermutedLabels, permuted_labels
from ecgjax.response.crossvalidation.patients import Patients
from ecgjax.response.crossvalidation.predictions import OutOfFold, predict_out_of_fold, to_arrays
from ecgjax.response.crossvalidation.table import Table

NAME = "crossvalidation"
"""The directory of its results in a workdir."""


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """Settings of a cross-validation; see `Table` for what is reported.

    `inner` folds serve choices and the threshold within a training set. `curve` are fractions of the training
    patients at which the contenders in `curve_of` are trained again (`curve_repeats` repeats). Contenders in
    `permuted_of` are cross-validated with `label_permutations` permutations of the labels, once each: the leak alarm,
    and a p that includes the fitting. Every other contender is compared with `reference`, if there is one.
    """

    repeats: int = 20
    folds: int = 5
    inner: int = 3
    draws: int = 2000
    permutations: int = 2000
    reference: str | None = None
    curve: tuple[float, ...] = ()
    curve_of: tuple[str, ...] = ()
    curve_repeats: int = 5
    label_permutations: int = 20
    permuted_of: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self):
        for name in ("repeats", "draws", "permutations", "curve_repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("folds", "inner", "label_permutations"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 2.")
        for fraction in self.curve:
            if not 0 < fraction < 1:
                raise ValueError(
                    f"curve holds {fraction}; fractions lie between 0 and 1, the whole being run anyway."
                )

    def fold(self, truth: Float[np.ndarray, " n"]) -> Int[np.ndarray, "repeats n"]:
        """The fold of every patient in every repeat; raises where a class is too small for them."""
        check_nested(truth, folds=self.folds, inner=self.inner, fractions=(1.0, *self.curve))
        return repeated_folds(truth, repeats=self.repeats, folds=self.folds, seed=self.seed)

    def possible(self, truth: Float[np.ndarray, " n"]) -> "CrossValidation":
        """The same with those fractions of the curve alone whose training sets can be cut into the inner folds."""
        kept = [f for f in self.curve if smallest_class(truth, folds=self.folds, fraction=f) >= self.inner]
        return dataclasses.replace(self, curve=tuple(kept))

    def fits(self, contenders: int) -> int:
        """How often `run` calls `fit_predict` with drawn folds, for whoever shows progress."""
        curves = len(self.curve_of) * len(self.curve) * min(self.curve_repeats, self.repeats)
        permuted = len(self.permuted_of) * self.label_permutations
        return self.folds * (self.repeats * contenders + curves + permuted)

    def run(
        self,
        patients: Patients,
        truth: Float[np.ndarray, " n"],
        contenders: Sequence[Contender],
        *,
        fold: Int[np.ndarray, "repeat n"] | None = None,
        target: str = "response",
        told: Callable[[str], None] = lambda line: None,
    ) -> Results:
        """Predicts every patient out of fold by every contender, and scores and compares them.

        `fold` replaces the drawn folds (`given_folds`); `told` hears a line a contender.
        """
        names = [contender.name for contender in contenders]
        self._check(names)
        fold = self.fold(truth) if fold is None else fold
        predictions: dict[str, OutOfFold] = {}
        table = Table(
            truth, fold, target=target, draws=self.draws, permutations=self.permutations, seed=self.seed
        )
        rows: list[Row] = []
        permuted: dict[str, np.ndarray] = {}
        scalars = {
            "patients": float(len(truth)),
            "recordings": float(np.sum(patients.patient >= 0)),
            "with_outcome": float(truth.sum()),
            "unlabelled_recordings": float(np.sum(patients.patient < 0)),
        }
        # One thread: the products are small, and waiting BLAS threads made a busy machine 20 times as slow.
        with threadpool_limits(1):
            for number, contender in enumerate(contenders, 1):
                found = predict_out_of_fold(contender, truth, fold, inner=self.inner, seed=self.seed)
                predictions[contender.name] = found
                mine, more = table.score(contender.name, found)
                rows += mine
                scalars |= more
                told(f"contender {number} of {len(names)}, {contender.name}: {_said(mine)}")
            for contender in contenders:
                if contender.name in self.curve_of:
                    rows += self._learning_curve(contender, truth, fold, table)
                    told(f"learning curve of {contender.name}: {len(self.curve)} fractions")
                if contender.name in self.permuted_of:
                    found, more = self._permuted(contender, truth, next(_aurocs(rows, contender.name)))
                    permuted[f"{contender.name}|permuted_auroc"] = found.auroc
                    scalars |= more
                    told(f"permuted labels of {contender.name}: {_alarm(found)}")
            for name in names:
                if self.reference is not None and name != self.reference:
                    mine, more = table.compare(
                        self.reference, predictions[self.reference], name, predictions[name]
                    )
                    rows += mine
                    scalars |= more
        arrays = {
            "subject": patients.subject,
            "y": truth.astype(np.int8),
            "fold": fold.astype(np.int16),
            **to_arrays(predictions),
            **permuted,
        }
        return Results(NAME, rows, scalars, arrays, dataclasses.asdict(self))

    def _learning_curve(self, contender, truth, fold, table):
        for fraction in sorted(self.curve):
            part = fold[: self.curve_repeats]
            found = predict_out_of_fold(
                contender, truth, part, inner=self.inner, seed=self.seed, fraction=fraction
            )
            yield table.curve_row(contender.name, found, fraction)

    def _permuted(self, contender, truth, observed):
        name = contender.name
        found = permuted_labels(
            lambda dealt: contender,
            truth,
            observed=observed,
            permutations=self.label_permutations,
            folds=self.folds,
            inner=self.inner,
            seed=self.seed,
        )
        return found, {
            f"{name}|permuted_auroc_mean": float(found.auroc.mean()),
            f"{name}|refitted_permutation_p": found.p,
            f"{name}|leak_alarm": float(found.leaks),
        }

    def _check(self, names: Sequence[str]) -> None:
        if not names:
            raise ValueError("no contender; name at least one.")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two contenders are called {name!r}; give each a name of its own.")
        for field, wanted in (
            ("reference", (self.reference,)),
            ("curve_of", self.curve_of),
            ("permuted_of", self.permuted_of),
        ):
            for name in wanted:
                if name is not None and name not in names:
                    raise ValueError(
                        f"{field} names {name!r}, which takes no part; choose from {', '.join(names)}."
                    )


def _aurocs(rows: Sequence[Row], name: str) -> Iterator[float]:
    return (row.value for row in rows if (row.input, row.metric) == (name, "auroc"))


def _said(rows: Sequence[Row]) -> str:
    row = next(row for row in rows if row.metric == "auroc")
    return f"AUROC {row.value:.3f} [{row.low:.3f}, {row.high:.3f}], {row.n} patients"


def _alarm(found: PermutedLabels) -> str:
    verdict = "PREDICTED, something leaks" if found.leaks else "nothing is predicted"
    return f"mean AUROC {found.auroc.mean():.3f}, {verdict}"
