"""Masked data modelling (MDM): reconstruct the hidden patches of an ECG (arXiv 2308.05764, stage 1)."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ecgjax.augment.views import view_ecg
from ecgjax.core import config as configs
from ecgjax.core.functional import Functional
from ecgjax.core.interfaces import Aux, Batch, Predictions, Tree
from ecgjax.core.spec import InputSpec
from ecgjax.losses.reconstruction import reconstruction_loss
from ecgjax.models.mae import MaeDecoder, kept_tokens, random_masking
from ecgjax.models.vit import patch_columns, patch_rows, patchify, unpatchify
from ecgjax.objectives.encoders import check_crop, encoder_factory, with_variant

_PREDICTION_MASK_SEED = 0
"""Evaluation hides the same patches at every checkpoint, so that reconstructions compare."""


@dataclasses.dataclass(frozen=True)
class Masked:
    """Masked autoencoder over lead x time patches, as the published weights were trained.

    The loss is (1 - w) MSE + w (1 - NCC) over all patches, hidden and visible; `scope="masked"` and
    `targets="normalised"` are the classical choices. `views` names an augmentation preset.
    """

    spec: InputSpec
    crop: int
    encoder: Mapping[str, Any]
    decoder: Mapping[str, Any]
    mask_ratio: float = 0.8
    ncc_weight: float = 0.1
    scope: Literal["all", "masked"] = "all"
    targets: Literal["raw", "normalised"] = "raw"
    views: str = "default"

    def __post_init__(self):
        kept_tokens(self._tokens, self.mask_ratio)
        jax.eval_shape(self.init, jax.random.key(0))

    @property
    def frozen_paths(self) -> tuple[str, ...]:
        """Everything is trained."""
        return ()

    def init(self, key: PRNGKeyArray) -> tuple[Tree, Tree]:
        """Draws encoder and decoder under `ecg/`."""
        key_encoder, key_decoder = jax.random.split(key)
        encoder, _ = self._encoder.init(key_encoder)
        decoder, _ = self._decoder.init(key_decoder)
        return {"ecg": {"encoder": encoder, "decoder": decoder}}, {}

    def loss(
        self, params: Tree, extra: Tree, batch: Batch, key: PRNGKeyArray, *, train: bool
    ) -> tuple[Float[Array, ""], Aux]:
        """Reconstruction loss; metrics are its parts, `mse` and `ncc`."""
        key_view, key_mask = jax.random.split(key)
        ecg = view_ecg(key_view, batch["ecg"], preset=self.views) if train else batch["ecg"]
        prediction, mask = self._reconstruct(params, ecg, key_mask)
        target = patchify(ecg, **self._patches)
        parts = reconstruction_loss(
            prediction,
            target,
            mask,
            unpatchify(prediction, leads=ecg.shape[1], patch_leads=self._patches["patch_leads"]),
            ecg,
            ncc_weight=self.ncc_weight,
            scope=self.scope,
            targets=self.targets,
        )
        return parts["loss"], Aux({"mse": parts["mse"], "ncc": parts["ncc"]}, extra)

    def predict(self, params: Tree, extra: Tree, batch: Batch) -> Predictions:
        """Embedding and tokens of the unmasked ECG; the reconstruction of a masked one."""
        ecg = batch["ecg"]
        out, _ = self._encoder.apply(params["ecg"]["encoder"], {}, ecg)
        prediction, mask = self._reconstruct(params, ecg, jax.random.key(_PREDICTION_MASK_SEED))
        hidden = jnp.repeat(mask[:, :, None], prediction.shape[2], axis=2)
        shape = {"leads": ecg.shape[1], "patch_leads": self._patches["patch_leads"]}
        return {
            "ecg/embedding": out["embedding"],
            "ecg/tokens": out["tokens"],
            "reconstruction": unpatchify(prediction, **shape),
            "reconstruction_mask": unpatchify(hidden, **shape),
        }

    def after_update(self, params: Tree, extra: Tree) -> Tree:
        """Nothing follows the parameters."""
        del params
        return extra

    def _reconstruct(self, params, ecg, key):
        masking = random_masking(key, batch=len(ecg), tokens=self._tokens, mask_ratio=self.mask_ratio)
        latent, _ = self._encoder.apply(params["ecg"]["encoder"], {}, ecg, keep=masking.keep)
        prediction, _ = self._decoder.apply(params["ecg"]["decoder"], {}, latent["tokens"], masking.restore)
        return prediction, masking.mask

    @functools.cached_property
    def _encoder(self) -> Functional:
        return Functional(
            encoder_factory(self._section, "ecg", self.spec, self.crop, "config.objective.encoder")
        )

    @functools.cached_property
    def _decoder(self) -> Functional:
        bound = configs.bind(
            {"mae": MaeDecoder},
            {"name": "mae", **self.decoder},
            "config.objective.decoder",
            leads=len(self.spec.ecg.leads),
            length=self.crop,
            **self._patches,
            encoder_width=self._section["width"],
        )
        configs.require(bound, "config.objective.decoder", open_arguments=("rngs",))

        def make(rngs: nnx.Rngs) -> nnx.Module:
            return bound(rngs=rngs)

        return Functional(make)

    @property
    def _patches(self) -> dict[str, int]:
        return {"patch": self._section["patch"], "patch_leads": self._section.get("patch_leads", 1)}

    @functools.cached_property
    def _section(self) -> dict[str, Any]:
        section = {"pooling": "mean_of_normed", **with_variant(self.encoder, "config.objective.encoder")}
        for field in ("patch", "width"):
            if not isinstance(section.get(field), int):
                raise ValueError(
                    f"config.objective.encoder.{field}: expected int, got {section.get(field)!r}."
                )
        check_crop(section, self.crop, "config.objective.encoder")
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
