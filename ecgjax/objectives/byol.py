"""BYOL: one arm predicts what a slowly moving copy of it makes of the other view (arXiv 2006.07733)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Aux, Batch, Tree
from ecgjax.losses.noncontrastive import byol
from ecgjax.models.heads import MlpHead
from ecgjax.models.towers import Arm
from ecgjax.objectives.encoders import head_dtype, head_norm_group
from ecgjax.objectives.momentum import apply_target, check_momentum, cosine_momentum, draw_target, follow
from ecgjax.objectives.siamese import Siamese


@dataclasses.dataclass(frozen=True, kw_only=True)
class Byol(Siamese):
    """Sum over both directions of -2 cosine between prediction and target projection.

    The target keeps `momentum` of itself in an update, rising to 1 by a cosine over `momentum_steps` updates, the
    length of the run.
    """

    hidden: int = 4096
    projection: int = 256
    momentum: float = 0.9996
    momentum_steps: int

    def __post_init__(self):
        check_momentum(self.momentum)
        if self.momentum_steps < 1:
            raise ValueError(
                f"config.objective.momentum_steps is {self.momentum_steps}; set it to config.steps."
            )
        super().__post_init__()

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws the online arm; `extra` holds its statistics, the target and the number of updates."""
        params, stats = super().init(key)
        m = self.modality
        target = {m: draw_target(params[m], stats[m])}
        return params, {**stats, "target": target, "updates": jnp.zeros((), jnp.int32)}

    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """BYOL's loss; `momentum` beside the metrics of the projections."""
        m = self.modality
        key_views, key_online, key_target = jax.random.split(key, 3)
        views = self._views(key_views, batch[m])
        outs, moved = self._online(params, extra, views, train=train, key=key_online)
        wanted, target = apply_target(
            self._target,
            extra["target"][m],
            draw_target(params[m], extra[m]),
            views,
            updates=extra["updates"],
            train=train,
            key=key_target,
        )
        value = byol(*(out["prediction"] for out in outs), *(out["projection"] for out in wanted))
        metrics = {**self._metrics(*(out["projection"] for out in outs)), "momentum": self._momentum(extra)}
        return value, Aux(metrics, {**moved, "target": {m: target}})

    def after_update(self, params: Tree, extra: Tree) -> Tree:
        """The target follows the online arm; the statistics of both moved in the forward pass."""
        m = self.modality
        target = follow(extra["target"][m], params[m], momentum=self._momentum(extra))
        return {**extra, "target": {m: target}, "updates": extra["updates"] + 1}

    def _momentum(self, extra):
        return cosine_momentum(extra["updates"], start=self.momentum, steps=self.momentum_steps)

    def _module(self, encoder, rngs):
        return byol_arm(encoder, **self._sizes, rngs=rngs)

    @functools.cached_property
    def _target(self) -> Functional:
        return Functional(lambda rngs: target_arm(self._encoder(rngs), **self._sizes, rngs=rngs))

    @property
    def _sizes(self):
        sizes = {"hidden": self.hidden, "projection": self.projection}
        return {**sizes, "dtype": head_dtype(self.encoder), "norm_group": head_norm_group(self.encoder)}


def byol_arm(
    encoder: nnx.Module,
    *,
    hidden: int,
    projection: int,
    dtype: str,
    norm_group: int | None = None,
    rngs: nnx.Rngs,
) -> Arm:
    """Encoder, projector and predictor: the online arm."""
    shared = {"hidden": hidden, "dtype": dtype, "norm_group": norm_group, "rngs": rngs}
    target = target_arm(encoder, projection=projection, **shared)
    predictor = MlpHead(width_in=projection, width=projection, **shared)
    return Arm(encoder=encoder, head=target.head, predictor=predictor)


def target_arm(
    encoder: nnx.Module,
    *,
    hidden: int,
    projection: int,
    dtype: str,
    norm_group: int | None = None,
    rngs: nnx.Rngs,
) -> Arm:
    """Encoder and projector: what follows the online arm."""
    sizes = {"width_in": encoder.width, "hidden": hidden, "width": projection}
    return Arm(encoder=encoder, head=MlpHead(**sizes, norm_group=norm_group, dtype=dtype, rngs=rngs))
