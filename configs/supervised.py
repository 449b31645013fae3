"""Supervised training on every label: what self-supervised encoders are held against.

    python -m ecgjax train --config=configs/supervised.py:ecg --config.data.directory=DATA --workdir=RUN

`ecg`  the demo's transformer on ECG
`cmr`  the demo's residual net on CMR: what the image itself says
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "ecg") -> ConfigDict:
    encoders = {"ecg": common.demo_vit(pooling="mean"), "cmr": common.demo_resnet()}
    if arg not in encoders:
        raise ValueError(f"configs/supervised.py:{arg}: unknown; choose from {', '.join(encoders)}.")
    config = common.training()
    config.steps = 800
    config.data.update({"batch_size": 64, "crop": 250, "modalities": (arg,)})
    config.objective = ConfigDict(
        {"name": "supervised", "modality": arg, "encoder": encoders[arg], "views": "weak"}
    )
    config.optimizer.schedule.update({"learning_rate": 2e-3, "warmup_steps": 80})
    labels = common.DEMO_LABELS  # Of the probe; training itself uses the labels of every subject.
    config.evaluators = ConfigDict({"linear_probe": common.probe(f"{arg}/embedding", max_labels=labels)})
    return config
