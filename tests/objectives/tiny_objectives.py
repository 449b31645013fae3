"""The smallest instance of every registered objective, and a batch for all of them."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np

from ecgjax.core import trees
from ecgjax.core.spec import CmrSpec, EcgSpec, ImageSpec, InputSpec
from ecgjax.objectives import OBJECTIVES

SPEC = InputSpec(
    EcgSpec(("I", "II", "V1"), 100.0, 40, "mV", {}),
    CmrSpec(("ES", "mid", "ED"), 8, 8, 4.0, "0 to 1", {}),
)
IMAGE = ImageSpec(span=40, win=16, hop=5, n_fft=16, bins=8, frames=8, mean=-3.0, std=1.5)
BEATS = InputSpec(EcgSpec(("II",), 100.0, 40, "mV", {}, window="beat", image=IMAGE))
"""One lead of one beat, with the times to its neighbours."""
SHORT = dataclasses.replace(IMAGE, span=20, hop=2)
RECORDINGS = InputSpec(dataclasses.replace(SPEC.ecg, image=SHORT, beats=3))
"""Three leads, and the beats in them."""
LABELS = (
    {"name": "lvef", "kind": "regression", "mean": 60.0, "std": 10.0},
    {"name": "lbbb", "kind": "binary", "mean": None, "std": None, "prevalence": 0.2},
)
VIT = {"name": "vit", "width": 16, "depth": 1, "heads": 2, "patch": 10}
RESNET = {"name": "resnet", "block": "basic", "depths": (1, 1), "widths": (8, 16), "stem": "small_stride2"}
TOWERS = {"name": "cross_modal", "ecg": VIT, "hidden": 16, "projection": 8, "temperature": 0.2}
# Compiling the published augmentations takes most of the time; they have tests of their own.
TOWERS |= {"ecg_views": "weak", "cmr_views": "weak"}
SIAMESE = {"views": "weak", "projection": 8}

SECTIONS = {
    "masked": {
        "name": "masked",
        "encoder": {**VIT, "pooling": "mean_of_normed"},
        "decoder": {"width": 16, "depth": 1, "heads": 2},
        "mask_ratio": 0.5,
        "views": "weak",
    },
    "masked cls learnable": {
        "name": "masked",
        "encoder": {**VIT, "pooling": "cls", "positions": "learnable"},
        "decoder": {"width": 16, "depth": 1, "heads": 2},
        "scope": "masked",
        "views": "weak",
    },
    "masked cosine": {
        "name": "masked",
        "encoder": VIT,
        "decoder": {"width": 16, "depth": 1, "heads": 2},
        "mask_ratio": 0.5,
        "cosine_weight": 0.1,
        "projector_hidden": 16,
        "predictor_hidden": 8,
        "views": "weak",
    },
    "cross_modal group": {**TOWERS, "cmr": {**RESNET, "norm": "group"}},
    "cross_modal batch": {**TOWERS, "cmr": {**RESNET, "norm": "batch"}},
    "cross_modal alike online": {
        **TOWERS,
        "cmr": {**RESNET, "norm": "group", "frames": ("ES", "ED")},
        "contrast": "supervised_contrastive",
        "similarity": "labels",
        "threshold": 0.99,
        "online": {"modality": "cmr", "label": "lbbb"},
    },
    "cross_modal sigmoid tiles": {
        **{k: v for k, v in TOWERS.items() if k != "temperature"},
        "cmr": {**RESNET, "depths": (1,), "widths": (8,), "norm": "group"},
        "contrast": "sigmoid",
        "tile": 1,
    },
    "cross_modal frozen": {**TOWERS, "cmr": {"name": "unet", "widths": (8, 8)}, "freeze": ("cmr",)},
    "supervised ecg": {"name": "supervised", "modality": "ecg", "encoder": {**VIT, "pooling": "attention"}},
    "supervised cmr": {"name": "supervised", "modality": "cmr", "encoder": {**RESNET, "norm": "batch"}},
    "simclr cmr": {"name": "simclr", "modality": "cmr", "encoder": {**RESNET, "norm": "batch"}, **SIAMESE},
    "simclr halves": {
        "name": "simclr",
        "modality": "ecg",
        "encoder": VIT,
        "pairs": "halves",
        "contrast": "info_nce",
        **SIAMESE,
    },
    "simclr tiles": {"name": "simclr", "modality": "ecg", "encoder": VIT, "tile": 4, **SIAMESE},
    "byol ecg": {
        "name": "byol",
        "modality": "ecg",
        "encoder": VIT,
        "hidden": 16,
        "momentum": 0.9,
        "momentum_steps": 100,
        **SIAMESE,
    },
    "barlow_twins ecg": {
        "name": "barlow_twins",
        "modality": "ecg",
        "encoder": VIT,
        "hidden": 16,
        "off_diagonal": 0.1,
        **SIAMESE,
    },
    "cross_modal_byol": {
        **{k: v for k, v in TOWERS.items() if k != "temperature"},
        "name": "cross_modal_byol",
        "cmr": {**RESNET, "norm": "batch"},
        "online": {"modality": "ecg", "label": "lbbb"},
    },
    "finetune classification": {
        "name": "finetune",
        "task": "classification",
        "targets": ("lbbb",),
        "encoder": {**VIT, "pooling": "attention", "positions": "learnable"},
        "class_weights": (1.0, 2.0),
        "smoothing": 0.1,
        "lead_mask": 0.4,
        "norm_twice": True,
        "views": "weak",
    },
    "finetune beats": {
        "name": "finetune",
        "task": "classification",
        "targets": ("lbbb",),
        "encoder": {"name": "stft_cnn", "widths": (8, 8), "groups": 2, "mask_times": 2},
        "class_weights": "sqrt_inverse",
        "focal": 1.0,
        "rhythm": True,
        "views": "beats",
    },
    "finetune leadwise partial": {
        "name": "finetune",
        "task": "classification",
        "targets": ("lbbb",),
        "mode": "partial",
        "encoder": {
            "name": "leadwise",
            "read": ("I", "V1"),
            "train_beats": 2,
            "encoder": {"name": "stft_cnn", "widths": (8, 8), "groups": 2},
        },
        "views": "none",
    },
    "finetune regression probe": {
        "name": "finetune",
        "task": "regression",
        "targets": ("lvef",),
        "mode": "probe",
        "encoder": VIT,
        "views": "weak",
    },
}


SPECS = {"finetune beats": BEATS, "finetune leadwise partial": RECORDINGS}


@functools.cache
def objective(name):
    fields = dict(SECTIONS[name])
    make = OBJECTIVES[fields.pop("name")]
    if "labels" in inspect.signature(make).parameters:
        fields["labels"] = LABELS
    return make(spec=SPECS.get(name, SPEC), crop=40, **fields)


@functools.cache
def initial(name):
    return filled(objective(name))


def filled(objective):
    """Values as initialisation would draw them; compiling `init` itself takes longer than a whole test."""
    draw = np.random.default_rng(1)

    def fill(path, leaf):
        if leaf.dtype == jnp.int32:
            return jnp.zeros(leaf.shape, leaf.dtype)
        if path.endswith(("scale", "var")):
            return jnp.ones(leaf.shape)
        if path.endswith(("bias", "mean")):
            return jnp.zeros(leaf.shape)
        fan_in = max(int(np.prod(leaf.shape[:-1])), 1)
        return jnp.asarray(draw.normal(size=leaf.shape) / np.sqrt(fan_in), jnp.float32)

    return trees.map_named(fill, jax.eval_shape(objective.init, jax.random.key(0)))


@functools.cache
def batch_for(name, seed=0):
    """A batch of the leads that an objective's data have."""
    made = batch(seed=seed)
    return {**made, "ecg": made["ecg"][:, : len(objective(name).spec.ecg.leads)]}


