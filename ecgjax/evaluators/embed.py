"""Predictions of a whole split, in its order: padding dropped, the crops of an example averaged."""

from collections.abc import Sequence

import numpy as np

from ecgjax.evaluators.base import Predict, Splits


def embed(predict: Predict, splits: Splits, split: str, *, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns [n ...] float32 for every key; raises ValueError where an example has no row or a value is NaN."""
    sums: dict[str, np.ndarray] = {}
    rows = np.zeros(len(splits.examples(split).subject), np.int64)
    for batch in splits.batches(split):
        real = np.asarray(batch["mask"])
        index = np.asarray(batch["index"])[real]
        np.add.at(rows, index, 1)
        out = predict(batch)
        for key in keys:
            if key not in out:
                raise ValueError(
                    f"the checkpoint predicts {', '.join(sorted(out)) or 'nothing'}, not {key!r}; "
                    "choose one of these as the evaluator's input."
                )
            values = np.asarray(out[key])[real].astype(np.float32)
            if not np.all(np.isfinite(values)):
                raise ValueError(
                    f"{key} of split {split} holds values that are not finite; the checkpoint is broken."
                )
            total = sums.setdefault(key, np.zeros((len(rows), *values.shape[1:]), np.float32))
            np.add.at(total, index, values)
    if not rows.all():
        raise ValueError(f"{np.sum(rows == 0)} of {len(rows)} examples of split {split} came in no batch.")
    return {key: total / rows.reshape(-1, *[1] * (total.ndim - 1)) for key, total in sums.items()}
