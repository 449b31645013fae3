"""Stage 3, fine-tuning and linear probing on labels, from a run of stage 1 (mae_ecg.py) or 2 (ecg_cmr.py).

    python -m ecgjax train --config=configs/finetune.py:demo --config.data.directory=DATA \\
        --config.init_from.workdir=MMCL_RUN --workdir=RUN
    python -m ecgjax evaluate --workdir=RUN --steps=best

On the synthetic cohort, from runs of the demos of stages 1 and 2:

`demo`             LVH, the encoder trained along
`demo_phenotypes`  all seven phenotypes
`demo_probe`       LVH from a frozen encoder: batch norm, linear map, LARS

The others, `cad`, `cad_2023_07`, `diabetes`, `diabetes_global_pool`, `af`, `wt`, `err`, `ecc`, `lv`, `lv_2023_08`,
`linear_probe_ecc` and the newest release's `linear_probe` (LARS), are the settings that the reference's scripts
recorded for UK Biobank (table below): 500 Hz, 5 s, variant tiny, 400 epochs with 5 of warm-up, seeds 0, 101, 202, 303
and 404 (--config.seed). `NAME,scratch` starts from random weights at base rate 3e-5, as the scripts do. They keep the
released quirks `norm_twice` and `missing="counted"`; both are off by default. None of these recipes was measured
here, for want of the data. Label columns are named as in the table; give yours by --config.objective.targets. Where
the size of the balanced set is not on record, steps, validate_every and save_every are yours to give: 400 epochs,
one, and ten.

They select by AUROC and PCC over the whole validation split, which is one batch here (data.validation_batch).
"""

from ml_collections import ConfigDict, config_dict

from configs import common

# The paper's training split; of the balanced CAD set, 2,015 subjects of either kind (about).
_ALL, _CAD, _UNKNOWN = 28030, 4030, None

_TABLE = {
    # name: targets, script date, examples, batch, base rate, decay, layer decay, drop path, smoothing, pooling
    "cad": (("CAD",), "2023-02..04", _CAD, 16, 1e-6, 0.2, 0.75, 0.2, 0.2, "attention"),
    "cad_2023_07": (("CAD",), "2023-07", _CAD, 16, 1e-6, 0.1, 0.75, 0.0, 0.1, "attention"),
    "diabetes": (("diabetes",), "2023-02..05", _UNKNOWN, 32, 1e-6, 0.2, 0.5, 0.0, 0.2, "attention"),
    "diabetes_global_pool": (("diabetes",), "2023-07", _UNKNOWN, 8, 3e-6, 0.1, 0.75, 0.2, 0.2, "mean"),
    "af": (("AF",), "2023-02", _UNKNOWN, 32, 1e-6, 0.1, 0.75, 0.1, 0.0, "attention"),
    "wt": ((24, 41), "2023-02", _ALL, 32, 1e-6, 0.2, 0.5, 0.2, None, "attention"),
    "err": ((58, 75), "2023-03", _ALL, 16, 3e-6, 0.2, 0.75, 0.2, None, "attention"),
    "ecc": ((41, 58), "2023-04", _ALL, 32, 3e-6, 0.2, 0.75, 0.2, None, "attention"),
    "lv": ((0, 6), "2023-05", _ALL, 16, 3e-6, 0.2, 0.75, 0.2, None, "attention"),
    "lv_2023_08": ((0, 6), "2023-08", _ALL, 8, 3e-6, 0.2, 0.5, 0.2, None, "attention"),
    "linear_probe_ecc": ((41, 58), "2023-08", _ALL, 32, 3e-6, 0.2, 0.75, 0.0, None, "mean"),
}
"""Columns of phenotypes are [lower, upper) of the 82 of UK Biobank's CMR table; "AF" is the scripts' "flutter"."""

_VIEWS = {"diabetes": {"phase": 0.075, "phase_probability": 0.5, "jitter": 0.2, "rescale": 0.25}}
_SPARED = (r"(^|/)(cls_token|positions)$",)
_ENCODER = ((r"^ecg/encoder/", "ecg/encoder/"),)


def get_config(arg: str = "demo") -> ConfigDict:
    name, *scratch = arg.split(",")
    recipes = {
        "demo": _demo,
        "demo_phenotypes": _demo_phenotypes,
        "demo_probe": _demo_probe,
        "linear_probe": _linear_probe,
        **{row: lambda row=row: _recorded(row) for row in _TABLE},
    }
    if name not in recipes or scratch not in ([], ["scratch"]):
        raise ValueError(
            f"configs/finetune.py:{arg}: unknown (',scratch' may follow a name); choose from {', '.join(recipes)}."
        )
    config = recipes[name]()
    if scratch:
        config.init_from.rules = ()
        config.objective.head_deviation = 0.02
        if "base_rate" in config.optimizer.schedule:
            config.optimizer.schedule.base_rate = 3e-5
    return config


