"""A linear classifier that learns beside an encoder and shows what its embedding holds, without steering it."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.core import config as configs
from ecgjax.core.interfaces import Tree
from ecgjax.core.precision import wide

_GAIN = 0.02
_INITS = {
    "kaiming": nnx.initializers.variance_scaling(2.0, "fan_in", "normal"),
    "normal": nnx.initializers.normal(0.001),
    "xavier": nnx.initializers.variance_scaling(_GAIN**2, "fan_avg", "normal"),
    "orthogonal": nnx.initializers.orthogonal(_GAIN),
}


def online_classifier(
    section: Mapping[str, Any] | None, labels: Sequence[Mapping[str, Any]]
) -> "OnlineClassifier | None":
    """Builds the classifier that a config's `online` section describes; None where it is unset."""
    if section is None:
        return None
    return configs.call(OnlineClassifier, section, "config.objective.online", labels=labels)


@dataclasses.dataclass(frozen=True)
class OnlineClassifier:
    """Two-class cross-entropy of one binary label on the embedding of one modality.

    `class_weights` weigh examples without and with the condition. The embedding must come from the input as it is,
    by running statistics: the reference lets its classifier move the statistics of the image encoder, ours
    leaves no trace there. `labels` are the label columns as the manifest describes them.
    """

    labels: Sequence[Mapping[str, Any]]
    modality: Literal["ecg", "cmr"]
    label: str
    class_weights: tuple[float, float] = (0.55, 10.0)
    init: Literal["kaiming", "normal", "xavier", "orthogonal"] = "kaiming"

    def __post_init__(self):
        binary = [target["name"] for target in self.labels if target["kind"] == "binary"]
        if self.label not in binary:
            raise ValueError(
                f"config.objective.online.label: {self.label!r} is no binary label of the data set; "
                f"choose from {', '.join(binary) or 'none: it has none'}."
            )
        if len(self.class_weights) != 2 or min(self.class_weights) <= 0:
            raise ValueError(
                f"config.objective.online.class_weights is {tuple(self.class_weights)}; give two above 0."
            )

    def draw(self, key: PRNGKeyArray, *, width: int) -> Tree:
        """Kernel by `init`, bias 0, for embeddings of `width`."""
        return {"kernel": _INITS[self.init](key, (width, 2)), "bias": jnp.zeros(2)}

    def loss(
        self, params: Tree, embedding: Float[Array, "b d"], label: Float[Array, "b m"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Weighted mean over the labels that are there, and accuracy and F1 of the condition within the batch.

        All are 0 where the batch has no label. The gradient ends at the parameters of the classifier.
        """
        embedding = wide(jax.lax.stop_gradient(embedding))
        logits = embedding @ params["kernel"] + params["bias"]
        column = label[:, self._column]
        known = ~jnp.isnan(column)
        truth = jnp.where(known, column, 0) > 0.5  # NaN must not enter the arithmetic.
        surprise = -jnp.where(truth, *jax.nn.log_softmax(logits, axis=1).T[::-1])
        weight = known * jnp.where(truth, self.class_weights[1], self.class_weights[0])
        value = jnp.sum(weight * surprise) / jnp.maximum(jnp.sum(weight), min(self.class_weights))
        said = logits[:, 1] > logits[:, 0]
        hits, right = jnp.sum(known & truth & said), jnp.sum(known & (truth == said))
        both = jnp.sum(known & truth) + jnp.sum(known & said)
        return value, {
            "online_accuracy": right / jnp.maximum(jnp.sum(known), 1),
            "online_f1": 2 * hits / jnp.maximum(both, 1),
        }

    @functools.cached_property
    def _column(self) -> int:
        return [target["name"] for target in self.labels].index(self.label)
