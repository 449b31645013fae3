"""How good a checkpoint's own predictions of labels are, without any readout on top."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float

from ecgjax.core.columns import choose
from ecgjax.data.cohorts.base import Target
from ecgjax.evaluators.base import Predict, Results, Row, Splits
from ecgjax.evaluators.embed import embed
from ecgjax.metrics import classification, regression
from ecgjax.metrics.bootstrap import interval
from ecgjax.metrics.generations import by_generation

_SPLITS = ("val", "test")
_METRICS = {"regression": ("r2", "pearson"), "binary": ("auroc", "auprc")}
_SECONDARY = {
    "regression": (regression.r2, regression.pearson, regression.rmse, regression.mae),
    "binary": (
        classification.auroc,
        classification.auprc,
        classification.f1,
        classification.accuracy,
        classification.balanced_accuracy,
    ),
}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Scores `prediction [n m]` of a supervised or fine-tuned checkpoint on the validation and the test split.

    `targets` names the label columns that the checkpoint predicts, as its config does. Rows are of the test split,
    with intervals that resample its subjects. Scalars hold every metric of both splits, and under `paper` and
    `head` what either release of the reference would report: for phenotypes the mean over targets, missing ones
    left out, or with `missing="counted"` met exactly, as there. Crops of a record are averaged as probabilities.
    Predictions, logits and, where it is named, `embedding` are saved.
    """

    targets: tuple[str | int, ...] = ()
    embedding: str = "ecg/embedding"
    missing: Literal["excluded", "counted"] = "excluded"
    draws: int = 1000
    seed: int = 0

    def __post_init__(self):
        if self.draws < 1:
            raise ValueError(f"draws is {self.draws}; it must be at least 1.")

    @property
    def keys(self) -> tuple[str, ...]:
        """What it scores, and what it saves beside."""
        return ("prediction", "logits", *([self.embedding] if self.embedding else []))

    @property
    def name(self) -> str:
        """The directory of its results."""
        return "predictions"

    def run(self, predict: Predict, splits: Splits) -> Results:
        """Scores each target of each split."""
        index = choose([target.name for target in splits.targets], self.targets, "targets")
        targets = [splits.targets[i] for i in index]
        rows: list[Row] = []
        scalars: dict[str, float] = {}
        arrays: dict[str, np.ndarray] = {}
        for split in _SPLITS:
            examples = splits.examples(split)
            truth = examples.label[:, index]
            out = embed(predict, splits, split, keys=self.keys)
            prediction = out["prediction"]
            if prediction.shape != truth.shape:
                raise ValueError(
                    f"the checkpoint predicts {prediction.shape[1:]} values an example, targets names {len(targets)} "
                    f"label columns; name those in the evaluator's targets that config.objective.targets names."
                )
            scalars |= {f"{split}|{name}": value for name, value in self._scalars(truth, prediction, targets)}
            arrays |= {f"{split}|truth": truth, f"{split}|subject": examples.subject}
            arrays |= {f"{split}|record": examples.record}
            arrays |= {f"{split}|{key.rpartition('/')[2]}": values for key, values in out.items()}
            if split == "test":
                rows += self._rows(truth, prediction, examples.subject, targets)
        return Results(self.name, rows, scalars, arrays, dataclasses.asdict(self))

    def _rows(self, truth, prediction, subject, targets):
        for m, target in enumerate(targets):
            for metric in _METRICS[target.kind]:
                found = interval(
                    truth[:, m], prediction[:, m], subject, metric=metric, draws=self.draws, seed=self.seed
                )
                note = "" if found.value == found.value else "truth or prediction is constant, or missing"
                shared = (target.name, target.kind, target.control, "prediction", metric)
                yield Row(*shared, **dataclasses.asdict(found), note=note)

    def _scalars(self, truth, prediction, targets: list[Target]):
        for m, target in enumerate(targets):
            for metric in _SECONDARY[target.kind]:
                yield f"{target.name}|{metric.__name__}", metric(truth[:, m], prediction[:, m])
        for kind in dict.fromkeys(target.kind for target in targets):
            mine = [m for m, target in enumerate(targets) if target.kind == kind]
            # Conditions were never masked in the reference.
            missing = self.missing if kind == "regression" else "excluded"
            for generation in ("paper", "head"):
                for name, metric in by_generation(generation, kind).items():
                    value = regression.mean_over_targets(
                        metric, truth[:, mine], prediction[:, mine], missing=missing
                    )
                    yield f"{generation}|{kind}|{name}", value
        if (hits := _exclusive_hits(truth, prediction, targets)) is not None:
            yield "classes|accuracy", float(np.mean(hits))


def _exclusive_hits(
    truth: Float[np.ndarray, "n m"], prediction: Float[np.ndarray, "n m"], targets: list[Target]
) -> np.ndarray | None:
    """Where the largest prediction is the true class, of records with labels; None where classes are not one-hot."""
    known = ~np.isnan(truth).any(axis=1)
    if len(targets) < 2 or any(target.kind != "binary" for target in targets) or not known.any():
        return None
    if not np.all(np.sum(truth[known], axis=1) == 1):
        return None
    return prediction[known].argmax(axis=1) == truth[known].argmax(axis=1)
