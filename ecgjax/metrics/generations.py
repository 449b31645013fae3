"""What either release of the reference reports after fine-tuning, by its name for it."""

from collections.abc import Callable, Mapping
from typing import Literal

from ecgjax.metrics import classification, regression

_SETS: Mapping[str, Mapping[str, Mapping[str, Callable]]] = {
    "paper": {
        "binary": {
            "auroc": classification.auroc,
            "auprc": classification.auprc,
            "f1": classification.f1,
            "accuracy": classification.weighted_recall,
        },
        "regression": {"rmse": regression.rmse, "pcc": regression.pearson},
    },
    "head": {
        "binary": {
            "auroc": classification.auroc_macro,
            "auprc": classification.auprc_macro,
            "f1": classification.f1,
            "accuracy": classification.accuracy,
        },
        "regression": {
            "rmse": regression.rmse,
            "mae": regression.mae,
            "pcc": regression.pearson,
            "r2": regression.r2,
        },
    },
}


def by_generation(
    generation: str, kind: Literal["binary", "regression"]
) -> Mapping[str, Callable[..., float]]:
    """Metrics of one column, by the name under which a release reports them.

    `paper` is the code that made the published weights, `head` the newest one. They differ in
    `auprc`: of the positive class, or the mean over both. Scores of conditions are probabilities. Of several
    regression targets the releases report the mean (`regression.mean_over_targets`). Both keep checkpoints by AUROC; of
    regressions `paper` those of least RMSE, `head` those of largest PCC.
    """
    if generation not in _SETS:
        raise ValueError(f"unknown generation {generation!r}; choose from {', '.join(_SETS)}.")
    return _SETS[generation][kind]