def _recorded(name: str) -> ConfigDict:
    targets, _, examples, batch, rate, decay, layer_decay, drop_path, smoothing, pooling = _TABLE[name]
    views = _VIEWS.get(name, "finetune")
    config = _published(targets, examples, batch, epochs=400, pooling=pooling, views=views)
    config.objective.encoder.drop_path = drop_path
    if smoothing is not None:
        config.objective.smoothing = smoothing
    if name.startswith("linear_probe"):
        config.objective.mode = "probe"
    config.optimizer.update(
        {
            "b2": 0.999,
            "weight_decay": decay,
            "layer_decay": layer_decay,
            "no_decay": _SPARED,
            "clip_norm": None,
        }
    )
    config.optimizer.schedule = _half_cosine(rate, warmup_epochs=5)
    return config


def _linear_probe() -> ConfigDict:
    """The newest release's defaults: LARS at base rate 0.1, 90 epochs with 10 of warm-up, batch 512."""
    config = _published(("CAD",), _CAD, 512, epochs=90, pooling="mean")
    config.objective.mode = "probe"
    config.optimizer = ConfigDict(
        {"name": "lars", "weight_decay": 0.0, "schedule": _half_cosine(0.1, warmup_epochs=10)}
    )
    return config


def _published(targets, examples, batch, *, epochs, pooling, views="finetune") -> ConfigDict:
    """What all recorded settings share."""
    config = common.training()
    epoch = None if examples is None else examples // batch
    config.log_every = 50
    for field, count in (("steps", epochs), ("validate_every", 1), ("save_every", 10)):
        config[field] = config_dict.placeholder(int) if epoch is None else count * epoch
    config.data.update({"batch_size": batch, "crop": 2500, "cache": False, "workers": 8})
    config.data.validation_batch = 10**6  # The whole split: AUROC and PCC are no means over batches.
    encoder = {"name": "vit", "variant": "tiny", "patch": 100, "dtype": "bfloat16", **common.blocks()}
    task = "regression" if isinstance(targets[0], int) else "classification"
    config.objective = ConfigDict(
        {
            "name": "finetune",
            "task": task,
            "targets": targets,
            "encoder": {**encoder, "pooling": pooling, "positions": "learnable", "drop_path": 0.0},
            "mode": "full",
            "views": views,
            "smoothing": 0.0,
            "norm_twice": True,
            "missing": "counted",
            "head_deviation": 0.01,
        }
    )
    _watch(config, max_delta=0.0025 if task == "classification" else 0.0)
    config.init_from.rules = _ENCODER
    config.evaluators = ConfigDict({"predictions": {"targets": targets}})
    return config


def _half_cosine(base_rate: float, *, warmup_epochs: int) -> ConfigDict:
    """Rate = base rate * batch / 4, by epochs and their fractions."""
    return ConfigDict({"name": "half_cosine", "base_rate": base_rate, "warmup_epochs": warmup_epochs})


def _watch(config: ConfigDict, *, max_delta: float) -> None:
    """Keeps the best five checkpoints and stops after 25 worse validations."""
    metric = "val_auroc" if config.objective.task == "classification" else "val_pcc"
    config.checkpoint.best.update({"metric": metric, "mode": "max"})
    config.stop.update({"metric": metric, "mode": "max", "patience": 25, "max_delta": max_delta})


def _demo() -> ConfigDict:
    config = common.training()
    config.steps = 400
    config.validate_every = config.save_every = 50
    config.data.update({"batch_size": 64, "crop": 250, "validation_batch": 10**6})
    config.objective = ConfigDict(
        {
            "name": "finetune",
            "task": "classification",
            "targets": ("LVH",),
            "encoder": common.demo_vit(pooling="mean"),
            "mode": "full",
            "views": "weak",
            "smoothing": 0.1,
            "head_deviation": 0.01,
        }
    )
    config.optimizer.update({"b2": 0.999, "layer_decay": 0.75, "no_decay": _SPARED})
    config.optimizer.schedule.update({"learning_rate": 1e-3, "warmup_steps": 40})
    _watch(config, max_delta=0.0025)
    config.checkpoint.best.keep = 1
    config.init_from.rules = _ENCODER
    config.evaluators = ConfigDict({"predictions": {"targets": ("LVH",)}})
    return config


def _demo_phenotypes() -> ConfigDict:
    config = _demo()
    config.objective.update({"task": "regression", "targets": (0, 7), "smoothing": 0.0})
    config.evaluators.predictions.targets = (0, 7)
    _watch(config, max_delta=0.0)
    return config


def _demo_probe() -> ConfigDict:
    config = _demo()
    config.objective.mode = "probe"
    config.optimizer = ConfigDict({"name": "lars", "weight_decay": 0.0})
    config.optimizer.schedule = ConfigDict(
        {"name": "warmup_cosine", "learning_rate": 1.0, "warmup_steps": 40}
    )
    return config
