"""Fine-tuning and linear probing on labels (arXiv 2308.05764, stage 3)."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ecgjax.augment.mixing import Mixing, mix, mix_targets
from ecgjax.augment.presets import EcgStrength, ImageStrength
from ecgjax.augment.views import view_ecg, view_image
from ecgjax.core import config as configs
from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Aux, Batch, Predictions, Tree
from ecgjax.core.spec import InputSpec
from ecgjax.losses.supervised import batch_accuracy, batch_auroc, batch_pearson, cross_entropy, masked_mse
from ecgjax.models.classifier import Classifier
from ecgjax.models.mae import block_masking, kept_tokens, random_masking
from ecgjax.models.vit import patch_columns, patch_rows
from ecgjax.objectives.encoders import encoder_factory, with_variant
from ecgjax.objectives.labels import Columns, columns

_PREDICTION_MASK_SEED = 0
"""`mask_at_evaluation` hides the same tokens of every example at every checkpoint."""


@dataclasses.dataclass(frozen=True)
class Finetune:
    """One classification or several regressions from one modality, the encoder trained along or frozen.

    `targets` names label columns, () is all of them and two numbers are the range [lower, upper). One condition
    makes two classes, several are one-hot classes; phenotypes are standardised by the train split. Class weights,
    smoothing, mixing, views (a preset, or its fields) and masks act in training only. `mask_ratio` hides random
    tokens, `lead_mask` and `time_mask` whole leads and times. Mixed batches smooth their targets as any other.

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
    mode: Literal["full", "probe"] = "full"
    views: str | Mapping[str, float] = "finetune"
    class_weights: tuple[float, ...] = ()
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
    head_deviation: float = 0.02

    def __post_init__(self):
        self._check()
        jax.eval_shape(self.init, jax.random.key(0))

    @property
    def frozen_paths(self) -> tuple[str, ...]:
        """A probe trains the head alone."""
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
        key_view, key_mix, key_mask, key_model = jax.random.split(key, 4)
        share = jnp.ones((), x.dtype)
        if train:
            view = view_ecg if m == "ecg" else view_image
            x = view(key_view, x, preset=self._views, path="config.objective.views")
            x, share = mix(key_mix, x, self._mixing)
        keep = self._keep(key_mask, len(x)) if train or self.mask_at_evaluation else None
        out, stats = self._model.apply(params[m], extra[m], x, keep=keep, train=train, key=key_model)
        label = batch["label"][:, self._columns.index]
        score = self._classify if self.task == "classification" else self._regress
        value, metrics = score(out["logits"], label, share, train=train)
        return value, Aux(metrics, {**extra, m: stats})

    def predict(self, params: Tree, extra: Tree, batch: Batch) -> Predictions:
        """Embedding; `logits`, of softmax or phenotypes in their own unit; `prediction`, one value a label column.

        The prediction of a condition is its probability. Encoders of images add these, and the `grad_cam` of every
        output.
        """
        m, x = self.modality, batch[self.modality]
        keep = None
        if self.mask_at_evaluation and self._masked:
            # One draw for all rows, so that no prediction depends on the neighbours.
            keep = jnp.repeat(self._keep(jax.random.key(_PREDICTION_MASK_SEED), 1), len(x), axis=0)
        out, _ = self._model.apply(params[m], extra[m], x, keep=keep, explain=True)
        logits = out["logits"] * self._columns.std + self._columns.mean if self._regresses else out["logits"]
        prediction = logits if self._regresses else jax.nn.softmax(logits)[:, -len(self._columns.index) :]
        names = {"embedding": "embedding", "grad_cam": "grad_cam", "image": "image", "images": "image"}
        encoded = {f"{m}/{name}": out[key] for key, name in names.items() if key in out}
        return {**encoded, "logits": logits, "prediction": prediction}

    def after_update(self, params: Tree, extra: Tree) -> Tree:
        """Nothing follows the parameters."""
        del params
        return extra

    def _classify(self, logits, label, share, *, train):
        classes = _classes(label)
        metrics = {"accuracy": batch_accuracy(logits, classes)}
        if logits.shape[1] == 2:
            metrics["auroc"] = batch_auroc(logits[:, 1] - logits[:, 0], classes)
        if not train:
            return cross_entropy(logits, classes), metrics
        options = {"class_weights": self.class_weights or None, "smoothing": self.smoothing}
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

    def _keep(self, key: PRNGKeyArray, batch: int) -> Int[Array, "b k"] | None:
        """Indices of the visible tokens; None where all are."""
        if not self._masked:
            return None
        rows, grid_columns = self._grid
        if self.mask_ratio:
            return random_masking(
                key, batch=batch, tokens=rows * grid_columns, mask_ratio=self.mask_ratio
            ).keep
        return block_masking(
            key,
            batch=batch,
            rows=rows,
            columns=grid_columns,
            lead_ratio=self.lead_mask,
            time_ratio=self.time_mask,
        )

    @functools.cached_property
    def _model(self) -> Functional:
        factory = encoder_factory(
            self.encoder, self.modality, self.spec, self.crop, "config.objective.encoder"
        )
        # Readout and loss are in float32 whatever the encoder computes in, or wider where it does.
        dtype = jnp.promote_types(self.encoder.get("dtype", "float32"), jnp.float32).name

        def make(rngs: nnx.Rngs) -> nnx.Module:
            options = {"mode": self.mode, "norm_twice": self.norm_twice, "dtype": dtype, "rngs": rngs}
            outputs = len(self._columns.index)
            if not self._regresses and outputs == 1:
                outputs = 2
            return Classifier(
                encoder=factory(rngs), outputs=outputs, head_deviation=self.head_deviation, **options
            )

        return Functional(make)

    @functools.cached_property
    def _columns(self) -> Columns:
        return columns(self.labels, self.targets, "config.objective.targets")

    @property
    def _mixing(self) -> Mixing:
        return Mixing(self.mixup, self.cutmix, self.mix_probability, self.switch_probability)

    @property
    def _views(self) -> str | EcgStrength | ImageStrength:
        """A preset's name, or the strengths that a config gives one by one."""
        if isinstance(self.views, str):
            return self.views
        strength = EcgStrength if self.modality == "ecg" else ImageStrength
        return configs.call(strength, self.views, "config.objective.views")

    @property
    def _regresses(self) -> bool:
        return self.task == "regression"

    @property
    def _masked(self) -> bool:
        return bool(self.mask_ratio or self.lead_mask or self.time_mask)

    @property
    def _grid(self) -> tuple[int, int]:
        """Tokens along leads and along time."""
        section = with_variant(self.encoder, "config.objective.encoder")
        rows = patch_rows(len(self.spec.ecg.leads), section.get("patch_leads", 1))
        return rows, patch_columns(self.crop, section["patch"])

    def _check(self) -> None:
        path = "config.objective"
        wanted = "regression" if self._regresses else "binary"
        names = [self.labels[i]["name"] for i in self._columns.index]
        strange = [name for name, kind in zip(names, self._columns.kinds, strict=True) if kind != wanted]
        if strange:
            raise ValueError(
                f"{path}.targets: {strange} are not {wanted}, as task {self.task} needs; name others."
            )
        classes = max(len(names), 2)
        if self._regresses and (self.mixup or self.cutmix or self.class_weights or self.smoothing):
            raise ValueError(
                f"{path}: mixup, cutmix, class_weights and smoothing are for classes; leave them out where task is "
                f"regression."
            )
        if self.class_weights and len(self.class_weights) != classes:
            raise ValueError(
                f"{path}.class_weights has {len(self.class_weights)} weights for {classes} classes; give one each."
            )
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"{path}.smoothing is {self.smoothing}; it must lie in [0, 1).")
        if self.mask_ratio and (self.lead_mask or self.time_mask):
            raise ValueError(
                f"{path}: mask_ratio hides random tokens, lead_mask and time_mask blocks; set one kind to 0."
            )
        if self._masked and (self.modality != "ecg" or self.encoder.get("name") != "vit"):
            raise ValueError(f"{path}: only the tokens of a vit can be masked; set the masks to 0.")
        if self._masked:
            rows, grid_columns = self._grid
            for name, tokens in (
                ("mask_ratio", rows * grid_columns),
                ("lead_mask", rows),
                ("time_mask", grid_columns),
            ):
                _check_share(f"{path}.{name}", getattr(self, name), tokens)
        self._mixing, self._views  # noqa: B018  Their own checks.


def _classes(label: Float[Array, "b m"]) -> Int[Array, "b"]:
    """The class of every row: 0 or 1 of one condition, the largest of a one-hot row; -1 where a label is missing."""
    known = ~jnp.isnan(label).any(1)
    found = label[:, 0] if label.shape[1] == 1 else jnp.argmax(label, axis=1)
    return jnp.where(known, found, -1).astype(jnp.int32)


def _check_share(path: str, share: float, tokens: int) -> None:
    try:
        kept_tokens(tokens, share)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
