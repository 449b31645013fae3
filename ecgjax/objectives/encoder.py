"""Encoders alone, as published weights bring them: to evaluate, export and start from, not to train."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Aux, Batch, Predictions, Tree
from ecgjax.core.spec import InputSpec
from ecgjax.models.classifier import Classifier
from ecgjax.objectives.encoders import encoder_factory


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An ECG encoder, a CMR encoder, or both, without a loss.

    `outputs` above 0 adds the readout of a fine-tuned ECG encoder, of which `logits` are what its file computes:
    whatever its classes or units were.
    """

    spec: InputSpec
    crop: int
    ecg: Mapping[str, Any] | None = None
    cmr: Mapping[str, Any] | None = None
    outputs: int = 0
    mode: Literal["full", "probe"] = "full"
    norm_twice: bool = False

    def __post_init__(self):
        if self.outputs and self.ecg is None:
            raise ValueError("config.objective.outputs: a readout needs config.objective.ecg; set it to 0.")
        if self.ecg is None and self.cmr is None:
            raise ValueError("config.objective: neither ecg nor cmr names an encoder; give one.")
        jax.eval_shape(self.init, jax.random.key(0))

    @property
    def frozen_paths(self) -> tuple[str, ...]:
        """Nothing is trained."""
        return ("",)

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws every encoder as `<modality>/encoder`; batch statistics are `extra`."""
        params, extra = {}, {}
        for i, (m, tower) in enumerate(self._towers.items()):
            params[m], extra[m] = tower.init(jax.random.fold_in(key, i))
        return params, extra

    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """There is none: says what to do instead."""
        raise ValueError(
            "objective encoder has no loss: converted weights can be evaluated, exported, or initialised from "
            "(config.init_from.workdir of a run with another objective), not trained as they are."
        )

    def predict(self, params: Tree, extra: Tree, batch: Batch) -> Predictions:
        """Embedding, and tokens or map, of every modality that the batch holds; logits where there is a readout."""
        out = {}
        for m, tower in self._towers.items():
            if m in batch:
                made, _ = tower.apply(params[m], extra[m], batch[m])
                out |= {f"{m}/{name}": made[name] for name in ("embedding", "tokens", "map") if name in made}
                out |= {"logits": made["logits"]} if "logits" in made else {}
        return out

    def after_update(self, params: Tree, extra: Tree) -> Tree:
        """Nothing follows the parameters."""
        del params
        return extra

    @functools.cached_property
    def _towers(self) -> dict[str, Functional]:
        sections = {"ecg": self.ecg, "cmr": self.cmr}
        return {m: Functional(self._tower(m)) for m, section in sections.items() if section is not None}

    def _tower(self, modality):
        section = getattr(self, modality)
        factory = encoder_factory(section, modality, self.spec, self.crop, f"config.objective.{modality}")

        def make(rngs: nnx.Rngs) -> nnx.Module:
            if modality == "cmr" or not self.outputs:
                return Bare(encoder=factory(rngs))
            readout = {"outputs": self.outputs, "mode": self.mode, "norm_twice": self.norm_twice}
            return Classifier(encoder=factory(rngs), **readout, rngs=rngs)

        return make


class Bare(nnx.Module):
    """A tower without head: the encoder at the path where every other objective has it."""

    def __init__(self, *, encoder: nnx.Module):
        self.encoder = encoder

    def __call__(self, x: Float[Array, "b ..."]) -> dict[str, Float[Array, "..."]]:
        """Encodes as in evaluation."""
        return self.encoder(x, train=False)
