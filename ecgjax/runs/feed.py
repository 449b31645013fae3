"""The batches of a run: those rows of them that the devices of this process hold."""

import functools
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from ecgjax.core import config as configs
from ecgjax.core import mesh as meshes
from ecgjax.data import manifest as manifests
from ecgjax.data import pipeline


def train_batches(config: Mapping[str, Any], mesh: Mesh) -> pipeline.TrainBatches:
    """Endless batches of the train split, as `config.data` has them."""
    fields = {name: value for name, value in config["data"].items() if name != "validation_batch"}
    return configs.call(
        pipeline.train_batches,
        fields,
        "config.data",
        seed=config["seed"],
        rows=meshes.process_rows(mesh, config["data"]["batch_size"]),
    )


def validation_batches(config: Mapping[str, Any], manifest: manifests.Manifest, mesh: Mesh):
    """Whole batches only: a contrastive loss depends on the number of negatives, so padding would change it.

    A metric that is no mean over examples, such as AUROC, is that of the split where one batch holds all of it:
    `validation_batch` may be any number up to there, and beyond it means just that.
    """
    data, examples = config["data"], manifest.split("val").examples
    wanted = data["batch_size"] if data["validation_batch"] is None else data["validation_batch"]
    size = min(wanted, examples) // mesh.size * mesh.size
    if wanted < mesh.size:
        raise ValueError(
            f"config.data.validation_batch is {wanted}; it must be at least {mesh.size}, one example a device."
        )
    if size == 0:
        raise ValueError(
            f"split val holds {examples} examples, fewer than {mesh.size} devices; prepare more."
        )
    open_batches = functools.partial(
        pipeline.evaluation_batches,
        data["directory"],
        split="val",
        batch_size=size,
        crop=data["crop"],
        modalities=data["modalities"],
        cache=data["cache"],
        threads=data["threads"],
        prefetch=data["prefetch"],
        rows=meshes.process_rows(mesh, size),
    )

    def batches():
        for number, batch in enumerate(open_batches()):
            if number < examples // size:
                yield batch

    return batches
