"""Guidelines as contenders: the class as a rank, and the strict and lenient binary rules."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ecgjax.response.comparators.guidelines import GUIDELINES, RULES, decide, recommend
from ecgjax.response.crossvalidation.contenders import Scores
from ecgjax.response.crossvalidation.patients import Patients


@dataclasses.dataclass(frozen=True, eq=False)
class Guideline:
    """One guideline; nothing is fitted and no probability given.

    With `rule` None the class of recommendation ranks the patients (III lowest, I highest) and nothing is decided;
    otherwise the rule decides, and ranks by yes and no. A fact without a column is missing for everybody; patients
    whose answer depends on a missing fact are not evaluable. `lbbb` and `qrs` say which columns hold those two facts;
    a patient whose recordings disagree about LBBB, as many for it as against, is one of whom it is not known.
    """

    patients: Patients
    guideline: str
    rule: Literal["strict", "lenient"] | None = None
    lbbb: str = "lbbb"
    qrs: str = "qrs_ms"

    def __post_init__(self):
        if self.guideline not in GUIDELINES:
            raise ValueError(f"guideline {self.guideline!r} is unknown; choose from {', '.join(GUIDELINES)}.")
        if self.rule is not None and self.rule not in RULES:
            raise ValueError(f"rule {self.rule!r} is unknown; choose from {', '.join(RULES)}, or None.")
        for fact, column in (("lbbb", self.lbbb), ("qrs", self.qrs)):
            if column not in (_OF_THE_TABLE[fact], *self.patients.columns):
                known = ", ".join(sorted(self.patients.columns))
                raise ValueError(f"{fact} is {column!r}, which is no column; choose from {known}.")

    @property
    def name(self) -> str:
        """`guideline_<guideline>`, with the rule, and the columns of LBBB and QRS that are not the table's."""
        others = [c for c in (self.lbbb, self.qrs) if c not in _OF_THE_TABLE.values()]
        return "_".join(part for part in ("guideline", self.guideline, self.rule, *others) if part)

    def fit_predict(
        self,
        train: Int[np.ndarray, " a"],
        truth: Float[np.ndarray, " a"],
        test: Int[np.ndarray, " b"],
        *,
        inner: Int[np.ndarray, " a"],
        seed: int,
    ) -> Scores:
        """Applies the guideline to the test patients; `truth`, `inner` and `seed` have no part in it."""
        del truth, inner, seed
        found = np.array([self._answer(int(patient)) for patient in test])
        nothing = np.full(len(test), np.nan)
        return Scores(found, nothing, np.full(len(train), np.nan), None if self.rule is None else found)

    def _answer(self, patient: int) -> float:
        facts = {
            fact: float(self.patients.columns[column][patient]) if column in self.patients.columns else np.nan
            for fact, column in {**_COLUMNS, "lbbb": self.lbbb, "qrs_ms": self.qrs}.items()
        }
        if facts["lbbb"] == 0.5:  # The median of recordings that disagree.
            facts["lbbb"] = np.nan
        if self.rule is None:
            found = recommend(self.guideline, **facts)
        else:
            found = decide(self.guideline, self.rule, **facts)
        return np.nan if found is None else float(found)


_OF_THE_TABLE = {"lbbb": "lbbb", "qrs": "qrs_ms"}
"""Columns of the clinic's table, which a cohort may lack: then the fact is missing for everybody."""

_COLUMNS = {
    "lvef": "lvef_pre",
    **{name: name for name in ("sinus_rhythm", "atrial_fibrillation", "nyha", "female")},
}
