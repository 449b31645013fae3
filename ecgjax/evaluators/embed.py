"""Predictions of a split, in its order: padding dropped, the crops of an example averaged."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int

from ecgjax.evaluators.base import Batch, Predict, Splits


def embed(
    predict: Predict,
    splits: Splits,
    split: str,
    *,
    keys: Sequence[str],
    wanted: Int[np.ndarray, " k"] | None = None,
) -> dict[str, np.ndarray]:
    """Returns [n ...] float32 for every key; raises ValueError where an example has no row or a value is NaN.

    `wanted` are the positions of the only examples to predict, in the order of the result; None is all.
    """
    n = len(splits.examples(split).subject)
    needed = np.ones(n, np.bool_) if wanted is None else np.isin(np.arange(n), wanted)
    batches = splits.batches(split) if wanted is None else _only(splits.batches(split), needed)
    sums: dict[str, np.ndarray] = {}
    rows = np.zeros(n, np.int64)
    for batch in batches:
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
    if not rows[needed].all():
        raise ValueError(f"{np.sum(rows[needed] == 0)} of {n} examples of split {split} came in no batch.")
    chosen = np.arange(n) if wanted is None else wanted
    return {
        key: total[chosen] / rows[chosen].reshape(-1, *[1] * (total.ndim - 1)) for key, total in sums.items()
    }


def _only(batches: Iterable[Batch], needed: Bool[np.ndarray, " n"]) -> Iterator[Batch]:
    """Gathers the rows of needed examples into batches of the size that came; the last is padded."""
    held: dict[str, np.ndarray] | None = None
    size = 0
    for batch in batches:
        size = max(size, len(batch["mask"]))
        rows = np.asarray(batch["mask"]) & needed[np.asarray(batch["index"])]
        taken = {name: np.asarray(values)[rows] for name, values in batch.items()}
        held = taken if held is None else {name: np.concatenate([held[name], taken[name]]) for name in taken}
        while len(held["mask"]) >= size:
            yield {name: values[:size] for name, values in held.items()}
            held = {name: values[size:] for name, values in held.items()}
    if held is not None and len(held["mask"]):
        last = np.minimum(np.arange(size), len(held["mask"]) - 1)
        padded = {name: values[last] for name, values in held.items()}
        yield {**padded, "mask": np.arange(size) < len(held["mask"])}
