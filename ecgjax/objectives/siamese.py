"""One modality against itself: two views of each example drawn together (SimCLR, CLOCS, Barlow Twins)."""

import abc
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.augment.views import Augmentation, Views, choose_views, two_views, view_ecg
from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Aux, Batch, Predictions, Tree
from ecgjax.core.spec import InputSpec
from ecgjax.losses.contrastive import share_within
from ecgjax.losses.noncontrastive import barlow_twins, spread
from ecgjax.models.heads import MlpHead, ProjectionHead
from ecgjax.models.towers import Arm, Tower
from ecgjax.objectives.contrasts import check_tile, contrast, ranks
from ecgjax.objectives.encoders import encoder_factory, head_dtype, head_norm_group
from ecgjax.objectives.similarity import (
    Rule,
    check_rule,
    check_threshold,
    same_subject,
    similar_subjects,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Siamese(abc.ABC):
    """Two views through one network; what is made of the two outputs is the method's.

    The first view is always augmented by `views`, the second one with probability `view_rate`. The encoder reads the
    whole record of config.data.crop samples, or `window` samples of it: each view cuts its own from a random start.
    With `pairs="halves"` (CLOCS, arXiv 2005.13249) the views are the record's two consecutive halves. Predictions are
    means over the windows or halves of a record. Views are the task, so evaluation draws them as well.
    """

    spec: InputSpec
    crop: int
    modality: Literal["ecg", "cmr"]
    encoder: Mapping[str, Any]
    views: Views
    view_rate: float = 1.0
    pairs: Literal["views", "halves"] = "views"
    window: int | None = None
    tile: ClassVar[int | None] = None  # For methods that have logits to cut.

    def __post_init__(self):
        if not 0 <= self.view_rate <= 1:
            raise ValueError(f"config.objective.view_rate is {self.view_rate}; it must lie between 0 and 1.")
        self._check_length()
        jax.eval_shape(self.init, jax.random.key(0))
        self._augmentation  # noqa: B018  Its own checks.

    @property
    def frozen_paths(self) -> tuple[str, ...]:
        """Everything is trained."""
        return ()

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws the network under its modality's name; batch statistics are `extra`."""
        params, stats = self._network.init(key)
        return {self.modality: params}, {self.modality: stats}

    @abc.abstractmethod
    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """The method's loss on two views; metrics: one view found by the other, and the projections' spread."""

    def predict(self, params: Tree, extra: Tree, batch: Batch) -> Predictions:
        """Embedding, projection, and tokens or map; of several windows the mean embedding and projection."""
        m, parts = self.modality, self._parts(batch[self.modality])
        outs = [self._network.apply(params[m], extra[m], part)[0] for part in parts]
        if len(outs) == 1:
            wanted = ("embedding", "projection", "tokens", "map")
            return {f"{m}/{name}": outs[0][name] for name in wanted if name in outs[0]}
        return {
            f"{m}/{name}": jnp.mean(jnp.stack([out[name] for out in outs]), axis=0)
            for name in ("embedding", "projection")
        }

    def after_update(self, params: Tree, extra: Tree) -> Tree:
        """Nothing follows the parameters; batch statistics moved in the forward pass."""
        del params
        return extra

    def _views(self, key, x):
        preset, rate = self._augmentation, self.view_rate
        if self.pairs == "views":
            length = self.window if self.modality == "ecg" else None
            return two_views(key, x, preset=preset, rate=rate, length=length)
        key0, key1 = jax.random.split(key)
        first, second = self._parts(x)
        return view_ecg(key0, first, preset=preset), view_ecg(key1, second, preset=preset, rate=rate)

    def _parts(self, x):
        """Consecutive stretches of a record, each of the length that the encoder reads."""
        if self.modality == "cmr":
            return [x]
        return [
            x[..., start : start + self._length]
            for start in range(0, x.shape[-1] - self._length + 1, self._length)
        ]

    def _online(self, params, extra, views, *, train, key):
        """Both views one after the other, so that batch statistics are those of a view."""
        m, stats, outs = self.modality, extra[self.modality], []
        for i, x in enumerate(views):
            out, stats = self._network.apply(params[m], stats, x, train=train, key=jax.random.fold_in(key, i))
            outs.append(out)
        return outs, {**extra, m: stats}

    def _metrics(self, z0, z1):
        return {"top1": share_within(ranks(z0, z1, tile=self.tile), k=1), "spread": spread(z0)}

    @abc.abstractmethod
    def _module(self, encoder: nnx.Module, rngs: nnx.Rngs) -> nnx.Module:
        """The encoder with the heads of the method."""

    @functools.cached_property
    def _augmentation(self) -> Augmentation:
        path = "config.objective.views"
        return choose_views(self.views, self.modality, self.spec, path, length=self._length)

    @functools.cached_property
    def _network(self) -> Functional:
        return Functional(lambda rngs: self._module(self._encoder(rngs), rngs))

    @functools.cached_property
    def _encoder(self):
        return encoder_factory(
            self.encoder, self.modality, self.spec, self._length, "config.objective.encoder"
        )

    @property
    def _length(self) -> int:
        """Samples that an ECG encoder reads."""
        if self.pairs == "halves":
            return self.crop // 2
        return self.crop if self.window is None else self.window

    def _check_length(self):
        if self.modality != "ecg" and (self.pairs == "halves" or self.window is not None):
            raise ValueError(
                "config.objective: pairs=halves and window are for ECGs, not for modality cmr; leave them out."
            )
        if self.pairs == "halves" and self.window is not None:
            raise ValueError(
                f"config.objective.window is {self.window}, but pairs=halves takes halves of the record; leave one out."
            )
        patch = self.encoder.get("patch")
        patch = patch if isinstance(patch, int) and patch > 0 else 1
        if self.pairs == "halves" and self.crop % (2 * patch):
            raise ValueError(
                f"config.data.crop is {self.crop}, whose halves are the views; take a multiple of {2 * patch}, "
                f"twice config.objective.encoder.patch."
            )
        if self.window is not None and not (0 < self.window <= self.crop and self.window % patch == 0):
            raise ValueError(
                f"config.objective.window is {self.window}; it must be a multiple of config.objective.encoder.patch "
                f"= {patch} of at most config.data.crop = {self.crop}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared(Siamese):
    """What compares the two projections of one network."""

    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """The method's loss on the projections; metrics: one view found by the other, and their spread."""
        embedded, extra = self.embed(params, extra, batch, key, train=train)
        value, metrics = self.compare(params, embedded, batch, key, train=train)
        return value, Aux(metrics, extra)

    def embed(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Tree, Tree]:
        """The projections of both views; moved statistics."""
        key_views, key_network = jax.random.split(key)
        views = self._views(key_views, batch[self.modality])
        outs, extra = self._online(params, extra, views, train=train, key=key_network)
        return tuple(out["projection"] for out in outs), extra

    def compare(
        self, params: Tree, embedded: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Loss and metrics of what `embed` made of the whole batch."""
        del params, key
        return self._compare(*embedded, batch, train=train), self._metrics(*embedded)

    @abc.abstractmethod
    def _compare(self, z0, z1, batch, *, train):
        """The loss on both projections."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimClr(Compared):
    """Contrastive learning against the rest of the batch, by NT-Xent over all 2b views or by InfoNCE across them.

    `supcon` is NT-Xent whose positives are the views of similar subjects too (SupCon, arXiv 2004.11362): who is similar
    is for `similarity` and `threshold` to say, as in CrossModal. Validation uses NT-Xent, as CrossModal does InfoNCE.

    `hidden` is the width between the head's two layers, by default that of the embedding. Recordings of one subject
    are not each other's negatives. `tile` is for batches whose logits do not fit, as in CrossModal; NT-Xent has four
    times the logits of InfoNCE.
    """

    hidden: int | None = None
    projection: int = 128
    temperature: float = 0.1
    contrast: Literal["nt_xent", "info_nce", "supcon"] = "nt_xent"
    labels: Sequence[Mapping[str, Any]] = ()
    similarity: Rule = "data"
    threshold: float = 0.9
    tile: int | None = None

    def __post_init__(self):
        check_tile(self.tile)
        check_threshold(self.threshold)
        if self.contrast == "supcon":
            check_rule(self.similarity, self.labels)
            if self.tile is not None:
                raise ValueError(
                    f"config.objective.tile is {self.tile}, but supcon is computed on whole logits; set it to None."
                )
        if self.temperature <= 0:
            raise ValueError(f"config.objective.temperature is {self.temperature}; it must be above 0.")
        super().__post_init__()

    def _module(self, encoder, rngs):
        hidden = encoder.width if self.hidden is None else self.hidden
        sizes = {"width_in": encoder.width, "hidden": hidden, "width": self.projection}
        head = ProjectionHead(**sizes, dtype=head_dtype(self.encoder), rngs=rngs)
        return Tower(encoder=encoder, head=head)

    def _compare(self, z0, z1, batch, *, train):
        name, pairs = self.contrast, same_subject(batch)
        if name == "supcon" and train:
            options = {"rule": self.similarity, "threshold": self.threshold, "contrast": name}
            pairs = similar_subjects(batch, self.labels, **options)
        elif name == "supcon":
            name = "nt_xent"
        return contrast(name, z0, z1, pairs=pairs, tile=self.tile, temperature=self.temperature)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BarlowTwins(Compared):
    """The correlation between the features of both views becomes the identity (arXiv 2103.03230).

    Sums are averaged over the batch; `divisor` divides them by a fixed number instead, as the released code does by the
    configured batch size also where the last batch is smaller.
    """

    hidden: int = 8192
    projection: int = 8192
    off_diagonal: float = 5e-3
    divisor: int | None = None

    def _module(self, encoder, rngs):
        sizes = {"width_in": encoder.width, "hidden": self.hidden, "width": self.projection}
        norm_group = head_norm_group(self.encoder)
        head = MlpHead(**sizes, norm_group=norm_group, dtype=head_dtype(self.encoder), rngs=rngs)
        return Arm(encoder=encoder, head=head)

    def _compare(self, z0, z1, batch, *, train):
        del batch, train
        return barlow_twins(z0, z1, off_diagonal=self.off_diagonal, batch_size=self.divisor)
