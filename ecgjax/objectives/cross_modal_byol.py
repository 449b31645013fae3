"""BYOL between modalities: each one predicts what a slow copy of the other's network says of the same subject."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.augment.views import Augmentation, Views, choose_views, view_ecg, view_image
from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Aux, Batch, Predictions, Tree
from ecgjax.core.spec import InputSpec
from ecgjax.losses.contrastive import ranks, share_within
from ecgjax.losses.noncontrastive import simsiam, spread
from ecgjax.objectives.byol import byol_arm, target_arm
from ecgjax.objectives.encoders import encoder_factory, head_dtype, head_norm_group
from ecgjax.objectives.momentum import apply_target, check_momentum, draw_target, follow
from ecgjax.objectives.online_classifier import OnlineClassifier, online_classifier

_MODALITIES = ("ecg", "cmr")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossModalByol:
    """Mean of the two negative cosines ECG prediction - CMR target and CMR prediction - ECG target.

    What the reference's multimodal BYOL was meant to be; it cannot run as released. Every target keeps `momentum` of
    itself in an update. There are no negatives, so nothing is said of other subjects. `online` holds the fields of an
    OnlineClassifier, whose loss is added and reaches nothing but itself.
    """

    spec: InputSpec
    crop: int
    ecg: Mapping[str, Any]
    cmr: Mapping[str, Any]
    labels: Sequence[Mapping[str, Any]] = ()
    hidden: int = 4096
    projection: int = 256
    momentum: float = 0.99
    ecg_views: Views = "default"
    cmr_views: Views = "reference"
    view_rate: float = 1.0
    online: Mapping[str, Any] | None = None

    def __post_init__(self):
        check_momentum(self.momentum)
        jax.eval_shape(self.init, jax.random.key(0))
        self._views  # noqa: B018  Their own checks.

    @property
    def frozen_paths(self) -> tuple[str, ...]:
        """Everything is trained."""
        return ()

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws both online arms, under `ecg/` and `cmr/`; `extra` holds statistics, targets, number of updates."""
        drawn = {m: self._online[m].init(jax.random.fold_in(key, i)) for i, m in enumerate(_MODALITIES)}
        params, stats = ({m: pair[i] for m, pair in drawn.items()} for i in range(2))
        targets = {m: draw_target(params[m], stats[m]) for m in _MODALITIES}
        if self._classifier is not None:
            width = len(params[self._classifier.modality]["head"]["fc1"]["kernel"])
            params["online"] = self._classifier.draw(jax.random.fold_in(key, 2), width=width)
        return params, {**stats, "target": targets, "updates": jnp.zeros((), jnp.int32)}

    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """Mean negative cosine; metrics are retrieval within the batch, and how far the projections spread.

        With an online classifier the value is the sum of `cosine` and `online`, which stand among the metrics.
        """
        views = {m: batch[m] for m in _MODALITIES}
        if train:
            key_ecg, key_cmr, key = jax.random.split(key, 3)
            views["ecg"] = view_ecg(key_ecg, views["ecg"], preset=self._views["ecg"], rate=self.view_rate)
            views["cmr"] = view_image(key_cmr, views["cmr"], preset=self._views["cmr"], rate=self.view_rate)
        out, wanted, moved, targets = {}, {}, dict(extra), {}
        for i, m in enumerate(_MODALITIES):
            key_online, key_target = jax.random.split(jax.random.fold_in(key, i))
            out[m], moved[m] = self._online[m].apply(
                params[m], extra[m], views[m], train=train, key=key_online
            )
            (wanted[m],), targets[m] = apply_target(
                self._target[m],
                extra["target"][m],
                draw_target(params[m], extra[m]),
                [views[m]],
                updates=extra["updates"],
                train=train,
                key=key_target,
            )
        value = simsiam(
            *(out[m]["prediction"] for m in _MODALITIES), *(wanted[m]["projection"] for m in _MODALITIES)
        )
        z_ecg, z_cmr = (out[m]["projection"] for m in _MODALITIES)
        metrics = {
            "top1": share_within(ranks(z_cmr, z_ecg), k=1),
            "ecg_spread": spread(z_ecg),
            "cmr_spread": spread(z_cmr),
        }
        if self._classifier is not None:
            m = self._classifier.modality
            plain, _ = self._online[m].apply(params[m], extra[m], batch[m])
            online, scores = self._classifier.loss(params["online"], plain["embedding"], batch["label"])
            metrics |= {"cosine": value, "online": online, **scores}
            value = value + online
        return value, Aux(metrics, {**moved, "target": targets})

    def predict(self, params: Tree, extra: Tree, batch: Batch) -> Predictions:
        """Embedding and projection of every modality that the batch holds."""
        wanted = ("embedding", "projection", "tokens", "map")
        found = {}
        for m in _MODALITIES:
            if m in batch:
                out, _ = self._online[m].apply(params[m], extra[m], batch[m])
                found |= {f"{m}/{name}": out[name] for name in wanted if name in out}
        return found

    def after_update(self, params: Tree, extra: Tree) -> Tree:
        """Both targets follow their online arms."""
        targets = {m: follow(extra["target"][m], params[m], momentum=self.momentum) for m in _MODALITIES}
        return {**extra, "target": targets, "updates": extra["updates"] + 1}

    @functools.cached_property
    def _views(self) -> dict[str, Augmentation]:
        given = {"ecg": self.ecg_views, "cmr": self.cmr_views}
        return {
            m: choose_views(views, m, self.spec, f"config.objective.{m}_views", length=self.crop)
            for m, views in given.items()
        }

    @functools.cached_property
    def _classifier(self) -> OnlineClassifier | None:
        return online_classifier(self.online, self.labels)

    @functools.cached_property
    def _online(self) -> dict[str, Functional]:
        return {m: self._network(m, byol_arm) for m in _MODALITIES}

    @functools.cached_property
    def _target(self) -> dict[str, Functional]:
        return {m: self._network(m, target_arm) for m in _MODALITIES}

    def _network(self, modality, arm):
        section = getattr(self, modality)
        encoder = encoder_factory(section, modality, self.spec, self.crop, f"config.objective.{modality}")

        def make(rngs: nnx.Rngs) -> nnx.Module:
            sizes = {"hidden": self.hidden, "projection": self.projection}
            options = {"dtype": head_dtype(section), "norm_group": head_norm_group(section)}
            return arm(encoder(rngs), **sizes, **options, rngs=rngs)

        return Functional(make)
