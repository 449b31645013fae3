"""Beats by the time-frequency image of one lead: what the encoder of CRT response learns first (arXiv 2306.01210).

    python -m ecgjax prepare --config=configs/prepare.py:mitbih --config.cohort.directory=MITBIH --directory=DATA
    python -m ecgjax train --config=configs/crt_beats.py:aami --config.data.directory=DATA --workdir=RUN
    python -m ecgjax evaluate --workdir=RUN --steps=best

`aami`      N, S, V, F of AAMI EC57, on the data `mitbih`; `mitbih_short` has images for the timing of the QRS
`bbb`       N, L, R, S, V, F: bundle branch block kept apart, on the data `mitbih_bbb`
`ullah4`    `aami` with four wider convolutions on images of 256 x 256, the data `mitbih_256`
`resnet`    `aami` with a ResNet-18 on the image
`vit`       `aami` with a small transformer on patches of 8 x 8 pixels of the image
`lab2020`   N, L, R, V, P, on the data `mitbih_lab2020`, whose split LEAKS: beats are drawn at random, people are not
            kept apart. What it scores is no measure of anything but that; results carry the word
`demo`      `bbb` in a minute or two, on the data `synthetic_beats`

The paper says that a convolutional network on STFT images was trained on MIT-BIH, and no more: neither layers, classes,
split nor schedule. All of this is our choice: AdamW at 2e-3 with a cosine, batches of 256; normal beats thinned to a
fifth in training only; a cross-entropy weighted by the root of how rare a class is; gain, drift, noise and 20 ms of
jitter, and bands of the image masked; the times between beats read out beside the embedding, since a supraventricular
beat is an early one that looks normal. Of ullah4 the four convolutions are on record (Remote Sensing 12:1685), of the
leaky split its classes (doi 10.1007/s00530-020-00713-1).

The best checkpoint is the one of the highest macro-F1 over all validation records, but for the last beats, which fill
no batch: with nine of ten beats normal, loss and accuracy mostly say how normal ones fare.
"""

from ml_collections import ConfigDict

from configs import common

AAMI = ("N", "S", "V", "F")
BUNDLE_BRANCH = ("N", "L", "R", "S", "V", "F")
LAB2020 = ("N", "L", "R", "V", "P")


def get_config(arg: str = "aami") -> ConfigDict:
    recipes = {
        "aami": _aami,
        "bbb": _bbb,
        "ullah4": _ullah4,
        "resnet": _resnet,
        "vit": _vit,
        "lab2020": _lab2020,
        "demo": _demo,
    }
    if arg not in recipes:
        raise ValueError(f"configs/crt_beats.py:{arg}: unknown; choose from {', '.join(recipes)}.")
    return recipes[arg]()


def _beats(classes: tuple[str, ...]) -> ConfigDict:
    config = common.training()
    config.steps = 400
    config.validate_every = config.save_every = 50
    config.data.update({"batch_size": 256, "crop": 1024})
    config.data.thin = ConfigDict({"N": 0.2})
    config.objective = ConfigDict(
        {
            "name": "finetune",
            "task": "classification",
            "targets": classes,
            "encoder": {"name": "stft_cnn", "variant": "small", "mask_frequencies": 8, "mask_times": 8},
            "views": "beats",
            "class_weights": "sqrt_inverse",
            "focal": 0.0,
            "rhythm": True,
            "hidden": 0,
        }
    )
    config.optimizer.update({"b2": 0.999, "weight_decay": 0.01})
    config.optimizer.schedule.update({"learning_rate": 2e-3, "warmup_steps": 30})
    config.checkpoint.best.update({"metric": "val_macro_f1", "mode": "max", "keep": 1})
    config.evaluators = ConfigDict(
        {name: {"targets": classes} for name in ("classes", "predictions", "grad_cam")}
    )
    return config


def _aami() -> ConfigDict:
    return _beats(AAMI)


def _bbb() -> ConfigDict:
    return _beats(BUNDLE_BRANCH)


def _ullah4() -> ConfigDict:
    config = _aami()
    config.objective.encoder.update({"variant": "ullah4", "mask_frequencies": 32, "mask_times": 32})
    return config


def _resnet() -> ConfigDict:
    config = _aami()
    config.objective.encoder.update({"name": "stft_resnet", "variant": "resnet18_2d"})
    return config


def _vit() -> ConfigDict:
    config = _aami()
    sizes = {"width": 128, "depth": 4, "heads": 4, "patch": (8, 8)}
    masks = {"mask_frequencies": 8, "mask_times": 8}
    config.objective.encoder = ConfigDict({"name": "stft_vit", **sizes, **masks})
    del config.evaluators["grad_cam"]  # Of a map, which it does not have.
    return config


def _lab2020() -> ConfigDict:
    return _beats(LAB2020)


def _demo() -> ConfigDict:
    config = _bbb()
    config.steps = 400
    config.validate_every = config.save_every = 50
    config.data.batch_size = 64
    config.objective.encoder.update({"widths": (8, 16, 32)})
    config.optimizer.schedule.warmup_steps = 10
    return config
