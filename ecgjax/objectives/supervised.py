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

from ecgjax.augment.views import Augmentation, Views, choose_views, view_ecg, view_image
from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Aux, Batch, Predictions, Tree
from ecgjax.core.spec import InputSpec
from ecgjax.losses.supervised import masked_bce, masked_mse
from ecgjax.models.classifier import Classifier
from ecgjax.objectives.encoders import encoder_factory
from ecgjax.objectives.labels import Columns, columns


@dataclasses.dataclass(frozen=True)
class Supervised:
    """Squared error on standardised phenotypes plus cross-entropy on conditions, missing labels left out.

    `labels` are the label columns as the manifest describes them; all of them are trained on.
    """

    spec: InputSpec
    crop: int
    labels: Sequence[Mapping[str, Any]]
    modality: Literal["ecg", "cmr"]
    encoder: Mapping[str, Any]
    views: Views = "weak"

    def __post_init__(self):
        jax.eval_shape(self.init, jax.random.key(0))
        self._views  # noqa: B018  Its own checks.

    @property
    def frozen_paths(self) -> tuple[str, ...]:
        """Everything is trained."""
        return ()

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws encoder and head under the modality's name."""
        params, stats = self._model.init(key)
        return {self.modality: params}, {self.modality: stats}

    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """Mean of the two losses over the label columns of each kind."""
        x, m = batch[self.modality], self.modality
        key_view, key_model = jax.random.split(key)
        if train:
            view = view_ecg if m == "ecg" else view_image
            x = view(key_view, x, preset=self._views)
        out, stats = self._model.apply(params[m], extra[m], x, train=train, key=key_model)
        logits, label = out["logits"], batch["label"]
        metrics = {}
        regression, binary = self._columns.of("regression"), self._columns.of("binary")
        if regression.size:
            standardised = (label - self._columns.mean) / self._columns.std
            metrics["mse"] = masked_mse(logits[:, regression], standardised[:, regression])
        if binary.size:
            metrics["bce"] = masked_bce(logits[:, binary], label[:, binary])
        value = sum(metrics.values(), jnp.zeros(()))
        return value, Aux(metrics, {**extra, m: stats})

    def predict(self, params: Tree, extra: Tree, batch: Batch) -> Predictions:
        """Embedding; `logits`, phenotypes in their unit and log odds; `prediction`, with probabilities instead."""
        m = self.modality
        out, _ = self._model.apply(params[m], extra[m], batch[m])
        logits = out["logits"] * self._columns.std + self._columns.mean
        binary = np.isin(np.arange(logits.shape[1]), self._columns.of("binary"))
        prediction = jnp.where(binary, jax.nn.sigmoid(logits), logits)
        return {f"{m}/embedding": out["embedding"], "logits": logits, "prediction": prediction}

    def after_update(self, params: Tree, extra: Tree) -> Tree:
        """Nothing follows the parameters."""
        del params
        return extra

    @functools.cached_property
    def _views(self) -> Augmentation:
        return choose_views(self.views, self.modality, self.spec, "config.objective.views", length=self.crop)

    @functools.cached_property
    def _model(self) -> Functional:
        factory = encoder_factory(
            self.encoder, self.modality, self.spec, self.crop, "config.objective.encoder"
        )

        def make(rngs: nnx.Rngs) -> nnx.Module:
            return Classifier(encoder=factory(rngs), outputs=len(self._columns.index), rngs=rngs)

        return Functional(make)

    @functools.cached_property
    def _columns(self) -> Columns:
        return columns(self.labels, (), "config.objective.targets")
