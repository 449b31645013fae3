"""What training configs share: every section a training job reads, with its defaults."""

from ml_collections import ConfigDict, config_dict


def training() -> ConfigDict:
    """Sections common to every objective; `objective`, `steps` and rates are for the recipe to fill in."""
    config = ConfigDict()
    config.seed = 0
    config.steps = config_dict.placeholder(int)
    config.log_every = 20
    config.validate_every = 200
    config.save_every = 200
    config.data = ConfigDict(
        {
            "directory": config_dict.placeholder(str),  # Made by `ecgjax prepare`.
            "batch_size": 64,  # Global, over all processes and devices.
            "validation_batch": config_dict.placeholder(int),  # As batch_size where None; at most the split.
            "crop": 250,  # Samples; a multiple of the patch.
            "reference_crop": False,  # True leaves out the last start of a crop, as the released code does.
            "modalities": ("ecg",),
            "pairing": "true",  # "permuted" gives every ECG the CMR of another subject: a control.
            "similarity": config_dict.placeholder(str),  # A .npy [n n]: how alike the training examples are.
            "max_labels": config_dict.placeholder(int),  # Train on so many labelled examples; None for all.
            "thin": {},  # Train on a share of the examples with a label, as {"N": 0.2}.
            "cache": True,  # Decode the split into memory once: for sets that fit.
            "workers": 0,  # Processes that read and crop; 0 does so in the training process.
            "threads": 1,  # That read a batch; more pay on a slow disk only.
            "prefetch": 4,  # Batches read ahead, by each worker where there are any; at least as many as threads.
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "b1": 0.9,
            "b2": 0.95,
            "weight_decay": 0.05,
            "no_decay": (),  # Regexes of paths that decay spares.
            "layer_decay": config_dict.placeholder(float),  # 0.75 and the like; off where None.
            "clip_norm": 1.0,
            "schedule": {"name": "warmup_cosine", "learning_rate": 1e-3, "warmup_steps": 50},
        }
    )
    config.accumulate = 1  # Microbatches of one update; data.batch_size stays that of the update.
    config.grad_cache = 1  # Encoders see the batch in so many parts, a contrastive loss still all of it.
    config.mesh = ConfigDict(
        {
            "slices": 1,  # Of a TPU pod, between which the network is slow.
            "data": -1,  # Devices of a slice that share the batch; -1 takes all that fsdp leaves.
            "fsdp": 1,  # Devices that share parameters and optimiser, and the batch as well.
            "rules": (),  # Pairs (regex of a leaf's path, "fsdp", "fsdp:AXIS" or "replicated"), before the built-in.
        }
    )
    # Beside the last `keep` and those in `preserve`: the best by a validation metric, where one is named.
    config.checkpoint = ConfigDict({"keep": 2, "preserve": (0,), "best": _watched(keep=5)})
    config.stop = _watched(patience=25, max_delta=0.0)  # Early stopping, where a metric is named.
    # `also` holds further sources, each made by `source`.
    config.init_from = ConfigDict({**source(), "step": config_dict.placeholder(object), "also": ()})
    config.evaluators = ConfigDict()
    return config


def source(*rules: tuple[str, str], workdir: str = "", step: int | str = "last") -> dict:
    """A run to take weights from, for `init_from.also`: `step` is a number, `last` or `best`."""
    return {"workdir": workdir, "step": step, "rules": rules}


def _watched(**fields) -> ConfigDict:
    """Off until a metric is named, such as `val_loss`, with its mode, `max` or `min`."""
    unset = {"metric": config_dict.placeholder(str), "mode": config_dict.placeholder(str)}
    return ConfigDict({**unset, **fields})


DEMO_LABELS = 1500
"""Labelled subjects that a probe of the demo may use: pairs are plenty, labels few."""


def blocks() -> dict:
    """How the blocks of a transformer run; the defaults suit a model that fits."""
    return {
        "remat": "none",  # "dots" and "blocks" take less memory and more time.
        "scan": 0,  # Compile so many blocks and loop over the depth; 0 compiles all: longer, and faster after.
        "pad_tokens": 1,  # 8 pads the token axis to the tiles of a TPU.
        "softmax": "float32",  # "bfloat16", beside that dtype, for speed and memory on TPUs.
    }


def stages() -> dict:
    """How the blocks of a residual network run."""
    return {
        "remat": "none",  # "blocks" takes less memory and more time.
        "norm_group": config_dict.placeholder(
            int
        ),  # Examples that batch norm takes together; None for the batch.
    }


def demo_vit(*, pooling: str) -> ConfigDict:
    """The ECG encoder of launch/local.sh: patches of all leads x 0.1 s, which see the heart's axis at once."""
    sizes = {"width": 64, "depth": 2, "heads": 4, "patch": 10, "patch_leads": 12}
    return ConfigDict({"name": "vit", **sizes, "pooling": pooling, **blocks()})


def demo_resnet() -> ConfigDict:
    """The CMR encoder of launch/local.sh; group norm, so that evaluation stays a pure function of the example."""
    return ConfigDict({"name": "resnet", "variant": "tiny", **stages()})


def probe(*inputs: str, max_labels: int | None = None) -> ConfigDict:
    """A linear probe of these predictions; results land under a name that tells the number of labels."""
    config = ConfigDict({"inputs": inputs, "max_labels": config_dict.placeholder(int)})
    config.max_labels = max_labels
    return config
