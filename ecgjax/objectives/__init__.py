"""Floor 2: what is trained."""

from collections.abc import Callable, Mapping

from ecgjax.objectives.cross_modal import CrossModal
from ecgjax.objectives.encoder import Encoder
from ecgjax.objectives.masked import Masked
from ecgjax.objectives.supervised import Supervised

OBJECTIVES: Mapping[str, Callable] = {"masked": Masked, "cross_modal": CrossModal, "supervised": Supervised}
"""Objectives by the name that a config gives."""

CONVERTED: Mapping[str, Callable] = {"encoder": Encoder}
"""Objectives that a converted checkpoint may hold and that nothing trains."""
