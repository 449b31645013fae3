"""Stage 2, multimodal contrastive learning (MMCL): ECG against cine CMR.

    python -m ecgjax train --config=configs/ecg_cmr.py:demo --config.data.directory=DATA \
        --config.init_from.workdir=MDM_RUN --workdir=RUN

Leave config.init_from.workdir empty to train from scratch; config.data.pairing=permuted is the control.

`demo`   100 Hz, 32 px synthetic cohort: two to three minutes on one CPU core (launch/local.sh)
`paper`  500 Hz, 210 px: ResNet-50 and the tiny ViT, temperature 0.1, batch 256, Adam 1e-4 with L2 1e-4, balance 0.75,
         300 epochs with 30 of warm-up; set config.steps to 300 * examples / 256
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "demo") -> ConfigDict:
    recipes = {"demo": _demo, "paper": _paper}
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
    config.log_every, config.validate_every, config.save_every = 50, epoch, 10 * epoch
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
            },
            "cmr": {"name": "resnet", "variant": "resnet50", "dtype": "bfloat16"},
            "hidden": 512,
            "projection": 128,
            "temperature": 0.1,
            "balance": 0.75,
            "ecg_views": "default",
            "cmr_views": "reference",
            "view_rate": 0.95,
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adam_l2",
            "weight_decay": 1e-4,
            "schedule": {"name": "warmup_cosine", "learning_rate": 1e-4, "warmup_steps": 30 * epoch},
        }
    )
    config.init_from.rules = ((r"^ecg/encoder/", "ecg/encoder/"),)
    config.evaluators = ConfigDict(
        {
            "linear_probe": common.probe("ecg/embedding"),
            "retrieval": {},
            "localisation": {"temperature": 0.8},
        }
    )
    return config
