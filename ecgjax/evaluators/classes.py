"""How well a checkpoint tells exclusive classes apart, class by class, with the majority class beside it."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from ecgjax.core.columns import choose
from ecgjax.data.cohorts.base import Target
from ecgjax.evaluators.base import Predict, Results, Row, Splits
from ecgjax.evaluators.embed import embed
from ecgjax.metrics.bootstrap import Interval
from ecgjax.metrics.multiclass import ClassScores, score_classes

_SPLITS = ("val", "test")
_SHORT = {"sensitivity": "Se", "positive_predictivity": "+P", "f1": "F1"}
_LEAK = "leaky: subjects of the test split were trained on, so this says little of new ones"


@dataclasses.dataclass(frozen=True)
class Classes:
    """Confusion matrix, sensitivity, positive predictivity and F1 of every class, on validation and test split.

    `targets` names the label columns that exclude each other, as config.objective.targets does; one condition makes
    two classes. The decision is the class of the largest `prediction`. Rows are of the test split, with intervals
    that resample its subjects; those of input "majority" take every record for its most frequent class, which a
    model of any use must beat in macro-F1 and need not in accuracy. Records without a class are left out and counted.
    Where the cohort's name says that its split is leaky, so does every row.
    """

    targets: tuple[str | int, ...] = ()
    draws: int = 1000
    seed: int = 0

    def __post_init__(self):
        if self.draws < 1:
            raise ValueError(f"draws is {self.draws}; it must be at least 1.")

    @property
    def keys(self) -> tuple[str, ...]:
        """The probability of each label column."""
        return ("prediction",)

    @property
    def name(self) -> str:
        """The directory of its results."""
        return "classes"

    def run(self, predict: Predict, splits: Splits) -> Results:
        """Scores both splits; rows and text are of the test split."""
        index = choose([target.name for target in splits.targets], self.targets, "targets")
        names = class_names([splits.targets[i] for i in index])
        leak = _LEAK if "leaky" in splits.cohort else ""
        rows: list[Row] = []
        scalars: dict[str, float] = {}
        arrays: dict[str, np.ndarray] = {"classes": np.array(names)}
        text = ""
        for split in _SPLITS:
            examples = splits.examples(split)
            truth = true_classes(examples.label[:, index], split)
            prediction = embed(predict, splits, split, keys=self.keys)["prediction"]
            probability = _probabilities(prediction, columns=len(index))
            known = truth >= 0
            if not known.any():
                raise ValueError(f"no record of split {split} has one of the classes {', '.join(names)}.")
            subject, decision = examples.subject[known], probability[known].argmax(axis=1)
            majority = np.full(known.sum(), np.bincount(truth[known]).argmax())
            model, constant = (
                score_classes(truth[known], d, subject, classes=len(names), draws=self.draws, seed=self.seed)
                for d in (decision, majority)
            )
            scalars |= {f"{split}|without_class": float(np.sum(~known))}
            scalars |= {f"{split}|{name}": value for name, value in _scalars(model, constant, names)}
            arrays |= {f"{split}|confusion": model.confusion, f"{split}|truth": truth}
            arrays |= {f"{split}|probability": probability, f"{split}|subject": examples.subject}
            arrays |= {f"{split}|record": examples.record}
            if split == "test":
                rows = [*_rows(model, names, "prediction", leak), *_rows(constant, names, "majority", leak)]
                text = _text(model, constant, names, splits.cohort, leak)
        settings = dataclasses.asdict(self) | {"cohort": splits.cohort, "leaky": bool(leak)}
        return Results(self.name, rows, scalars, arrays, settings, text)


def class_names(targets: list[Target]) -> tuple[str, ...]:
    """A class a column; of one column, having it or not."""
    strange = [target.name for target in targets if target.kind != "binary"]
    if strange:
        raise ValueError(
            f"targets: {strange} are no classes; name binary label columns that exclude each other."
        )
    names = tuple(target.name for target in targets)
    return names if len(names) > 1 else (f"not {names[0]}", names[0])


def true_classes(label: Float[np.ndarray, "n m"], split: str) -> Int[np.ndarray, " n"]:
    """Number of the class of every record; -1 where a label is missing, or no column is 1."""
    known = ~np.isnan(label).any(axis=1)
    if label.shape[1] == 1:
        return np.where(known, label[:, 0] == 1, -1).astype(np.int64)
    ones = np.sum(label == 1, axis=1)
    if several := int(np.sum(known & (ones > 1))):
        raise ValueError(
            f"{several} records of split {split} have two of the targets; name label columns that exclude each other."
        )
    return np.where(known & (ones == 1), np.argmax(label == 1, axis=1), -1).astype(np.int64)


def _probabilities(prediction: Float[np.ndarray, "n m"], *, columns: int) -> Float[np.ndarray, "n c"]:
    if prediction.shape[1] != columns:
        raise ValueError(
            f"the checkpoint predicts {prediction.shape[1]} values an example, targets names {columns} label columns; "
            f"name those in the evaluator's targets that config.objective.targets names."
        )
    return prediction if columns > 1 else np.concatenate([1 - prediction, prediction], axis=1)


def _scalars(model: ClassScores, constant: ClassScores, names):
    for metric, found in model.overall.items():
        yield metric, found.value
        yield f"majority|{metric}", constant.overall[metric].value
    for metric, of_classes in model.by_class.items():
        for name, found in zip(names, of_classes, strict=True):
            yield f"{name}|{metric}", found.value


def _rows(scores: ClassScores, names, source: str, leak: str):
    def row(target: str, metric: str, found: Interval) -> Row:
        nothing = "" if found.value == found.value else "no record of this class, or no decision for it"
        note = "; ".join(text for text in (nothing, leak) if text)
        return Row(target, "class", False, source, metric, **dataclasses.asdict(found), note=note)

    for metric, found in scores.overall.items():
        yield row("all classes", metric, found)
    for metric, of_classes in scores.by_class.items():
        for name, found in zip(names, of_classes, strict=True):
            yield row(name, metric, found)


def _text(model: ClassScores, constant: ClassScores, names, cohort: str, leak: str) -> str:
    """The table of the test split for a terminal."""
    width = max(len(name) for name in (*names, "all classes"))
    lines = [f"{cohort}, test split" + (f" ({leak})" if leak else "")]
    header = [f"{short:>24}" for short in _SHORT.values()]
    lines.append(
        f"{'class':<{width}} {'records':>8} {'subjects':>8}{''.join(header)}  taken for {' '.join(names)}"
    )
    for i, name in enumerate(names):
        of_class = [model.by_class[metric][i] for metric in _SHORT]
        counts = " ".join(str(n) for n in model.confusion[i])
        cells = "".join(f"{_cell(found):>24}" for found in of_class)
        lines.append(f"{name:<{width}} {of_class[0].n:>8} {of_class[0].subjects:>8}{cells}  {counts}")
    for metric, found in model.overall.items():
        majority = f"majority class {constant.overall[metric].value:.3f}"
        lines.append(f"{metric.replace('_', ' ')} {_cell(found)}, {majority}")
    lines.append(
        f"95 % intervals over {model.overall['accuracy'].subjects} subjects, drawn with all their records."
    )
    return "\n".join(lines)


def _cell(found: Interval) -> str:
    if found.value != found.value:
        return "none"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
