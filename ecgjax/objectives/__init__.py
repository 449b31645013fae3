"""Floor 2: what is trained."""

from collections.abc import Callable, Mapping

from ecgjax.objectives.cross_modal import CrossModal
from ecgjax.objectives.finetune import Finetune
from ecgjax.objectives.masked import Masked
from ecgjax.objectives.supervised import Supervised

OBJECTIVES: Mapping[str, Callable] = {
    "masked": Masked,
    "cross_modal": CrossModal,
    "supervised": Supervised,
    "finetune": Finetune,
}
"""Objectives by the name that a config gives."""
