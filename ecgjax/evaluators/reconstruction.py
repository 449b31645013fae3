"""How well a masked autoencoder fills in what it did not see, against filling in a constant."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from ecgjax.evaluators.base import Predict, Results, Splits

_KEYS = ("reconstruction", "reconstruction_mask")


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Error on the hidden samples of a split, in the units of the model's input; the mask is the checkpoint's own.

    Keeps the first `examples` ECGs in mV with their masks, to be drawn. Trivial answers beside the model's: zero,
    and the mean of the visible samples of the lead.
    """

    examples: int = 8
    split: str = "test"

    def __post_init__(self):
        if self.examples < 1:
            raise ValueError(f"examples is {self.examples}; it must be at least 1.")

    @property
    def keys(self) -> tuple[str, ...]:
        """What a masked objective predicts."""
        return _KEYS

    @property
    def name(self) -> str:
        """The directory of its results."""
        return "reconstruction"

    def run(self, predict: Predict, splits: Splits) -> Results:
        """Scores the first row of every example; further crops are passed over."""
        offset, scale = splits.to_mv(self.split)
        identity = splits.examples(self.split)
        seen = np.zeros(len(identity.record), np.bool_)
        sums = {"model": 0.0, "zero": 0.0, "visible_mean": 0.0}
        hidden_samples, correlations, kept = 0, [], {}
        for batch in splits.batches(self.split):
            index = np.where(np.asarray(batch["mask"]), np.asarray(batch["index"]), -1)
            first = [i for i, n in enumerate(index) if n >= 0 and not seen[n] and n not in index[:i]]
            if not first:
                continue
            index = index[first]
            seen[index] = True
            out = predict(batch)
            if missing := [key for key in _KEYS if key not in out]:
                raise ValueError(
                    f"the checkpoint predicts no {missing[0]}; only a masked objective reconstructs."
                )
            truth = np.asarray(batch["ecg"])[first].astype(np.float64)
            filled, hidden = (np.asarray(out[key])[first] for key in _KEYS)
            filled, hidden = filled.astype(np.float64), hidden > 0.5
            if not np.all(np.isfinite(filled)):
                raise ValueError(
                    "the reconstruction holds values that are not finite; the checkpoint is broken."
                )
            answers = {
                "model": filled,
                "zero": np.zeros_like(truth),
                "visible_mean": _visible_mean(truth, hidden),
            }
            for name, answer in answers.items():
                sums[name] += np.sum((answer - truth)[hidden] ** 2)
            hidden_samples += hidden.sum()
            correlations.append(_correlation(truth, filled, hidden))
            for row in np.flatnonzero(index < self.examples):
                n = index[row]
                signals = np.stack([truth[row], filled[row]]) * scale[n][:, None] + offset[n][:, None]
                kept[n] = (*signals.astype(np.float32), hidden[row])
        scalars = {f"mse_hidden/{name}": float(total / hidden_samples) for name, total in sums.items()}
        known = np.concatenate(correlations)
        known = known[~np.isnan(known)]
        scalars["ncc_hidden/model"] = float(known.mean()) if len(known) else float("nan")
        scalars |= {"n": float(seen.sum()), "rate_hz": splits.rate_hz}
        first_n = sorted(kept)
        columns = [np.stack(column) for column in zip(*(kept[n] for n in first_n), strict=True)]
        arrays = dict(zip(("original_mv", "reconstruction_mv", "hidden"), columns, strict=True))
        arrays |= {"subject": identity.subject[first_n], "record": identity.record[first_n]}
        return Results(self.name, (), scalars, arrays, dataclasses.asdict(self))


def _visible_mean(
    truth: Float[np.ndarray, "b l t"], hidden: Bool[np.ndarray, "b l t"]
) -> Float[np.ndarray, "b l t"]:
    """The mean of what is visible of each lead; zero where a lead is hidden whole."""
    visible = ~hidden
    mean = np.sum(truth * visible, axis=2) / np.maximum(visible.sum(axis=2), 1)
    return np.broadcast_to(mean[:, :, None], truth.shape)


def _correlation(
    truth: Float[np.ndarray, "b l t"], filled: Float[np.ndarray, "b l t"], hidden: Bool[np.ndarray, "b l t"]
) -> Float[np.ndarray, " n"]:
    """Normalised cross-correlation over the hidden samples of each lead.

    A constant answer has 0, a constant truth NaN.
    """
    count = np.maximum(hidden.sum(axis=2, keepdims=True), 1)
    a, b = (
        np.where(hidden, x - np.sum(x * hidden, axis=2, keepdims=True) / count, 0) for x in (truth, filled)
    )
    truth_norm, norm = (np.sqrt(np.sum(x**2, axis=2)) for x in (a, b))
    correlation = np.sum(a * b, axis=2) / np.maximum(truth_norm * norm, 1e-12)
    return np.where(truth_norm > 1e-6, correlation, np.nan).ravel()
