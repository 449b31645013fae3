"""Stage 1, masked data modelling (MDM) on ECG.

    python -m ecgjax train --config=configs/mae_ecg.py:demo --config.data.directory=DATA --workdir=RUN

`demo`   100 Hz synthetic cohort, a transformer of width 64: a minute on one CPU core (launch/local.sh)
`ptbxl`  100 Hz PTB-XL
`paper`  500 Hz, the published recipe: tiny variant, mask 0.8, batch 128, rate 1e-5 * 128 / 4, decay 0.15, 400 epochs
         with 40 of warm-up; set config.steps to 400 * examples / 128
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "demo") -> ConfigDict:
    recipes = {"demo": _demo, "ptbxl": _ptbxl, "paper": _paper}
    if arg not in recipes:
        raise ValueError(f"configs/mae_ecg.py:{arg}: unknown; choose from {', '.join(recipes)}.")
    return recipes[arg]()


def _demo() -> ConfigDict:
    config = common.training()
    config.steps = 1000
    config.data.update({"batch_size": 64, "crop": 250})
    config.objective = ConfigDict(
        {
            "name": "masked",
            "encoder": common.demo_vit(pooling="mean_of_normed"),
            "decoder": {"width": 64, "depth": 1, "heads": 4},
            "mask_ratio": 0.5,
            "views": "weak",
        }
    )
    config.optimizer.schedule.update({"learning_rate": 3e-3, "warmup_steps": 100})
    config.evaluators = ConfigDict(
        {
            "linear_probe": common.probe("ecg/embedding", max_labels=common.DEMO_LABELS),
            "reconstruction": {"examples": 6},
        }
    )
    return config


def _ptbxl() -> ConfigDict:
    config = _demo()
    config.data.batch_size = 32
    config.evaluators.linear_probe.max_labels = None
    return config


def _paper() -> ConfigDict:
    config = common.training()
    epoch = 28030 // 128  # The paper's training split.
    config.steps = 400 * epoch
    config.log_every, config.validate_every, config.save_every = 50, epoch, 10 * epoch
    config.data.update({"batch_size": 128, "crop": 2500, "cache": False, "workers": 8})
    config.objective = ConfigDict(
        {
            "name": "masked",
            "encoder": {"name": "vit", "variant": "tiny", "patch": 100, "dtype": "bfloat16"},
            "decoder": {"width": 256, "depth": 2, "heads": 8, "dtype": "bfloat16"},
            "mask_ratio": 0.8,
            "ncc_weight": 0.1,
            "views": "masked",
        }
    )
    config.optimizer.update({"weight_decay": 0.15, "clip_norm": None})
    config.optimizer.schedule.update({"learning_rate": 1e-5 * 128 / 4, "warmup_steps": 40 * epoch})
    config.evaluators = ConfigDict(
        {"linear_probe": common.probe("ecg/embedding"), "reconstruction": {"examples": 6}}
    )
    return config
