"""Stage 2, multimodal contrastive learning (MMCL): ECG against cine CMR.

    python -m ecgjax train --config=configs/ecg_cmr.py:demo --config.data.directory=DATA \
        --config.init_from.workdir=MDM_RUN --workdir=RUN

Leave config.init_from.workdir empty to train from scratch; config.data.pairing=permuted is the control.

`demo`          100 Hz, 32 px synthetic cohort: two to three minutes on one CPU core (launch/local.sh)

Those of the paper read 500 Hz and whole slices of 210 px, of which they cut the published region of the heart. None
was measured here, for want of its data. Set config.steps to 300 * examples // 256 where these are not 28,030.

`paper`         the published command: ResNet-50 and the tiny ViT, temperature 0.1, batch 256, balance 0.75, Adam 1e-4
                with L2 1e-4, 300 epochs with 30 of warm-up, one rate an epoch and the first at 0; the checkpoint of
                the lowest validation loss is kept beside the last. Both towers start from a run: the ECG encoder from
                MDM, the CMR encoder from SimCLR on images:

    python -m ecgjax train --config=configs/ecg_cmr.py:paper --config.data.directory=DATA --workdir=RUN \
        --config.init_from.workdir=MDM_RUN "--config.init_from.also[0].workdir=SIMCLR_RUN"

`paper_wo_mdm`  its variant without masked pre-training: Adam 3e-4; leave config.init_from.workdir empty
`paper_online`  `paper`, watched by the published online classifier of the ECG embedding, with a rate and decay of its
                own; name a binary label as config.objective.online.label (the published one was CAD)
`frozen_cmr`    `paper` with the image encoder as SimCLR left it (the reference's "frozen" strategy)
`unet`          `paper` with the reference's U-Net preset: the phases ES and ED, hidden width 32, Adam 3e-3
`scaled`        ours, for a pod and a cohort of more than 32,768 pairs: the base ViT beside the ResNet-50, a global
                batch of 32,768, which the encoders see in sixteen parts and the loss as a whole, AdamW 1e-3. Not
                measured; planned for 16 to 256 chips:

    python -m ecgjax plan --config=configs/ecg_cmr.py:scaled --topology=v5e:4x4,v5e:16x16,v5p:4x4x8,v6e:16x16

Two rates for two towers, the reference's multiple-LR trainer, which cannot run there, are a group:
config.optimizer.groups = {"cmr": {"paths": "^cmr/", "learning_rate": 1e-5}}. Sources: `paper`, `paper_wo_mdm` and
`frozen_cmr` repeat run scripts and settings of the released code at its paper generation; rates of `unet` and
of the classifier are its presets.
"""

from ml_collections import ConfigDict, config_dict

from configs import common


def get_config(arg: str = "demo") -> ConfigDict:
    recipes = {
        "demo": _demo,
        "paper": _paper,
        "paper_wo_mdm": _paper_wo_mdm,
        "paper_online": _paper_online,
        "frozen_cmr": _frozen_cmr,
        "unet": _unet,
        "scaled": _scaled,
    }
    if arg not in recipes:
        raise ValueError(f"configs/ecg_cmr.py:{arg}: unknown; choose from {', '.join(recipes)}.")
    return recipes[arg]()


def _demo() -> ConfigDict:
    config = common.training()
    config.steps = 1600
    config.log_every, config.validate_every, config.save_every = 25, 400, 400
    config.data.update({"batch_size": 64, "crop": 250, "modalities": ("ecg", "cmr")})
    config.objective = ConfigDict(
        {
            "name": "cross_modal",
            "ecg": common.demo_vit(pooling="mean"),
            "cmr": common.demo_resnet(),
            "hidden": 128,
            "projection": 64,
            "temperature": 0.1,
            "balance": 0.5,
            "tile": config_dict.placeholder(int),  # Columns of logits at a time; None for all.
            "ecg_views": "weak",
            "cmr_views": "weak",
        }
    )
    config.optimizer.schedule.update({"learning_rate": 1.5e-3, "warmup_steps": 160})
    config.init_from.rules = ((r"^ecg/encoder/", "ecg/encoder/"),)
    config.evaluators = ConfigDict(
        {
            "linear_probe": common.probe("ecg/embedding", max_labels=common.DEMO_LABELS),
            "retrieval": {},
            "localisation": {},
        }
    )
    return config


