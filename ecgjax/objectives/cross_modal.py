"""Multimodal contrastive learning (MMCL): ECG and CMR of one subject drawn together (arXiv 2308.05764, stage 2)."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.augment.image import roi
from ecgjax.augment.views import Augmentation, Views, choose_views, view_ecg, view_image
from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Aux, Batch, Predictions, Tree
from ecgjax.core.spec import InputSpec
from ecgjax.losses.contrastive import share_within
from ecgjax.losses.matrix import draw_positives, k_positive
from ecgjax.models.heads import ProjectionHead
from ecgjax.models.towers import Tower
from ecgjax.objectives.contrasts import check_tile, contrast, ranks
from ecgjax.objectives.encoders import encoder_factory, head_dtype
from ecgjax.objectives.online_classifier import OnlineClassifier, online_classifier
from ecgjax.objectives.similarity import (
    Rule,
    check_rule,
    check_threshold,
    same_subject,
    similar_subjects,
)

_MODALITIES = ("ecg", "cmr")
_BY_SIMILARITY = ("supervised_contrastive", "remove_false_negatives", "k_positive")


@dataclasses.dataclass(frozen=True)
class CrossModal:
    """A contrastive loss between the projections of both towers.

    `balance` weights the direction CMR -> ECG against ECG -> CMR (InfoNCE only; the published run used 0.75). The
    views of both modalities are drawn independently; with 1 - `view_rate` an input stays as it is. Pairs of one
    subject, such as repeat visits, are not each other's negatives.

    `cmr_roi` cuts top, left and size, as fractions, out of every image and brings it back to full size, before
    augmentation and in evaluation alike; the published run cut (0.21, 0.325, 0.375) out of whole slices. None
    suits data that were prepared as a grid around the heart.

    The contrasts `supervised_contrastive`, `remove_false_negatives` and `k_positive` ask which subjects are alike:
    those whose `similarity` exceeds `threshold`, and always recordings of one subject. It is read from the file
    config.data.similarity, or is the cosine of the labels. `positives` counts those of `k_positive`, itself
    included. Validation uses InfoNCE for these three, as the reference does.

    The contrast `sigmoid` learns its scale and bias, which start where SigLIP's do (arXiv 2303.15343); `temperature`
    is for the others.

    `tile` is for batches whose logits do not fit: a device then holds those of its examples against so many others
    at a time, or against what one device has where that is less, and computes them again in the backward pass.
    Values stay the same. Whole logits are faster and take about 3 x 4 bytes x batch x examples a device: set it where
    that is a real share of the memory, from about 1000 examples on each of 256 devices.

    `freeze` names towers whose encoder stays as it is: no gradient, no update, no weight decay, and it is applied
    as in evaluation, so that batch statistics stand still too. In the reference they move, and its flag for the
    ECG encoder is never read. Heads are always trained.

    `online` holds the fields of an OnlineClassifier, whose loss is added and reaches nothing but itself.
    """

    spec: InputSpec
    crop: int
    ecg: Mapping[str, Any]
    cmr: Mapping[str, Any]
    labels: Sequence[Mapping[str, Any]] = ()
    hidden: int = 512
    projection: int = 128
    contrast: Literal[
        "info_nce",
        "nt_xent",
        "sigmoid",
        "supervised_contrastive",
        "remove_false_negatives",
        "k_positive",
    ] = "info_nce"
    temperature: float = 0.1
    balance: float = 0.5
    similarity: Rule = "data"
    threshold: float = 0.9
    positives: int = 6
    positives_among: Literal["positives", "count"] = "positives"
    tile: int | None = None
    ecg_views: Views = "default"
    cmr_views: Views = "reference"
    view_rate: float = 1.0
    cmr_roi: tuple[float, float, float] | None = None
    freeze: Sequence[str] = ()
    online: Mapping[str, Any] | None = None

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"config.objective.temperature is {self.temperature}; it must be above 0.")
        if not 0 <= self.balance <= 1:
            raise ValueError(f"config.objective.balance is {self.balance}; it must lie between 0 and 1.")
        check_threshold(self.threshold)
        if self.positives < 2:
            raise ValueError(f"config.objective.positives is {self.positives}; it must be at least 2.")
        if self.contrast in _BY_SIMILARITY:
            check_rule(self.similarity, self.labels)
        check_tile(self.tile)
        if self.tile is not None and self.contrast == "k_positive":
            raise ValueError(
                f"config.objective.tile is {self.tile}, but k_positive draws among all the columns of a row, which no "
                f"tile holds; set it to None, or choose another config.objective.contrast."
            )
        if unknown := [m for m in self.freeze if m not in _MODALITIES]:
            raise ValueError(f"config.objective.freeze: unknown {unknown}; choose from ecg, cmr.")
        jax.eval_shape(self.init, jax.random.key(0))
        self._views  # noqa: B018  Their own checks.
        if self.cmr_roi is not None:
            image = jax.ShapeDtypeStruct((self.spec.cmr.height, self.spec.cmr.width, 1), "float32")
            try:
                jax.eval_shape(functools.partial(roi, box=self.cmr_roi), image)
            except ValueError as error:
                raise ValueError(f"config.objective.cmr_roi: {error}") from None

    @property
    def frozen_paths(self) -> tuple[str, ...]:
        """The encoders of `freeze`; heads are trained."""
        return tuple(f"^{m}/encoder/" for m in self.freeze)

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws towers under `ecg/` and `cmr/`, the classifier under `online/`; batch statistics are `extra`.

        What the contrast itself learns is under `loss/`.
        """
        drawn = {m: self._towers[m].init(jax.random.fold_in(key, i)) for i, m in enumerate(_MODALITIES)}
        params = {m: params for m, (params, _) in drawn.items()}
        if self._classifier is not None:
            width = len(params[self._classifier.modality]["head"]["fc1"]["kernel"])
            params["online"] = self._classifier.draw(jax.random.fold_in(key, 2), width=width)
        if self.contrast == "sigmoid":
            params["loss"] = {"log_scale": jnp.array(math.log(10), float), "bias": jnp.array(-10, float)}
        return params, {m: stats for m, (_, stats) in drawn.items()}

    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """The contrast; metrics are retrieval within the batch and ln(batch), the loss of knowing nothing.

        With an online classifier the value is the sum of `contrastive` and `online`, which stand among the metrics.
        """
        embedded, moved = self.embed(params, extra, batch, key, train=train)
        value, metrics = self.compare(params, embedded, batch, key, train=train)
        return value, Aux(metrics, moved)

    def embed(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Tree, Tree]:
        """Projections of both modalities, and the embedding that the classifier reads; moved statistics."""
        inputs = self._inputs(batch)
        views = inputs
        if train:
            key_ecg, key_cmr, key = jax.random.split(key, 3)
            views = {
                "ecg": view_ecg(key_ecg, inputs["ecg"], preset=self._views["ecg"], rate=self.view_rate),
                "cmr": view_image(key_cmr, inputs["cmr"], preset=self._views["cmr"], rate=self.view_rate),
            }
        out, moved = self._apply(params, extra, views, train=train, key=key)
        embedded = {m: out[m]["projection"] for m in _MODALITIES}
        if self._classifier is not None:
            m = self._classifier.modality
            plain = self._apply(params, extra, {m: inputs[m]}, train=False, key=None)[0] if train else out
            embedded["online"] = jax.lax.stop_gradient(plain[m]["embedding"])
        return embedded, moved

    def compare(
        self, params: Tree, embedded: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Loss and metrics of what `embed` made of the whole batch."""
        z_cmr, z_ecg = embedded["cmr"], embedded["ecg"]
        draw = jax.random.fold_in(jax.random.split(key, 3)[2], 2)  # Of none of the draws of `embed`.
        value = self._contrast(params, z_cmr, z_ecg, batch, draw, train=train)
        found = ranks(z_cmr, z_ecg, tile=self.tile)
        metrics = {
            "top1": share_within(found, k=1),
            "top5": share_within(found, k=5),
            "ln_batch": jnp.asarray(math.log(len(z_ecg))),
        }
        if self._classifier is not None:
            online, scores = self._classifier.loss(params["online"], embedded["online"], batch["label"])
            metrics |= {"contrastive": value, "online": online, **scores}
            value = value + online
        return value, metrics

    def predict(self, params: Tree, extra: Tree, batch: Batch) -> Predictions:
        """Embedding, projection and local projections of every modality that the batch holds.

        `ecg/input` and `cmr/input` are what the encoders read, so that maps can be laid over it.
        """
        views = self._inputs(batch)
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

    def _inputs(self, batch: Batch) -> dict[str, Array]:
        """What the batch holds of both modalities, the image cut to its region of interest."""
        inputs = {m: batch[m] for m in _MODALITIES if m in batch}
        if self.cmr_roi is not None and "cmr" in inputs:
            inputs["cmr"] = roi(inputs["cmr"], box=self.cmr_roi)
        return inputs

    def _apply(self, params, extra, views, *, train, key):
        out, moved = {}, dict(extra)
        for i, m in enumerate(_MODALITIES):
            if m not in views:
                continue
            tower, live = params[m], train and m not in self.freeze
            if m in self.freeze:
                tower = {**tower, "encoder": jax.lax.stop_gradient(tower["encoder"])}
            tower_key = jax.random.fold_in(key, i) if live else None
            out[m], moved[m] = self._towers[m].apply(tower, extra[m], views[m], train=live, key=tower_key)
        return out, moved

    def _contrast(self, params, z_cmr, z_ecg, batch, key, *, train):
        name, pairs = self.contrast, same_subject(batch)
        if name in _BY_SIMILARITY and not train:
            name = "info_nce"
        if name in _BY_SIMILARITY:
            options = {"rule": self.similarity, "threshold": self.threshold, "contrast": name}
            pairs = similar_subjects(batch, self.labels, **options)
        settings = params["loss"] if name == "sigmoid" else {"temperature": self.temperature}
        if name == "k_positive":
            mask = draw_positives(key, pairs.matrix(), k=self.positives, among=self.positives_among)
            released = len(z_cmr) * (self.positives - 1) if self.positives_among == "count" else None
            return k_positive(z_cmr, z_ecg, mask=mask, divisor=released, **settings)
        if name == "info_nce":
            settings = {**settings, "balance": self.balance}
        return contrast(name, z_cmr, z_ecg, pairs=pairs, tile=self.tile, **settings)

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
    def _towers(self) -> dict[str, Functional]:
        return {m: Functional(self._tower(m)) for m in _MODALITIES}

    def _tower(self, modality):
        section = getattr(self, modality)
        encoder = encoder_factory(section, modality, self.spec, self.crop, f"config.objective.{modality}")

        def make(rngs: nnx.Rngs) -> nnx.Module:
            body = encoder(rngs)
            sizes = {"width_in": body.width, "hidden": self.hidden, "width": self.projection}
            head = ProjectionHead(**sizes, dtype=head_dtype(section), rngs=rngs)
            return Tower(encoder=body, head=head)

        return make
