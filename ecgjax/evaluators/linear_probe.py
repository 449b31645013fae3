"""How much a linear readout of fixed features knows about each target, with baselines on the same splits."""

import dataclasses

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from ecgjax.data.few_labels import draw_labelled
from ecgjax.evaluators import probes
from ecgjax.evaluators.base import Examples, Predict, Results, Row, Splits
from ecgjax.evaluators.embed import embed
from ecgjax.metrics import classification, regression
from ecgjax.metrics.bootstrap import interval

_SPLITS = ("train", "val", "test")

BASELINES = ("mean", "hand_features", "spectral_features")
"""Inputs that need no checkpoint; "mean" is no feature at all: the mean of the train split, or its prevalence."""

_SECONDARY = {
    "regression": (regression.pearson, regression.mae, regression.rmse),
    "binary": (classification.auprc, classification.balanced_accuracy, classification.f1),
}
_METRIC = {"regression": "r2", "binary": "auroc"}


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """Ridge (R2) or L2-logistic regression (AUROC) on frozen features, fitted on the train split only.

    `inputs` are prediction keys or names of `BASELINES`. Features are standardised by the labelled train examples;
    the strength of the penalty is chosen per target on the validation split, which is not added to the fit
    afterwards. `label_fraction` and `max_labels` cut the labelled train examples to a random set of whole
    subjects drawn with `seed`. Intervals resample the test subjects.
    """

    inputs: tuple[str, ...] = ("ecg/embedding",)
    label_fraction: float = 1.0
    max_labels: int | None = None
    draws: int = 1000
    seed: int = 0

    def __post_init__(self):
        if not self.inputs:
            raise ValueError("inputs is empty; name a prediction, such as 'ecg/embedding', or a baseline.")
        if not 0 < self.label_fraction <= 1:
            raise ValueError(f"label_fraction is {self.label_fraction}; it must lie in (0, 1].")
        if self.max_labels is not None and self.max_labels < 1:
            raise ValueError(f"max_labels is {self.max_labels}; it must be at least 1, or None for all.")
        if self.draws < 1:
            raise ValueError(f"draws is {self.draws}; it must be at least 1.")

    @property
    def keys(self) -> tuple[str, ...]:
        """The inputs that the checkpoint predicts."""
        return tuple(name for name in self.inputs if name not in BASELINES)

    @property
    def name(self) -> str:
        """Fewer labels are another question, hence another directory."""
        fraction = "" if self.label_fraction == 1 else f"-{100 * self.label_fraction:g}_percent"
        labels = "" if self.max_labels is None else f"-{self.max_labels}_labels"
        draw = f"-seed{self.seed}" if (fraction or labels) and self.seed else ""
        return f"linear_probe{fraction}{labels}{draw}"

    def run(self, predict: Predict, splits: Splits) -> Results:
        """Fits one probe an input and target, and scores it on the test split."""
        examples = {split: splits.examples(split) for split in _SPLITS}
        labelled = self._labelled(examples["train"])
        rows: list[Row] = []
        scalars: dict[str, float] = {"train_examples": float(len(labelled))}
        arrays = {"subject": examples["test"].subject, "record": examples["test"].record}
        if len(labelled) < len(examples["train"].subject):
            arrays["train_record"] = examples["train"].record[labelled]
        for name, inputs in self._inputs(predict, splits, labelled):
            # One thread: the products are small, and waiting BLAS threads made a busy machine 20 times as slow.
            with threadpool_limits(1):
                self._score(name, inputs, labelled, examples, splits, rows, scalars, arrays)
        return Results(self.name, rows, scalars, arrays, dataclasses.asdict(self))

    def _labelled(self, train: Examples) -> np.ndarray:
        """Positions of the train examples whose labels may be used."""
        known = np.count_nonzero(~np.isnan(train.label).all(axis=1))
        limit = int(np.ceil(self.label_fraction * known))
        limit = limit if self.max_labels is None else min(limit, self.max_labels)
        return draw_labelled(train.subject, train.label, limit=limit, seed=self.seed)

    def _inputs(self, predict: Predict, splits: Splits, labelled: np.ndarray):
        """Yields each input's name with its features [n d] by split; of train, those of labelled examples."""
        count = {split: len(splits.examples(split).subject) for split in _SPLITS}
        wanted = {split: labelled if split == "train" else np.arange(count[split]) for split in _SPLITS}
        if self.keys:
            embedded = {
                split: embed(predict, splits, split, keys=self.keys, wanted=wanted[split])
                for split in _SPLITS
            }
        signals: dict[str, np.ndarray] = {}
        for name in self.inputs:
            if name in self.keys:
                x = {split: embedded[split][name] for split in _SPLITS}
                if x["test"].ndim != 2:
                    raise ValueError(
                        f"input {name!r} has shape [n, {', '.join(map(str, x['test'].shape[1:]))}]; a probe needs "
                        "one vector an example: choose an embedding, a projection or logits."
                    )
            elif name == "mean":
                x = {split: np.zeros((len(wanted[split]), 1)) for split in _SPLITS}
            else:
                signals = signals or {split: splits.signals_mv(split)[wanted[split]] for split in _SPLITS}
                x = {
                    split: baseline_features(name, signals[split], rate_hz=splits.rate_hz)
                    for split in _SPLITS
                }
            yield name, x

    def _score(self, name, inputs, labelled, examples, splits, rows, scalars, arrays):
        standardise = probes.Standardiser.of(_filled(inputs["train"], inputs["train"]))
        train, val, test = (standardise(_filled(inputs[split], inputs["train"])) for split in _SPLITS)
        label = examples["train"].label[labelled]
        val_label, truth = examples["val"].label, examples["test"].label
        scalars[f"{name}|features"] = float(train.shape[1])
        reasons = [
            _unfit(target.kind, label[:, m], val_label[:, m]) for m, target in enumerate(splits.targets)
        ]
        real = [m for m, t in enumerate(splits.targets) if t.kind == "regression" and not reasons[m]]
        readouts = dict(
            zip(real, probes.ridge(train, label[:, real], val, val_label[:, real], test), strict=True)
        )
        for m, target in enumerate(splits.targets):
            shared = (target.name, target.kind, target.control, name, _METRIC[target.kind])
            if reasons[m]:
                nan = float("nan")
                rows.append(Row(*shared, nan, nan, nan, 0, 0, reasons[m]))
                continue
            if target.kind == "binary":
                readouts[m] = probes.logistic(train, label[:, m], val, val_label[:, m], test)
            prediction = readouts[m].test.astype(np.float32)
            found = interval(
                truth[:, m],
                prediction,
                examples["test"].subject,
                metric=_METRIC[target.kind],
                draws=self.draws,
                seed=self.seed,
            )
            note = "" if found.value == found.value else _unscored(target.kind, truth[:, m])
            rows.append(Row(*shared, **dataclasses.asdict(found), note=note))
            scalars[f"{name}|{target.name}|strength"] = readouts[m].strength
            for metric in _SECONDARY[target.kind]:
                scalars[f"{name}|{target.name}|{metric.__name__}"] = metric(truth[:, m], prediction)
            arrays[f"{name}|{target.name}|truth"] = truth[:, m].astype(np.float32)
            arrays[f"{name}|{target.name}|prediction"] = prediction


