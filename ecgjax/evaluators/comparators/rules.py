"""Guidelines as contenders: the class as a rank, and the strict and lenient binary rules."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from ecgjax.evaluators.comparators.guidelines import GUIDELINES, RULES, decide, recommend
from ecgjax.evaluators.crossvalidation.contenders import Scores
from ecgjax.evaluators.crossvalidation.patients import Patients


@dataclasses.dataclass(frozen=True, eq=False)
class Guideline:
    """One guideline; nothing is fitted and no probability given.

    With `rule` None the class of recommendation ranks the patients (III lowest, I highest) and nothing is decided;
    otherwise the rule decides, and ranks by yes and no. A fact without a column is missing for everybody; patients
    whose answer depends on a missing fact are not evaluable. `lbbb` and `qrs` say which columns hold those two facts.
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

    @property
    def name(self) -> str:
        """`guideline_<guideline>`, with the rule, and the column of LBBB where it is not the table's."""
        parts = ["guideline", self.guideline, self.rule, None if self.lbbb == "lbbb" else self.lbbb]
        return "_".join(part for part in parts if part)

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
        if self.rule is None:
            found = recommend(self.guideline, **facts)
        else:
            found = decide(self.guideline, self.rule, **facts)
        return np.nan if found is None else float(found)


_COLUMNS = {
    "lvef": "lvef_pre",
    **{name: name for name in ("sinus_rhythm", "atrial_fibrillation", "nyha", "female")},
}
