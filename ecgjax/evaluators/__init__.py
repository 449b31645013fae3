"""Floor 3: questions put to a checkpoint."""

from collections.abc import Callable, Mapping

from ecgjax.evaluators.base import Evaluator
from ecgjax.evaluators.classes import Classes
from ecgjax.evaluators.grad_cam import GradCam
from ecgjax.evaluators.linear_probe import Baselines, LinearProbe
from ecgjax.evaluators.localisation import Localisation
from ecgjax.evaluators.predictions import Predictions
from ecgjax.evaluators.reconstruction import Reconstruction
from ecgjax.evaluators.retrieval import Retrieval

EVALUATORS: Mapping[str, Callable[..., Evaluator]] = {
    "baselines": Baselines,
    "classes": Classes,
    "grad_cam": GradCam,
    "linear_probe": LinearProbe,
    "localisation": Localisation,
    "predictions": Predictions,
    "reconstruction": Reconstruction,
    "retrieval": Retrieval,
}
"""Evaluators by the name that a config gives."""
