"""One modality against itself: two views of each example drawn together (SimCLR, CLOCS, Barlow Twins)."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.augment.views import view_ecg, view_image
from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Aux, Batch, Predictions, Tree
from ecgjax.core.spec import InputSpec
from ecgjax.losses.contrastive import info_nce, nt_xent, top_k_accuracy
from ecgjax.losses.noncontrastive import barlow_twins, spread
from ecgjax.models.heads import MlpHead, ProjectionHead
from ecgjax.models.towers import Arm, Tower
from ecgjax.objectives.encoders import encoder_factory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Siamese:
    """Two views through one network; what is made of the two outputs is the method's.

    The first view is always augmented by the preset `views`, the second one with probability `view_rate`. With
    `pairs="halves"` (CLOCS, arXiv 2005.13249) the views are the two consecutive halves of an ECG, so that
    config.data.crop is twice what the encoder reads. Views are the task, so evaluation draws them as well.
    """

    spec: InputSpec
    crop: int
    modality: Literal["ecg", "cmr"]
    encoder: Mapping[str, Any]
    views: str
    view_rate: float = 1.0
    pairs: Literal["views", "halves"] = "views"

    def __post_init__(self):
        if self.pairs == "halves":
            self._check_halves()
        jax.eval_shape(self.init, jax.random.key(0))

    @property
    def frozen_paths(self) -> tuple[str, ...]:
        """Everything is trained."""
        return ()

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws the network under its modality's name; batch statistics are `extra`."""
        params, stats = self._network.init(key)
        return {self.modality: params}, {self.modality: stats}

    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """The method's loss on the projections; metrics: one view found by the other, and their spread."""
        key_views, key_network = jax.random.split(key)
        views = self._views(key_views, batch[self.modality])
        outs, extra = self._online(params, extra, views, train=train, key=key_network)
        value = self._compare(outs[0]["projection"], outs[1]["projection"], batch)
        return value, Aux(self._metrics(outs), extra)

    def predict(self, params: Tree, extra: Tree, batch: Batch) -> Predictions:
        """Embedding, projection, and tokens or map; of two halves the mean embedding and projection."""
        m, x = self.modality, batch[self.modality]
        if self.pairs == "views":
            out, _ = self._network.apply(params[m], extra[m], x)
            wanted = ("embedding", "projection", "tokens", "map")
            return {f"{m}/{name}": out[name] for name in wanted if name in out}
        outs = [self._network.apply(params[m], extra[m], half)[0] for half in _halves(x)]
        return {f"{m}/{name}": (outs[0][name] + outs[1][name]) / 2 for name in ("embedding", "projection")}

    def after_update(self, params: Tree, extra: Tree) -> Tree:
        """Nothing follows the parameters; batch statistics moved in the forward pass."""
        del params
        return extra

    def _views(self, key, x):
        first, second = _halves(x) if self.pairs == "halves" else (x, x)
        view = view_ecg if self.modality == "ecg" else view_image
        key0, key1 = jax.random.split(key)
        return view(key0, first, preset=self.views), view(
            key1, second, preset=self.views, rate=self.view_rate
        )

    def _online(self, params, extra, views, *, train, key):
        """Both views one after the other, so that batch statistics are those of a view."""
        m, stats, outs = self.modality, extra[self.modality], []
        for i, x in enumerate(views):
            out, stats = self._network.apply(params[m], stats, x, train=train, key=jax.random.fold_in(key, i))
            outs.append(out)
        return outs, {**extra, m: stats}

    def _metrics(self, outs):
        z0, z1 = (out["projection"] for out in outs)
        return {"top1": top_k_accuracy(z0, z1), "spread": spread(z0)}

    def _compare(self, z0, z1, batch):
        raise NotImplementedError(f"{type(self).__name__} compares no projections.")

    def _module(self, encoder: nnx.Module, rngs: nnx.Rngs) -> nnx.Module:
        raise NotImplementedError(f"{type(self).__name__} has no heads.")

    @functools.cached_property
    def _network(self) -> Functional:
        return Functional(lambda rngs: self._module(self._encoder(rngs), rngs))

    @functools.cached_property
    def _encoder(self):
        length = self.crop // 2 if self.pairs == "halves" else self.crop
        return encoder_factory(self.encoder, self.modality, self.spec, length, "config.objective.encoder")

    def _check_halves(self):
        if self.modality != "ecg":
            raise ValueError(
                f"config.objective.pairs is halves, which {self.modality.upper()} has not; choose views."
            )
        patch = self.encoder.get("patch")
        whole = 2 * patch if isinstance(patch, int) and patch > 0 else 2
        if self.crop % whole:
            raise ValueError(
                f"config.data.crop is {self.crop}, whose halves are the views; take a multiple of {whole}, twice "
                f"config.objective.encoder.patch."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimClr(Siamese):
    """Contrastive learning against the rest of the batch, by NT-Xent over all 2b views or by InfoNCE across them.

    `hidden` is the width between the head's two layers, by default that of the embedding. Recordings of one subject
    are not each other's negatives.
    """

    hidden: int | None = None
    projection: int = 128
    temperature: float = 0.1
    contrast: Literal["nt_xent", "info_nce"] = "nt_xent"

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"config.objective.temperature is {self.temperature}; it must be above 0.")
        super().__post_init__()

    def _module(self, encoder, rngs):
        hidden = encoder.width if self.hidden is None else self.hidden
        head = ProjectionHead(width_in=encoder.width, hidden=hidden, width=self.projection, rngs=rngs)
        return Tower(encoder=encoder, head=head)

    def _compare(self, z0, z1, batch):
        contrast = nt_xent if self.contrast == "nt_xent" else info_nce
        subject = batch["subject"]
        same = jnp.all(subject[:, None] == subject[None], axis=-1)
        return contrast(z0, z1, temperature=self.temperature, same_subject=same)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BarlowTwins(Siamese):
    """The correlation between the features of both views becomes the identity (arXiv 2103.03230).

    Sums are averaged over the batch; `divisor` divides them by a fixed number instead, as the released code does by the
    configured batch size also where the last batch is smaller.
    """

    hidden: int = 8192
    projection: int = 8192
    off_diagonal: float = 5e-3
    divisor: int | None = None

    def _module(self, encoder, rngs):
        head = MlpHead(width_in=encoder.width, hidden=self.hidden, width=self.projection, rngs=rngs)
        return Arm(encoder=encoder, head=head)

    def _compare(self, z0, z1, batch):
        return barlow_twins(z0, z1, off_diagonal=self.off_diagonal, batch_size=self.divisor)


def _halves(ecg: Float[Array, "b l t"]) -> tuple[Float[Array, "b l h"], Float[Array, "b l h"]]:
    """Two consecutive halves of each record."""
    half = ecg.shape[-1] // 2
    return ecg[..., :half], ecg[..., half:]
