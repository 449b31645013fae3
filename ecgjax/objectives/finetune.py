"""Fine-tuning and linear probing on labels (arXiv 2308.05764, stage 3)."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.augment.mixing import Mixing, mix, mix_targets
from ecgjax.augment.views import Augmentation, Views, choose_views, view_ecg, view_image
from ecgjax.core import trees
from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Aux, Batch, Predictions, Tree
from ecgjax.core.spec import InputSpec
from ecgjax.losses.supervised import batch_accuracy, batch_auroc, batch_pearson, cross_entropy, masked_mse
from ecgjax.models.classifier import Classifier
from ecgjax.models.vit import patch_columns, patch_rows
from ecgjax.objectives.classes import WeightRule, class_shares, class_summary, class_weights, true_classes
from ecgjax.objectives.encoders import all_but_last_block, encoder_factory, with_variant
from ecgjax.objectives.labels import Columns, columns
from ecgjax.objectives.rhythm import WIDTH, rhythm_features
from ecgjax.objectives.token_mask import TokenMask

_PREDICTION_MASK_SEED = 0
"""`mask_at_evaluation` hides the same tokens of every example at every checkpoint."""


@dataclasses.dataclass(frozen=True)
class Finetune:
    """One classification or several regressions from one modality, the encoder trained along or frozen.

    `targets` names label columns, () is all of them and two numbers are the range [lower, upper). One condition
    makes two classes, several are one-hot classes; phenotypes are standardised by the train split. Class weights,
    smoothing, mixing, views and masks act in training only. `mask_ratio` hides random tokens, `lead_mask` and
    `time_mask` whole leads and times. Mixed batches smooth their targets as any other.

    `class_weights` are numbers, or follow from how frequent the classes are among the examples trained on: "inverse"
    or, gentler, "sqrt_inverse". `focal` is the gamma of the focal loss. `rhythm` reads out the times between beats
    beside the embedding, where an example is one beat; `hidden` units, 0 for none, let the readout combine the two.
    Rows of none of several classes are left out, as those without labels are. `mode` "partial" trains the encoder's
    last block and the head.

    The released code differs by what stands here as options: `norm_twice`, `missing="counted"` and
    `mask_at_evaluation`. Its token permutation, which changes nothing but the order of attention maps, is left out.
    """

    spec: InputSpec
    crop: int
    labels: Sequence[Mapping[str, Any]]
    encoder: Mapping[str, Any]
    task: Literal["classification", "regression"]
    targets: tuple[str | int, ...] = ()
    modality: Literal["ecg", "cmr"] = "ecg"
    mode: Literal["full", "partial", "probe"] = "full"
    views: Views = "finetune"
    class_weights: tuple[float, ...] | WeightRule = ()
    focal: float = 0.0
    smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5
    missing: Literal["excluded", "counted"] = "excluded"
    mask_ratio: float = 0.0
    lead_mask: float = 0.0
    time_mask: float = 0.0
    mask_at_evaluation: bool = False
    norm_twice: bool = False
    rhythm: bool = False
    hidden: int = 0
    head_deviation: float = 0.02

    def __post_init__(self):
        self._check()
        jax.eval_shape(self.init, jax.random.key(0))

    @functools.cached_property
    def frozen_paths(self) -> tuple[str, ...]:
        """A probe trains the head alone, and what is partial the encoder's last block as well."""
        if self.mode == "partial":
            return (all_but_last_block(self._encoder, f"{self.modality}/encoder"),)
        return (rf"^{self.modality}/encoder/",) if self.mode == "probe" else ()

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws encoder and head under the modality's name."""
        params, stats = self._model.init(key)
        return {self.modality: params}, {self.modality: stats}

    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """Cross-entropy with accuracy and AUROC, or squared error with the mean correlation, within the batch."""
        m, x = self.modality, batch[self.modality]
        params = self._stopped(params)
        key_view, key_mix, key_mask, key_model = jax.random.split(key, 4)
        share = jnp.ones((), x.dtype)
        if train:
            view = view_ecg if m == "ecg" else view_image
            x = view(key_view, x, preset=self._views)
            x, share = mix(key_mix, x, self._mixing)
        hidden = self._mask is not None and (train or self.mask_at_evaluation)
        keep = self._mask.keep(key_mask, len(x)) if hidden else None
        beside = self._beside(batch)
        out, stats = self._model.apply(
            params[m], extra[m], x, keep=keep, **beside, train=train, key=key_model
        )
        label = batch["label"][:, self._columns.index]
        score = self._classify if self.task == "classification" else self._regress
        value, metrics = score(out["logits"], label, share, train=train)
        return value, Aux(metrics, {**extra, m: stats})

    def predict(self, params: Tree, extra: Tree, batch: Batch) -> Predictions:
        """Embedding; `logits`, of softmax or phenotypes in their own unit; `prediction`, one value a label column.

        The prediction of a condition is its probability. Encoders of images add these, and the `grad_cam` of every
        output; those that read several leads also the `maps` of each, of which their embedding is the mean.
        """
        m, x = self.modality, batch[self.modality]
        keep = None
        if self.mask_at_evaluation and self._mask is not None:
            # One draw for all rows, so that no prediction depends on the neighbours.
            keep = jnp.repeat(self._mask.keep(jax.random.key(_PREDICTION_MASK_SEED), 1), len(x), axis=0)
        out, _ = self._model.apply(params[m], extra[m], x, keep=keep, **self._beside(batch), explain=True)
        logits = out["logits"] * self._columns.std + self._columns.mean if self._regresses else out["logits"]
        prediction = logits if self._regresses else jax.nn.softmax(logits)[:, -len(self._columns.index) :]
        names = {name: name for name in ("embedding", "grad_cam", "maps", "image")} | {"images": "image"}
        encoded = {f"{m}/{name}": out[key] for key, name in names.items() if key in out}
        return {**encoded, "logits": logits, "prediction": prediction}

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """Scores of several classes over the whole validation; see `class_summary`."""
        return class_summary(means, self._names) if self._several else dict(means)

    def after_update(self, params: Tree, extra: Tree) -> Tree:
        """Nothing follows the parameters."""
        del params
        return extra

    def _classify(self, logits, label, share, *, train):
        classes = true_classes(label)
        metrics = {"accuracy": batch_accuracy(logits, classes)}
        if logits.shape[1] == 2:
            metrics["auroc"] = batch_auroc(logits[:, 1] - logits[:, 0], classes)
        if not train:
            shares = class_shares(logits, classes, self._names) if self._several else {}
            return cross_entropy(logits, classes), {**metrics, **shares}
        options = {"class_weights": self._weights or None, "smoothing": self.smoothing, "focal": self.focal}
        if not self._mixing.active:
            return cross_entropy(logits, classes, **options), metrics
        one_hot = jax.nn.one_hot(classes, logits.shape[1], dtype=logits.dtype)
        target = mix_targets(jnp.where((classes >= 0)[:, None], one_hot, jnp.nan), share)
        return cross_entropy(logits, target, **options), metrics

    def _regress(self, prediction, label, share, *, train):
        del share, train
        target = (label - self._columns.mean) / self._columns.std
        metrics = {"pcc": batch_pearson(prediction, target)}
        return masked_mse(prediction, target, missing=self.missing), metrics

    def _stopped(self, params: Tree) -> Tree:
        """What `partial` leaves as it is has no gradient to compute; a probe's encoder is stopped as a whole."""
        if self.mode != "partial":
            return params
        (frozen,) = self.frozen_paths
        return trees.map_named(
            lambda name, leaf: jax.lax.stop_gradient(leaf) if re.search(frozen, name) else leaf, params
        )

    def _beside(self, batch: Batch) -> dict[str, Array]:
        """What the model reads beside the signal."""
        if self.modality != "ecg":
            return {}
        beside = {"beats": batch["beats"]} if "beats" in batch else {}
        return {**beside, "rhythm": rhythm_features(batch["rr"])} if self.rhythm else beside

    @functools.cached_property
    def _encoder(self) -> Callable[[nnx.Rngs], nnx.Module]:
        return encoder_factory(self.encoder, self.modality, self.spec, self.crop, "config.objective.encoder")

    @functools.cached_property
    def _model(self) -> Functional:
        # Readout and loss are in float32 whatever the encoder computes in, or wider where it does.
        dtype = jnp.promote_types(self.encoder.get("dtype", "float32"), jnp.float32).name

        def make(rngs: nnx.Rngs) -> nnx.Module:
            options = {"mode": self.mode, "norm_twice": self.norm_twice, "dtype": dtype, "rngs": rngs}
            options |= {"rhythm_width": WIDTH if self.rhythm else 0, "hidden": self.hidden}
            outputs = len(self._columns.index)
            if not self._regresses and outputs == 1:
                outputs = 2
            return Classifier(
                encoder=self._encoder(rngs), outputs=outputs, head_deviation=self.head_deviation, **options
            )

        return Functional(make)

    @functools.cached_property
    def _columns(self) -> Columns:
        return columns(self.labels, self.targets, "config.objective.targets")

    @functools.cached_property
    def _weights(self) -> tuple[float, ...]:
        if not isinstance(self.class_weights, str):
            return self.class_weights
        chosen = [self.labels[i] for i in self._columns.index]
        return class_weights(chosen, self.class_weights, "config.objective.class_weights")

    @property
    def _names(self) -> list[str]:
        return [self.labels[i]["name"] for i in self._columns.index]

    @property
    def _several(self) -> bool:
        """Whether there are several columns of classes."""
        return not self._regresses and len(self._columns.index) > 1

    @property
    def _mixing(self) -> Mixing:
        return Mixing(self.mixup, self.cutmix, self.mix_probability, self.switch_probability)

    @functools.cached_property
    def _views(self) -> Augmentation:
        return choose_views(self.views, self.modality, self.spec, "config.objective.views", length=self.crop)

    @property
    def _regresses(self) -> bool:
        return self.task == "regression"

    @functools.cached_property
    def _mask(self) -> TokenMask | None:
        """None where all tokens are visible."""
        masks = (self.mask_ratio, self.lead_mask, self.time_mask)
        if not any(masks):
            return None
        if self.modality != "ecg" or self.encoder.get("name") != "vit":
            raise ValueError("config.objective: only the tokens of a vit can be masked; set the masks to 0.")
        section = with_variant(self.encoder, "config.objective.encoder")
        rows = patch_rows(len(self.spec.ecg.leads), section.get("patch_leads", 1))
        return TokenMask(*masks, rows, patch_columns(self.crop, section["patch"]))

    def _check(self) -> None:
        path = "config.objective"
        wanted = "regression" if self._regresses else "binary"
        names = self._names
        strange = [name for name, kind in zip(names, self._columns.kinds, strict=True) if kind != wanted]
        if strange:
            raise ValueError(
                f"{path}.targets: {strange} are not {wanted}, as task {self.task} needs; name others."
            )
        classes = max(len(names), 2)
        if self._regresses and (
            self.mixup or self.cutmix or self.class_weights or self.smoothing or self.focal
        ):
            raise ValueError(
                f"{path}: mixup, cutmix, class_weights, focal and smoothing are for classes; leave them out where task "
                f"is regression."
            )
        if self._weights and len(self._weights) != classes:
            raise ValueError(
                f"{path}.class_weights has {len(self._weights)} weights for {classes} classes; give one each."
            )
        if self.hidden < 0 or (self.hidden and self.mode == "probe"):
            raise ValueError(
                f"{path}.hidden is {self.hidden} and mode {self.mode!r}; a probe is linear: set hidden to 0, or "
                f"mode to another."
            )
        if not self.focal >= 0:
            raise ValueError(f"{path}.focal is {self.focal}; it must be at least 0.")
        if self.rhythm and (
            self.modality != "ecg" or self.spec.ecg is None or self.spec.ecg.window != "beat"
        ):
            raise ValueError(
                f"{path}.rhythm is True, but the examples are no single beats; set it to False, or prepare data with "
                f"config.ecg.window 'beat'."
            )
        if self.rhythm and self._mixing.active:
            raise ValueError(
                f"{path}: times between beats cannot be mixed; set mixup, cutmix or rhythm to 0."
            )
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"{path}.smoothing is {self.smoothing}; it must lie in [0, 1).")
        self._mixing, self._views, self._mask  # noqa: B018  Their own checks.
