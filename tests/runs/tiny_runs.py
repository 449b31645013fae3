"""Flags that shrink the demo recipes to the size of a test."""


def masked(data, steps=12):
    return ["--config=configs/mae_ecg.py:demo", *_common(data, steps), *_vit("encoder"), *_vit("decoder")]


def cross_modal(data, steps=12):
    return ["--config=configs/ecg_cmr.py:demo", *_common(data, steps), *_vit("ecg")]


def _common(data, steps):
    return [
        f"--config.data.directory={data}",
        "--config.data.batch_size=16",
        "--config.data.crop=100",
        f"--config.steps={steps}",
        "--config.save_every=4",
        "--config.log_every=1",
        "--config.validate_every=6",
        "--config.optimizer.schedule.warmup_steps=2",
    ]


def _vit(name):
    return [
        f"--config.objective.{name}.{key}={value}"
        for key, value in (("width", 16), ("depth", 1), ("heads", 2))
    ]
