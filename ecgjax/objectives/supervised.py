"""Supervised training of one modality on every label: the bound that self-supervision is held against."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.augment.views import view_ecg, view_image
from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Aux, Batch, Predictions, Tree
from ecgjax.core.spec import InputSpec
from ecgjax.losses.supervised import masked_bce, masked_mse
from ecgjax.models.heads import LinearHead
from ecgjax.models.towers import Tower
from ecgjax.objectives.encoders import encoder_factory


@dataclasses.dataclass(frozen=True)
class Supervised:
    """Squared error on standardised phenotypes plus cross-entropy on conditions, missing labels left out.

    `labels` are the label columns as the manifest describes them: name, kind, and over the train split mean and
    standard deviation.
    """

    spec: InputSpec
    crop: int
    labels: Sequence[Mapping[str, Any]]
    modality: Literal["ecg", "cmr"]
    encoder: Mapping[str, Any]
    views: str = "weak"

    def __post_init__(self):
        if not self.labels:
            raise ValueError("config.objective.name is supervised, but the data set has no targets.")
        jax.eval_shape(self.init, jax.random.key(0))

    @property
    def frozen_paths(self) -> tuple[str, ...]:
        """Everything is trained."""
        return ()

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws the tower under its modality's name."""
        params, stats = self._tower.init(key)
        return {self.modality: params}, {self.modality: stats}

    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """Mean of the two losses over the label columns of each kind."""
        x, m = batch[self.modality], self.modality
        key_view, key_tower = jax.random.split(key)
        if train:
            view = view_ecg if m == "ecg" else view_image
            x = view(key_view, x, preset=self.views)
        out, stats = self._tower.apply(params[m], extra[m], x, train=train, key=key_tower)
        logits, label = out["projection"], batch["label"]
        metrics = {}
        if self._regression.size:
            standardised = (label - self._mean) / self._std
            metrics["mse"] = masked_mse(logits[:, self._regression], standardised[:, self._regression])
        if self._binary.size:
            metrics["bce"] = masked_bce(logits[:, self._binary], label[:, self._binary])
        value = sum(metrics.values(), jnp.zeros(()))
        return value, Aux(metrics, {**extra, m: stats})

    def predict(self, params: Tree, extra: Tree, batch: Batch) -> Predictions:
        """Embedding, and `logits`: phenotypes in their own unit, conditions as log odds."""
        m = self.modality
        out, _ = self._tower.apply(params[m], extra[m], batch[m])
        logits = out["projection"] * self._std + self._mean
        return {f"{m}/embedding": out["embedding"], "logits": logits}

    def after_update(self, params: Tree, extra: Tree) -> Tree:
        """Nothing follows the parameters."""
        del params
        return extra

    @functools.cached_property
    def _tower(self) -> Functional:
        factory = encoder_factory(
            self.encoder, self.modality, self.spec, self.crop, "config.objective.encoder"
        )

        def make(rngs: nnx.Rngs) -> nnx.Module:
            body = factory(rngs)
            head = LinearHead(width_in=body.width, outputs=len(self.labels), rngs=rngs)
            return Tower(encoder=body, head=head)

        return Functional(make)

    @functools.cached_property
    def _regression(self) -> np.ndarray:
        return np.array([i for i, t in enumerate(self.labels) if t["kind"] == "regression"], np.int32)

    @functools.cached_property
    def _binary(self) -> np.ndarray:
        return np.array([i for i, t in enumerate(self.labels) if t["kind"] == "binary"], np.int32)

    @functools.cached_property
    def _mean(self) -> Float[np.ndarray, "m"]:
        return self._statistic("mean", 0.0)

    @functools.cached_property
    def _std(self) -> Float[np.ndarray, "m"]:
        return np.maximum(self._statistic("std", 1.0), 1e-6)

    def _statistic(self, name: str, for_binary: float) -> np.ndarray:
        values = [t[name] if t["kind"] == "regression" else for_binary for t in self.labels]
        return np.array(values, np.float32)
