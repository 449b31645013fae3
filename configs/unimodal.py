"""One modality against itself: SimCLR, CLOCS, BYOL and Barlow Twins, the alternatives to masked data modelling.

    python -m ecgjax train --config=configs/unimodal.py:simclr_cmr --config.data.directory=DATA --workdir=RUN

Sizes and rates of the reference's runs, at 500 Hz and 210 px; Adam with L2 1e-4, temperature 0.1.

`simclr_cmr`  ResNet-50 on whole slices, rate 1e-4, 500 epochs with 50 of warm-up: the published image weights
`simclr_ecg`  the tiny ViT, each view its own 5 s of a 10 s record; the rate of 3e-3 that the paper quotes
`byol_ecg`    rate 3e-5, heads 4096 and 256, momentum 0.9996 rising to 1 over the run
`barlow_ecg`  heads of 8192; no rate was published, so that of `simclr_cmr`
`clocs_ecg`   the two halves of a record, heavy views, InfoNCE, batch 768, rate 3e-4

With another config.steps, give `byol_ecg` the same number as config.objective.momentum_steps.

`demo_simclr_cmr`, `demo_simclr_ecg`, `demo_byol_ecg`, `demo_barlow_ecg`, `demo_clocs_ecg` are minutes on one CPU core
on the 100 Hz, 32 px synthetic cohort of launch/local.sh. `demo_supcon_ecg` is `demo_simclr_ecg` with subjects of like
labels drawn together, too (SupCon), and `demo_chain_ecg` with views of its own.

Views, here and in every other objective that has them, are a preset of ecgjax/augment/presets.py, the fields of one as
a dict, or steps of ecgjax/augment/chains.py by name, in the order given: each with its settings, and a `probability`
to happen where that is not 1 (`_CHAIN` below).
"""

from ml_collections import ConfigDict

from configs import common

_EXAMPLES = 28030
"""The paper's training split."""

_CHAIN = (
    {"name": "crop_resize", "share": (0.8, 1.0)},
    {"name": "mask_windows", "factor": 0.2, "length": 25, "leads": "apart"},
    {"name": "ideal_filter", "kind": "low_pass", "edges_hz": (25.0,), "probability": 0.5},
    {"name": "gain", "deviation": 0.2},
)
"""Up to a quarter slower, a fifth of each lead hidden, every other view without what lies above 25 Hz."""


def get_config(arg: str = "demo_simclr_ecg") -> ConfigDict:
    recipes = {
        "simclr_cmr": _simclr_cmr,
        "simclr_ecg": _simclr_ecg,
        "byol_ecg": _byol_ecg,
        "barlow_ecg": _barlow_ecg,
        "clocs_ecg": _clocs_ecg,
        "demo_simclr_cmr": _demo_simclr_cmr,
        "demo_simclr_ecg": _demo_simclr_ecg,
        "demo_byol_ecg": _demo_byol_ecg,
        "demo_barlow_ecg": _demo_barlow_ecg,
        "demo_clocs_ecg": _demo_clocs_ecg,
        "demo_supcon_ecg": _demo_supcon_ecg,
        "demo_chain_ecg": _demo_chain_ecg,
    }
    if arg not in recipes:
        raise ValueError(f"configs/unimodal.py:{arg}: unknown; choose from {', '.join(recipes)}.")
    return recipes[arg]()


def _simclr_cmr() -> ConfigDict:
    config = _reference("cmr", rate=1e-4, epochs=500, warmup=50)
    config.objective.update({"name": "simclr", "projection": 256, "temperature": 0.1})
    return config


def _simclr_ecg() -> ConfigDict:
    config = _reference("ecg", rate=3e-3)
    config.objective.update({"name": "simclr", "hidden": 384, "projection": 128, "temperature": 0.1})
    return config


def _byol_ecg() -> ConfigDict:
    config = _reference("ecg", rate=3e-5)
    config.objective.update(
        {
            "name": "byol",
            "hidden": 4096,
            "projection": 256,
            "momentum": 0.9996,
            "momentum_steps": config.steps,
        }
    )
    return config


def _barlow_ecg() -> ConfigDict:
    config = _reference("ecg", rate=1e-4)
    config.objective.update(
        {"name": "barlow_twins", "hidden": 8192, "projection": 8192, "off_diagonal": 5e-3}
    )
    return config


