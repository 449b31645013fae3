"""Response to cardiac resynchronisation, judged by cross-validation (arXiv 2306.01210): `ecgjax crossvalidate`.

    python -m ecgjax prepare --config=configs/prepare.py:synthetic_crt --like=BEATS_RUN --directory=DATA
    python -m ecgjax crossvalidate --config=configs/crt_response.py:probe --config.data.directory=DATA \\
        --config.init_from.workdir=BEATS_RUN --workdir=RUN

BEATS_RUN is a run of crt_beats.py, on the time-frequency image of beats of one lead (--config.init_from.step=best takes
its best checkpoint by validation, where it kept one). Its encoder is shared among six leads and among beats, of which
the median counts; the leads follow one another in the embedding.

`comparators`  no network: guidelines, single measures and definitions of LBBB, classical models on measures and
               clinical columns
`probe`        the run's encoder frozen, L2-logistic regression on its embedding; with a learning curve
`random`       the same with fresh weights: the control
`partial`      last block and readout trained in every fold
`full`         everything trained in every fold
`scratch`      everything trained in every fold, from fresh weights

The same five for the ECG transformer of a run of mae_ecg.py, ecg_cmr.py or unimodal.py, on data prepared like it:
`vit_probe`, `vit_random`, `vit_partial`, `vit_full`, `vit_scratch`. Give both preparations one --key_file, so that a
patient has one name in both: only then can their predictions be compared.

The paper's abstract names neither the layers that were tuned, nor the definition of response, nor folds, nor
comparators, so all of this is our choice: five folds of patients, repeated 20 times where no network is trained and
once where one is; the leads I, aVL, V1, V2, V5 and V6, by which LBBB is read; steps, rate and decay, which were set
before any cohort was looked at and stay as they are in every fold. Where a network is trained a fifth of the training
patients choose the threshold and are not trained on. The response itself is a column of the data: which rule made it
is for `ecgjax prepare` to say (config.cohort).
"""

from ml_collections import ConfigDict, config_dict

from configs import common

_MODES = ("probe", "random", "partial", "full", "scratch")
_ENCODER = r"^ecg/encoder/(.*)"

_LBBB_LEADS = ("I", "aVL", "V1", "V2", "V5", "V6")

_CLINICAL = (
    *("age", "female", "nyha", "ischaemic", "atrial_fibrillation"),
    *("lvef_pre", "lvesv_pre", "qrs_ms", "lbbb"),
)
_MEASURES = (
    *("ecg_qrs_ms", "ecg_qrs_area_uvs", "ecg_axis_deg", "ecg_pr_ms", "ecg_rate_bpm"),
    *("ecg_r_peak_time_v5_ms", "ecg_r_peak_time_v6_ms", "ecg_notched_leads", "ecg_lbbb_strauss"),
)


def get_config(arg: str = "probe") -> ConfigDict:
    recipes = {
        "comparators": _comparators,
        **{mode: lambda mode=mode: _leadwise(mode) for mode in _MODES},
        **{f"vit_{mode}": lambda mode=mode: _vit(mode) for mode in _MODES},
    }
    if arg not in recipes:
        raise ValueError(f"configs/crt_response.py:{arg}: unknown; choose from {', '.join(recipes)}.")
    return recipes[arg]()


def _judged() -> ConfigDict:
    """What all recipes share."""
    return ConfigDict(
        {
            "seed": 0,
            "response": "response",  # The binary label column to predict.
            "labels": "true",  # "permuted" gives every patient the response of another: a control.
            "split": "drawn",  # Into folds; "given" takes the splits of the data for them.
            "data": {"directory": config_dict.placeholder(str)},  # Made by `ecgjax prepare`.
            "crossvalidation": {
                "repeats": 20,
                "folds": 5,
                "inner": 5,  # Folds of the training patients, for choices and thresholds.
                "draws": 2000,  # Of patients, for intervals.
                "permutations": 2000,
                "reference": config_dict.placeholder(str),  # Every other contender is compared with this one.
                "curve": (),  # Fractions of the training patients, for a learning curve.
                "curve_of": (),
                "curve_repeats": 5,
                "label_permutations": 99,  # Whole cross-validations on permuted labels: leak alarm, and a p.
                "permuted_of": (),
                "seed": 0,
            },
            "contenders": {},  # Beside the network: by any key, `name` (classical, guideline, measure) and fields.
        }
    )