def _paper() -> ConfigDict:
    config = common.training()
    epoch = 28030 // 256
    config.steps = 300 * epoch
    config.log_every, config.validate_every, config.save_every = 50, epoch, epoch
    config.checkpoint.best.update({"metric": "val_loss", "mode": "min", "keep": 1})
    config.data.update(
        {"batch_size": 256, "crop": 2500, "modalities": ("ecg", "cmr"), "cache": False, "workers": 16}
    )
    config.objective = ConfigDict(
        {
            "name": "cross_modal",
            "ecg": {
                "name": "vit",
                "variant": "tiny",
                "patch": 100,
                "pooling": "mean",
                "drop_path": 0.1,
                "positions": "learnable",
                "dtype": "bfloat16",
                **common.blocks(),
            },
            "cmr": {"name": "resnet", "variant": "resnet50", "dtype": "bfloat16", **common.stages()},
            "hidden": 512,
            "projection": 128,
            "temperature": 0.1,
            "balance": 0.75,
            "tile": config_dict.placeholder(int),  # Columns of logits at a time; None for all.
            "ecg_views": "default",
            "cmr_views": "reference",
            "view_rate": 0.95,
            "cmr_roi": (0.21, 0.325, 0.375),  # 78 px square out of 210, brought back to 210.
            "freeze": (),
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adam_l2",
            "weight_decay": 1e-4,
            "schedule": {"name": "epoch_cosine", "learning_rate": 1e-4, "warmup_epochs": 30},
            "groups": {},
        }
    )
    config.init_from.rules = ((r"^ecg/encoder/", "ecg/encoder/"),)
    config.init_from.also = (common.source((r"^cmr/encoder/", "cmr/encoder/")),)
    config.evaluators = ConfigDict(
        {
            "linear_probe": common.probe("ecg/embedding"),
            "retrieval": {},
            "localisation": {"temperature": 0.8},
        }
    )
    return config


def _paper_wo_mdm() -> ConfigDict:
    config = _paper()
    config.optimizer.schedule.learning_rate = 3e-4
    return config


def _paper_online() -> ConfigDict:
    config = _paper()
    config.objective.online = ConfigDict(
        {
            "modality": "ecg",
            "label": config_dict.placeholder(str),
            "class_weights": (0.55, 10.0),
            "init": "kaiming",
        }
    )
    config.checkpoint.best.metric = "val_contrastive"  # Not its sum with the classifier's loss.
    config.optimizer.groups.online = ConfigDict(
        {"paths": "^online/", "learning_rate": 3e-4, "weight_decay": 1e-4}
    )
    return config


def _frozen_cmr() -> ConfigDict:
    config = _paper()
    config.objective.freeze = ("cmr",)
    return config


def _unet() -> ConfigDict:
    config = _paper()
    config.objective.cmr = ConfigDict({"name": "unet", "frames": ("ES", "ED"), "dtype": "bfloat16"})
    config.objective.hidden = 32
    config.optimizer.schedule.learning_rate = 3e-3
    return config


def _scaled() -> ConfigDict:
    config = _paper()
    config.steps = 10_000
    config.validate_every = config.save_every = 500
    config.data.batch_size = 32_768
    config.grad_cache = 16  # At 128 a chip (256 chips) eight at a time, at 2048 (16 chips) 128.
    config.objective.ecg.update({"variant": "base", "scan": 1, "remat": "blocks"})
    config.objective.balance = 0.5
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "b1": 0.9,
            "b2": 0.95,
            "weight_decay": 0.05,
            "schedule": {"name": "warmup_cosine", "learning_rate": 1e-3, "warmup_steps": 500},
            "groups": {},
        }
    )
    return config
