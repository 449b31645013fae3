"""Floor 2: what is trained."""

from collections.abc import Callable, Mapping

from ecgjax.objectives.byol import Byol
from ecgjax.objectives.cross_modal import CrossModal
from ecgjax.objectives.cross_modal_byol import CrossModalByol
from ecgjax.objectives.encoder import Encoder
from ecgjax.objectives.finetune import Finetune
from ecgjax.objectives.masked import Masked
from ecgjax.objectives.siamese import BarlowTwins, SimClr
from ecgjax.objectives.supervised import Supervised

OBJECTIVES: Mapping[str, Callable] = {
    "masked": Masked,
    "cross_modal": CrossModal,
    "cross_modal_byol": CrossModalByol,
    "simclr": SimClr,
    "byol": Byol,
    "barlow_twins": BarlowTwins,
    "supervised": Supervised,
    "finetune": Finetune,
}
"""Objectives by the name that a config gives."""

CONVERTED: Mapping[str, Callable] = {"encoder": Encoder}
"""Objectives that a converted checkpoint may hold and that nothing trains."""