def _comparators() -> ConfigDict:
    config = _judged()
    guidelines = {
        f"{guideline}_{rule}": {"name": "guideline", "guideline": guideline, "rule": rule}
        for guideline in ("accf_aha_hrs_2012", "esc_2021", "hrs_2023")
        for rule in ("strict", "lenient")
    }
    measures = {
        column: {"name": "measure", "column": column}
        for column in (
            *("qrs_ms", "ecg_qrs_ms", "ecg_qrs_area_uvs", "ecg_notched_leads"),
            *("lbbb", "ecg_lbbb_strauss", "ecg_lbbb_aha", "ecg_lbbb_esc"),
        )
    }
    # Left bundle branch block turns the axis to the left, where degrees are fewer.
    measures["ecg_axis_deg"] = {"name": "measure", "column": "ecg_axis_deg", "higher": False}
    models = {
        model: {"name": "classical", "model": model, "columns": (*_CLINICAL, *_MEASURES)}
        for model in ("logistic", "svm", "random_forest", "gradient_boosting")
    }
    config.contenders = ConfigDict({**guidelines, **measures, **models})
    config.crossvalidation.update(
        {
            "reference": "ecg_qrs_area_uvs",
            "inner": 3,
            "curve": (0.25, 0.5, 0.75),
            "curve_of": ("logistic",),
            "permuted_of": ("logistic",),
        }
    )  # Forests are not for nothing.
    return config


def _network(name: str, mode: str) -> ConfigDict:
    """Sections of a training config that a fold reads; frozen modes read the encoder alone."""
    config, training = _judged(), common.training()
    config.name, config.mode = name, mode
    config.data.update(
        {
            "batch_size": 16,
            "crop": config_dict.placeholder(
                int
            ),  # As the run's; whole recordings where images are made of beats.
            "crops": 4,  # Evenly spaced crops whose predictions are averaged, where a crop is not the whole.
        }
    )
    config.steps = 90
    config.objective = ConfigDict({"name": "finetune", "smoothing": 0.1})
    # No noise and no drift, which the quiet stretches of a training image would show and those of a prediction not.
    config.objective.views = ConfigDict({"gain": 0.2, "shift": 7})
    config.optimizer = training.optimizer
    config.optimizer.update({"b2": 0.999, "weight_decay": 0.05})
    config.optimizer.schedule.update({"learning_rate": 1e-3, "warmup_steps": 10})
    for section in ("accumulate", "grad_cache", "mesh", "init_from"):
        config[section] = training[section]
    if mode in ("probe", "random"):
        config.crossvalidation.update({"curve": (0.25, 0.5, 0.75), "curve_of": (name,)})
        if mode == "probe":  # The one that is judged: its p shall know of the fitting.
            config.crossvalidation.permuted_of = (name,)
    else:
        config.crossvalidation.repeats = 1
    return config


def _leadwise(mode: str) -> ConfigDict:
    config = _network(mode, mode)
    config.objective.encoder = ConfigDict(
        {
            "name": "leadwise",
            "read": _LBBB_LEADS,
            "pool": "median",
            "train_beats": 1,  # Of a recording in a training step, drawn anew each time; all of them in prediction.
            "encoder": {},  # Fields that shall differ from those of the run's encoder.
        }
    )
    config.init_from.rules = ((_ENCODER, r"ecg/encoder/shared/\1"),)
    return config


def _vit(mode: str) -> ConfigDict:
    config = _network(f"vit_{mode}", mode)
    config.objective.encoder = ConfigDict({"name": "vit"})
    del config.objective["views"]  # Settings give way to a preset.
    config.objective.views = "weak"
    config.optimizer.layer_decay = 0.75
    config.optimizer.no_decay = (r"(^|/)(cls_token|positions)$",)
    config.init_from.rules = ((_ENCODER, r"ecg/encoder/\1"),)
    return config
