"""Multimodal contrastive learning (MMCL): ECG and CMR of one subject drawn together (arXiv 2308.05764, stage 2)."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.augment.views import view_ecg, view_image
from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Aux, Batch, Predictions, Tree
from ecgjax.core.spec import InputSpec
from ecgjax.losses.contrastive import info_nce, top_k_accuracy
from ecgjax.models.heads import ProjectionHead
from ecgjax.models.towers import Tower
from ecgjax.objectives.encoders import encoder_factory

_MODALITIES = ("ecg", "cmr")


@dataclasses.dataclass(frozen=True)
class CrossModal:
    """InfoNCE between the projections of both towers.

    `balance` weights the direction CMR -> ECG against ECG -> CMR (the published run used 0.75). The views of
    both modalities are drawn independently, by augmentation preset; with 1 - `view_rate` an input stays as it is.
    Pairs of one subject, such as repeat visits, are not each other's negatives.
    """

    spec: InputSpec
    crop: int
    ecg: Mapping[str, Any]
    cmr: Mapping[str, Any]
    hidden: int = 512
    projection: int = 128
    temperature: float = 0.1
    balance: float = 0.5
    ecg_views: str = "default"
    cmr_views: str = "reference"
    view_rate: float = 1.0

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"config.objective.temperature is {self.temperature}; it must be above 0.")
        if not 0 <= self.balance <= 1:
            raise ValueError(f"config.objective.balance is {self.balance}; it must lie between 0 and 1.")
        jax.eval_shape(self.init, jax.random.key(0))

    @property
    def frozen_paths(self) -> tuple[str, ...]:
        """Everything is trained."""
        return ()

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws both towers, under `ecg/` and `cmr/`; batch statistics are `extra`."""
        drawn = {m: self._towers[m].init(jax.random.fold_in(key, i)) for i, m in enumerate(_MODALITIES)}
        return {m: params for m, (params, _) in drawn.items()}, {m: stats for m, (_, stats) in drawn.items()}

    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """InfoNCE; metrics are retrieval within the batch and ln(batch), the loss of knowing nothing."""
        views = {m: batch[m] for m in _MODALITIES}
        if train:
            key_ecg, key_cmr, key = jax.random.split(key, 3)
            views["ecg"] = view_ecg(key_ecg, views["ecg"], preset=self.ecg_views, rate=self.view_rate)
            views["cmr"] = view_image(key_cmr, views["cmr"], preset=self.cmr_views, rate=self.view_rate)
        out, extra = self._apply(params, extra, views, train=train, key=key)
        z_cmr, z_ecg = out["cmr"]["projection"], out["ecg"]["projection"]
        subject = batch["subject"]
        same = jnp.all(subject[:, None] == subject[None], axis=-1)
        value = info_nce(z_cmr, z_ecg, temperature=self.temperature, balance=self.balance, same_subject=same)
        metrics = {
            "top1": top_k_accuracy(z_cmr, z_ecg, k=1),
            "top5": top_k_accuracy(z_cmr, z_ecg, k=5),
            "ln_batch": jnp.asarray(math.log(len(z_ecg))),
        }
        return value, Aux(metrics, extra)

    def predict(self, params: Tree, extra: Tree, batch: Batch) -> Predictions:
        """Embedding, projection and local projections of every modality that the batch holds.

        `ecg/input` and `cmr/input` are what the encoders read, so that maps can be laid over it.
        """
        views = {m: batch[m] for m in _MODALITIES if m in batch}
        out, _ = self._apply(params, extra, views, train=False, key=None)
        wanted = ("embedding", "projection", "tokens", "map")
        found = {f"{m}/{name}": out[m][name] for m in out for name in wanted if name in out[m]}
        for m, x in views.items():
            local, _ = self._towers[m].apply(params[m], extra[m], x, out[m], method="localise")
            found |= {f"{m}/input": x, **{f"{m}/{name}": value for name, value in local.items()}}
        return found

    def after_update(self, params: Tree, extra: Tree) -> Tree:
        """Nothing follows the parameters; batch statistics moved in the forward pass."""
        del params
        return extra

    def _apply(self, params, extra, views, *, train, key):
        out, moved = {}, dict(extra)
        for i, m in enumerate(_MODALITIES):
            if m in views:
                tower_key = None if key is None else jax.random.fold_in(key, i)
                out[m], moved[m] = self._towers[m].apply(
                    params[m], extra[m], views[m], train=train, key=tower_key
                )
        return out, moved

    @functools.cached_property
    def _towers(self) -> dict[str, Functional]:
        return {m: Functional(self._tower(m)) for m in _MODALITIES}

    def _tower(self, modality):
        section = getattr(self, modality)
        encoder = encoder_factory(section, modality, self.spec, self.crop, f"config.objective.{modality}")

        def make(rngs: nnx.Rngs) -> nnx.Module:
            body = encoder(rngs)
            head = ProjectionHead(width_in=body.width, hidden=self.hidden, width=self.projection, rngs=rngs)
            return Tower(encoder=body, head=head)

        return make
