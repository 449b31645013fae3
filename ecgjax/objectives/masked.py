"""Masked data modelling (MDM): reconstruct the hidden patches of an ECG (arXiv 2308.05764, stage 1)."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.augment.views import Augmentation, Views, choose_views, view_ecg
from ecgjax.core import config as configs
from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Aux, Batch, Predictions, Tree
from ecgjax.core.precision import wide
from ecgjax.core.spec import InputSpec
from ecgjax.losses.contrastive import unit
from ecgjax.losses.noncontrastive import negative_cosine, simsiam
from ecgjax.losses.reconstruction import reconstruction_loss
from ecgjax.models.heads import MlpHead
from ecgjax.models.mae import MaeDecoder, Masking, kept_tokens, random_masking
from ecgjax.models.vit import patch_columns, patch_rows, patchify, unpatchify
from ecgjax.objectives.encoders import check_crop, encoder_factory, located, with_variant

_PREDICTION_MASK_SEED = 0
"""Evaluation hides the same patches at every checkpoint, so that reconstructions compare."""


@dataclasses.dataclass(frozen=True)
class Masked:
    """Masked autoencoder over lead x time patches, as the published weights were trained.

    The loss is (1 - w) MSE + w (1 - NCC) over all patches, hidden and visible; `scope="masked"` and
    `targets="normalised"` are the classical choices. `kept` says what becomes of a fraction of a token: `truncated` is
    what the published weights saw (59 of 300 at 0.8).

    A `cosine_weight` above 0 adds the newest release's SimSiam term: the mean of the visible tokens of a second,
    independent masking is predicted from that of the first, and the reverse. It costs a second pass through the
    encoder; at 0 neither pass nor heads exist. There is no drop path, as in the reference.
    """

    spec: InputSpec
    crop: int
    encoder: Mapping[str, Any]
    decoder: Mapping[str, Any]
    mask_ratio: float = 0.8
    kept: Literal["truncated", "rounded"] = "truncated"
    ncc_weight: float = 0.1
    cosine_weight: float = 0.0
    projector_hidden: int = 1024
    predictor_hidden: int = 128
    scope: Literal["all", "masked"] = "all"
    targets: Literal["raw", "normalised"] = "raw"
    views: Views = "default"

    def __post_init__(self):
        kept_tokens(self._tokens, self.mask_ratio, kept=self.kept)
        if self.cosine_weight < 0:
            raise ValueError(f"config.objective.cosine_weight: {self.cosine_weight}; it must be at least 0.")
        jax.eval_shape(self.init, jax.random.key(0))
        self._views  # noqa: B018  Its own checks.

    @property
    def frozen_paths(self) -> tuple[str, ...]:
        """Everything is trained."""
        return ()

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws encoder and decoder under `ecg/`, and the heads of the cosine term where it has a weight."""
        key_encoder, key_decoder = jax.random.split(key)
        encoder, _ = self._encoder.init(key_encoder)
        decoder, _ = self._decoder.init(key_decoder)
        params = {"encoder": encoder, "decoder": decoder}
        if not self.cosine_weight:
            return {"ecg": params}, {}
        stats = {}
        for i, (name, head) in enumerate(self._heads.items()):
            params[name], stats[name] = head.init(jax.random.fold_in(key, i))
        return {"ecg": params}, {"ecg": stats}

    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """Reconstruction loss, plus the weighted cosine term.

        Metrics are `mse` and `ncc`; with the cosine term also its value `cosine`, the cosine `cos_embed` of the
        embeddings of the two maskings, and their spread `z_std` over the batch, which is 0 for a collapsed encoder.
        """
        key_view, key_mask = jax.random.split(key)
        ecg = view_ecg(key_view, batch["ecg"], preset=self._views) if train else batch["ecg"]
        masking = self._masking(key_mask, ecg)
        other = self._masking(jax.random.fold_in(key_mask, 1), ecg) if self.cosine_weight else None
        return self.loss_of_maskings(params, extra, ecg, masking, other, train=train)

    def loss_of_maskings(
        self,
        params: Tree,
        extra: Tree,
        ecg: Float[Array, "b *c l t"],
        masking: Masking,
        other: Masking | None,
        *,
        train: bool,
    ) -> tuple[Float[Array, ""], Aux]:
        """`loss` of an ECG whose masks are drawn; `other` is that of the cosine term."""
        tokens, prediction = self._reconstruct(params, ecg, masking)
        signal = unpatchify(prediction, **self._shape)
        parts = reconstruction_loss(
            prediction,
            patchify(ecg, **self._patches),
            masking.mask,
            signal,
            ecg.reshape(signal.shape),  # One channel may come with its axis.
            ncc_weight=self.ncc_weight,
            scope=self.scope,
            targets=self.targets,
        )
        metrics = {"mse": parts["mse"], "ncc": parts["ncc"]}
        if not self.cosine_weight:
            return parts["loss"], Aux(metrics, extra)
        embeddings = [_mean_patch(tokens), _mean_patch(self._encode(params, ecg, other))]
        cosine, extra = self._cosine(params, extra, embeddings, train=train)
        metrics |= {
            "cosine": cosine,
            "cos_embed": -negative_cosine(*embeddings),
            "z_std": _spread(embeddings[0]),
        }
        return parts["loss"] + self.cosine_weight * cosine, Aux(metrics, extra)

    def predict(self, params: Tree, extra: Tree, batch: Batch) -> Predictions:
        """Embedding and tokens of the unmasked ECG; the reconstruction of a masked one."""
        ecg = batch["ecg"]
        out, _ = self._encoder.apply(params["ecg"]["encoder"], {}, ecg)
        masking = self._masking(jax.random.key(_PREDICTION_MASK_SEED), ecg)
        _, prediction = self._reconstruct(params, ecg, masking)
        hidden = jnp.repeat(masking.mask[:, :, None], prediction.shape[2], axis=2)
        return {
            "ecg/embedding": out["embedding"],
            "ecg/tokens": out["tokens"],
            "reconstruction": unpatchify(prediction, **self._shape),
            "reconstruction_mask": unpatchify(hidden, **self._shape),
        }

    def after_update(self, params: Tree, extra: Tree) -> Tree:
        """Nothing follows the parameters."""
        del params
        return extra

    def _masking(self, key, ecg):
        return random_masking(
            key, batch=len(ecg), tokens=self._tokens, mask_ratio=self.mask_ratio, kept=self.kept
        )

    def _encode(self, params, ecg, masking):
        return self._encoder.apply(params["ecg"]["encoder"], {}, ecg, keep=masking.keep)[0]["tokens"]

    def _reconstruct(self, params, ecg, masking):
        tokens = self._encode(params, ecg, masking)
        prediction, _ = self._decoder.apply(params["ecg"]["decoder"], {}, tokens, masking.restore)
        return tokens, prediction

    def _cosine(self, params, extra, embeddings, *, train):
        """SimSiam between the two maskings, and the batch statistics after both went through both heads."""
        stats = dict(extra["ecg"])

        def through(name, inputs):
            outputs = []
            for x in inputs:
                out, stats[name] = self._heads[name].apply(params["ecg"][name], stats[name], x, train=train)
                outputs.append(out)
            return outputs

        projections = through("projector", embeddings)
        predictions = through("predictor", projections)
        return simsiam(*predictions, *projections), {**extra, "ecg": stats}

    @functools.cached_property
    def _views(self) -> Augmentation:
        return choose_views(self.views, "ecg", self.spec, "config.objective.views", length=self.crop)

    @functools.cached_property
    def _encoder(self) -> Functional:
        return Functional(
            encoder_factory(self._section, "ecg", self.spec, self.crop, "config.objective.encoder")
        )

    @functools.cached_property
    def _decoder(self) -> Functional:
        bound = configs.bind(
            {"mae": MaeDecoder},
            with_variant({"name": "mae", **self.decoder}, "config.objective.decoder"),
            "config.objective.decoder",
            length=self.crop,
            patch=self._patches["patch"],
            **self._shape,
            encoder_width=self._section["width"],
        )
        configs.require(bound, "config.objective.decoder", open_arguments=("rngs",))

        def make(rngs: nnx.Rngs) -> nnx.Module:
            with located("config.objective.decoder"):
                return bound(rngs=rngs)

        return Functional(make)

    @functools.cached_property
    def _heads(self) -> dict[str, Functional]:
        width, dtype = self._section["width"], self._section.get("dtype", "float32")
        shared = {"width_in": width, "width": width, "bias": False, "init": "xavier", "dtype": dtype}
        return {
            "projector": Functional(
                lambda rngs: MlpHead(hidden=self.projector_hidden, norm_out=True, **shared, rngs=rngs)
            ),
            "predictor": Functional(lambda rngs: MlpHead(hidden=self.predictor_hidden, **shared, rngs=rngs)),
        }

    @property
    def _patches(self) -> dict[str, int]:
        return {"patch": self._section["patch"], "patch_leads": self._section.get("patch_leads", 1)}

    @property
    def _shape(self) -> dict[str, int]:
        """Of the signal that patches came from."""
        return {
            "leads": len(self.spec.ecg.leads),
            "patch_leads": self._patches["patch_leads"],
            "channels": self._section.get("channels", 1),
        }

    @functools.cached_property
    def _section(self) -> dict[str, Any]:
        section = {"pooling": "mean_of_normed", **with_variant(self.encoder, "config.objective.encoder")}
        for field in ("patch", "width"):
            if not isinstance(section.get(field), int):
                raise ValueError(
                    f"config.objective.encoder.{field}: expected int, got {section.get(field)!r}."
                )
        check_crop(section, self.crop, "config.objective.encoder")
        if section.get("drop_path"):
            raise ValueError(
                f"config.objective.encoder.drop_path: {section['drop_path']}; masked pre-training has none, leave it "
                f"out."
            )
        if section["pooling"] not in ("cls", "mean_of_normed"):
            raise ValueError(
                f"config.objective.encoder.pooling: {section['pooling']!r} has no final norm for the decoder to "
                f"read from; choose cls or mean_of_normed."
            )
        return section

    @property
    def _tokens(self) -> int:
        rows = patch_rows(len(self.spec.ecg.leads), self._patches["patch_leads"])
        return rows * patch_columns(self.crop, self._patches["patch"])


def _mean_patch(tokens: Float[Array, "b n d"]) -> Float[Array, "b d"]:
    """The mean of the tokens without the class token."""
    return wide(tokens[:, 1:]).mean(1)


def _spread(embedding: Float[Array, "b d"]) -> Float[Array, ""]:
    """Mean deviation over the batch of an embedding on the unit sphere, times the root of its width."""
    return embedding.shape[1] ** 0.5 * jnp.mean(jnp.std(unit(embedding), axis=0, ddof=1))
