"""Whether the ECG of a pair finds its CMR among all of the test split, and the reverse."""

import dataclasses

import numpy as np

from ecgjax.evaluators.base import Predict, Results, Splits
from ecgjax.evaluators.embed import embed
from ecgjax.metrics.bootstrap import percentile_interval, subject_counts, subject_index
from ecgjax.metrics.retrieval import mean_reciprocal_rank, median_rank, pair_ranks, recall_at


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Recall among the first k, median rank and mean reciprocal rank by cosine, with chance beside them.

    Recall's interval resamples the querying subjects; the candidates stay. Only the record's own partner counts as
    found, also where a subject has several records.
    """

    ecg: str = "ecg/projection"
    cmr: str = "cmr/projection"
    k: tuple[int, ...] = (1, 5, 10)
    split: str = "test"
    draws: int = 1000
    seed: int = 0

    def __post_init__(self):
        if not self.k or min(self.k) < 1:
            raise ValueError(f"k is {self.k}; give ranks from 1.")

    @property
    def keys(self) -> tuple[str, ...]:
        """Both halves of the pair."""
        return (self.ecg, self.cmr)

    @property
    def name(self) -> str:
        """The directory of its results."""
        return "retrieval"

    def run(self, predict: Predict, splits: Splits) -> Results:
        """Ranks every record's partner in both directions."""
        examples = splits.examples(self.split)
        z = embed(predict, splits, self.split, keys=self.keys)
        n = len(examples.record)
        index, subjects = subject_index(examples.subject)
        counts = subject_counts(subjects, draws=self.draws, seed=self.seed)
        weight = counts[:, index]
        scalars = {"n": float(n), "subjects": float(subjects), "chance/median_rank": (n + 1) / 2}
        scalars["chance/mean_reciprocal_rank"] = float(np.mean(1 / np.arange(1, n + 1)))
        scalars |= {f"chance/recall@{k}": min(1.0, k / n) for k in self.k}
        arrays = {"subject": examples.subject, "record": examples.record}
        for direction, query, candidate in (
            ("ecg_to_cmr", self.ecg, self.cmr),
            ("cmr_to_ecg", self.cmr, self.ecg),
        ):
            ranks = pair_ranks(z[query], z[candidate])
            arrays[f"{direction}/rank"] = ranks
            scalars[f"{direction}/median_rank"] = median_rank(ranks)
            scalars[f"{direction}/mean_reciprocal_rank"] = mean_reciprocal_rank(ranks)
            for k in self.k:
                drawn = weight @ (ranks <= k) / weight.sum(axis=1)
                found = percentile_interval(recall_at(ranks, k=k), drawn, n=n, subjects=subjects)
                name = f"{direction}/recall@{k}"
                scalars |= {name: found.value, f"{name}/low": found.low, f"{name}/high": found.high}
        return Results(self.name, (), scalars, arrays, dataclasses.asdict(self))