@dataclasses.dataclass(frozen=True)
class Baselines(LinearProbe):
    """The same probe on inputs that need no checkpoint: once a data set, whatever was trained on it."""

    inputs: tuple[str, ...] = BASELINES

    def __post_init__(self):
        super().__post_init__()
        if self.keys:
            raise ValueError(f"inputs {self.keys} need a checkpoint; choose from {', '.join(BASELINES)}.")

    @property
    def name(self) -> str:
        """As of the probe, under a name of its own."""
        return super().name.replace("linear_probe", "baselines", 1)


def baseline_features(
    name: str, signals_mv: Float[np.ndarray, "n l t"], *, rate_hz: float
) -> Float[np.ndarray, "n d"]:
    """The named features of every ECG; NaN marks what could not be measured in a record."""
    from ecgjax.signals import features

    function = {"hand_features": features.hand_features, "spectral_features": features.spectral_features}[
        name
    ]
    measured = [function(signal, rate_hz) for signal in signals_mv]
    names = list(measured[0])
    return np.array([[values[name] for name in names] for values in measured])


def _filled(x: Float[np.ndarray, "n d"], train: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "n d"]:
    """NaN replaced by the median of the feature over the train split, or 0 where it was never measured there."""
    if np.all(np.isfinite(x)):
        return x
    measured = np.isfinite(train).any(axis=0)
    median = np.zeros(train.shape[1])
    median[measured] = np.nanmedian(train[:, measured], axis=0)
    return np.where(np.isfinite(x), x, median)


def _unfit(kind: str, label: np.ndarray, val_label: np.ndarray) -> str:
    """Why no probe can be fitted; empty where one can."""
    for split, values in (("train", label), ("val", val_label)):
        known = values[~np.isnan(values)]
        if len(known) < 2:
            return f"{len(known)} labels in the {split} split"
        if split == "train" and len(np.unique(known)) < 2:
            return f"all {len(known)} train labels are {known[0]:g}"
    return ""


def _unscored(kind: str, truth: np.ndarray) -> str:
    known = truth[~np.isnan(truth)]
    if not len(known):
        return "no labels in the test split"
    return f"all {len(known)} test labels are {known[0]:g}"