def batch(size=16, seed=0):
    """Pairs that share one number, so that every objective has something to learn."""
    draw = np.random.default_rng(seed)
    shared = draw.normal(size=size)
    wave = np.sin(np.arange(40)[None, None] * (0.2 + 0.1 * np.arange(3)[None, :, None]))
    ecg = shared[:, None, None] * wave + 0.3 * draw.normal(size=(size, 3, 40))
    ramp = np.linspace(-1, 1, 8)
    image = np.cos(shared)[:, None, None] * ramp[:, None] + np.sin(shared)[:, None, None] * ramp
    cmr = 0.5 + 0.2 * image[..., None] + 0.05 * draw.normal(size=(size, 8, 8, 3))
    label = np.stack([60 + 10 * shared, (shared > 0).astype(float)], 1)
    label[0] = np.nan
    rr = 0.8 + 0.1 * draw.normal(size=(size, 4))
    rr[1, 0] = np.nan
    return {
        "ecg": jnp.asarray(ecg, jnp.float32),
        "cmr": jnp.asarray(np.clip(cmr, 0, 1), jnp.float32),
        "label": jnp.asarray(label, jnp.float32),
        "beats": jnp.asarray(np.where(draw.random((size, 3)) < 0.8, [12, 18, 25], -1), jnp.int32),
        "rr": jnp.asarray(rr, jnp.float32),
        "subject": jnp.asarray(np.stack([np.arange(size), np.zeros(size)], 1), jnp.uint32),
        "index": jnp.arange(size, dtype=jnp.int32),
        "mask": jnp.ones(size, bool),
    }
