"""Stage 2 without negatives: ECG predicts what a slow copy of the CMR network says, and the reverse.

    python -m ecgjax train --config=configs/cross_modal_byol.py:demo --config.data.directory=DATA \
        --config.init_from.workdir=MDM_RUN --workdir=RUN

The reference's multimodal BYOL as it was meant; it never ran, so its settings are those of its parts.
Leave config.init_from.workdir empty to train from scratch.

`demo`   100 Hz, 32 px synthetic cohort: minutes on one CPU core
`paper`  500 Hz, 210 px: ResNet-50 and the tiny ViT, heads 4096 and 256, momentum 0.99, whole slices, the rest as
         configs/ecg_cmr.py:paper
"""

from ml_collections import ConfigDict

from configs import ecg_cmr

_SHARED = ("ecg", "cmr", "ecg_views", "cmr_views", "view_rate")
"""What this objective has in common with the contrastive one."""


def get_config(arg: str = "demo") -> ConfigDict:
    sizes = {"demo": {"hidden": 256, "projection": 64}, "paper": {"hidden": 4096, "projection": 256}}
    if arg not in sizes:
        raise ValueError(f"configs/cross_modal_byol.py:{arg}: unknown; choose from {', '.join(sizes)}.")
    config = ecg_cmr.get_config(arg)
    shared = {field: config.objective[field] for field in _SHARED if field in config.objective}
    config.objective = ConfigDict({"name": "cross_modal_byol", **shared, "momentum": 0.99, **sizes[arg]})
    return config