def _clocs_ecg() -> ConfigDict:
    config = _reference("ecg", rate=3e-4, batch=768)
    del config.objective["window"]
    config.objective.update(
        {
            "name": "simclr",
            "pairs": "halves",
            "contrast": "info_nce",
            "views": "contrastive_heavy",
            "hidden": 384,
            "projection": 128,
            "temperature": 0.1,
        }
    )
    return config


def _demo_simclr_cmr() -> ConfigDict:
    config = _demo("cmr")
    config.objective.update({"name": "simclr", "projection": 64, "temperature": 0.1})
    return config


def _demo_simclr_ecg() -> ConfigDict:
    config = _demo("ecg")
    config.objective.update({"name": "simclr", "hidden": 128, "projection": 64, "temperature": 0.1})
    return config


def _demo_byol_ecg() -> ConfigDict:
    config = _demo("ecg")
    config.objective.update(
        {"name": "byol", "hidden": 256, "projection": 64, "momentum": 0.99, "momentum_steps": config.steps}
    )
    return config


def _demo_barlow_ecg() -> ConfigDict:
    config = _demo("ecg")
    config.objective.update({"name": "barlow_twins", "hidden": 256, "projection": 256, "off_diagonal": 5e-3})
    return config


def _demo_clocs_ecg() -> ConfigDict:
    config = _demo_simclr_ecg()
    del config.objective["window"]
    config.objective.update({"pairs": "halves", "contrast": "info_nce"})
    return config


def _demo_supcon_ecg() -> ConfigDict:
    config = _demo_simclr_ecg()
    config.objective.update({"contrast": "supcon", "similarity": "labels", "threshold": 0.9})
    return config


def _demo_chain_ecg() -> ConfigDict:
    config = _demo_simclr_ecg()
    del config.objective["views"]  # A preset gives way to steps.
    config.objective.views = _CHAIN
    return config


def _reference(
    modality: str, *, rate: float, epochs: int = 300, warmup: int = 30, batch: int = 256
) -> ConfigDict:
    config = common.training()
    epoch = _EXAMPLES // batch
    config.steps = epochs * epoch
    config.log_every, config.validate_every, config.save_every = 50, epoch, 10 * epoch
    config.data.update(
        {"batch_size": batch, "crop": 5000, "modalities": (modality,), "cache": False, "workers": 16}
    )
    config.objective = ConfigDict({"modality": modality})
    if modality == "cmr":
        config.objective.update(
            {
                "encoder": {"name": "resnet", "variant": "resnet50", "dtype": "bfloat16", **common.stages()},
                "views": "reference",
                "view_rate": 0.95,
            }
        )
    else:
        encoder = {"name": "vit", "variant": "tiny", "patch": 100, "pooling": "mean", "drop_path": 0.1}
        config.objective.update(
            {
                "encoder": {**encoder, "positions": "learnable", "dtype": "bfloat16", **common.blocks()},
                "views": "contrastive_default",
                "window": 2500,
            }
        )
    schedule = {"name": "epoch_cosine", "learning_rate": rate, "warmup_epochs": warmup}
    config.optimizer = ConfigDict({"name": "adam_l2", "weight_decay": 1e-4, "schedule": schedule})
    config.evaluators = ConfigDict({"linear_probe": common.probe(f"{modality}/embedding")})
    return config


def _demo(modality: str) -> ConfigDict:
    config = common.training()
    config.steps = 800
    config.log_every, config.validate_every, config.save_every = 25, 400, 400
    config.data.update({"batch_size": 64, "crop": 500, "modalities": (modality,)})
    config.objective = ConfigDict({"modality": modality, "views": "weak"})
    if modality == "cmr":
        config.objective.encoder = common.demo_resnet()
    else:
        config.objective.encoder = common.demo_vit(pooling="mean")
        config.objective.window = 250
    config.optimizer.schedule.update({"learning_rate": 1.5e-3, "warmup_steps": 80})
    probe = common.probe(f"{modality}/embedding", max_labels=common.DEMO_LABELS)
    config.evaluators = ConfigDict({"linear_probe": probe})
    return config
