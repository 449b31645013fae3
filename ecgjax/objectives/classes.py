"""Exclusive classes among label columns: which one a row is of, what each weighs, and how well each is found."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

WeightRule = Literal["inverse", "sqrt_inverse"]
_EXPONENT = {"inverse": -1.0, "sqrt_inverse": -0.5}


def true_classes(label: Float[Array, "b m"]) -> Int[Array, "b"]:
    """The class of every row: 0 or 1 of one condition, the largest of a one-hot row.

    -1 where a label is missing, or where a row is of none of several classes.
    """
    known = ~jnp.isnan(label).any(1)
    if label.shape[1] == 1:
        found = label[:, 0]
    else:
        found, known = jnp.argmax(label, axis=1), known & (label.max(1) > 0)
    return jnp.where(known, found, -1).astype(jnp.int32)


def class_weights(labels: Sequence[Mapping[str, Any]], rule: WeightRule, path: str) -> tuple[float, ...]:
    """One weight a class, in inverse proportion to how frequent it is among the examples trained on, or to the root.

    `labels` are the columns of the classes; one column makes two. A column's `prevalence` is that of the whole train
    split, and `kept` the share of it that config.data.thin leaves. Over the examples the mean weight is 1.
    """
    if unknown := [label["name"] for label in labels if label.get("prevalence") is None]:
        raise ValueError(f"{path} is {rule!r}, but no train example has the labels {unknown}; name others.")
    held = np.array([label["prevalence"] * label.get("kept", 1.0) for label in labels], np.float64)
    names = [label["name"] for label in labels]
    if len(labels) == 1:
        held = np.array([1 - labels[0]["prevalence"], held[0]])
        names = [f"not {names[0]}", names[0]]
    if not held.all():
        raise ValueError(
            f"{path} is {rule!r}, but no train example is {names[int(np.argmin(held))]!r}; give a weight a class, or "
            f"leave that class out of config.objective.targets."
        )
    share = held / held.sum()
    weight = share ** _EXPONENT[rule]
    return tuple((weight / np.sum(share * weight)).tolist())


def class_shares(
    logits: Float[Array, "b c"], target: Int[Array, "b"], names: Sequence[str]
) -> dict[str, Float[Array, ""]]:
    """Per class the shares of rows that are of it, taken for it, and both: over batches of one size they average.

    Rows without a class (negative) count in the size alone. `class_summary` makes scores of the averages.
    """
    decided = jnp.where(target >= 0, jnp.argmax(logits, axis=1), -1)
    shares = {}
    for i, name in enumerate(names):
        true, taken = target == i, decided == i
        for kind, rows in (("true", true), ("taken", taken), ("found", true & taken)):
            shares[f"{kind}_{name}"] = jnp.mean(rows.astype(jnp.float32))
    return shares


def class_summary(means: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Replaces averaged `class_shares` by `macro_f1`, `balanced_accuracy` and each class's `sensitivity`.

    Those of the whole validation, however it was cut into batches; means of batches would count classes that a batch
    happens to lack. Only classes that the truth holds count; NaN where it holds none.
    """
    true, taken, found = (
        np.array([means[f"{kind}_{name}"] for name in names]) for kind in ("true", "taken", "found")
    )
    present = true > 0
    sensitivity = np.divide(found, true, out=np.full(len(names), np.nan), where=present)
    f1 = np.divide(2 * found, true + taken, out=np.full(len(names), np.nan), where=present)
    overall = {
        "macro_f1": float(np.mean(f1[present])) if present.any() else float("nan"),
        "balanced_accuracy": float(np.mean(sensitivity[present])) if present.any() else float("nan"),
    }
    shares = {f"{kind}_{name}" for kind in ("true", "taken", "found") for name in names}
    rest = {name: value for name, value in means.items() if name not in shares}
    by_class = {f"sensitivity_{name}": float(value) for name, value in zip(names, sensitivity, strict=True)}
    return {**rest, **overall, **by_class}
