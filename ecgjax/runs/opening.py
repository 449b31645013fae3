"""From a config and a data directory to an objective and its prediction function; shared by the jobs."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from ecgjax.core import config as configs
from ecgjax.core import mesh as meshes
from ecgjax.core.interfaces import Batch, Objective, Tree
from ecgjax.core.spec import InputSpec
from ecgjax.data.manifest import Manifest, read_manifest
from ecgjax.evaluators.base import Splits
from ecgjax.evaluators.splits import open_splits
from ecgjax.models.vit import patch_rows
from ecgjax.objectives import CONVERTED, OBJECTIVES
from ecgjax.objectives.encoders import with_variant
from ecgjax.train import checkpoint

SECTIONS = (
    "seed",
    "steps",
    "log_every",
    "validate_every",
    "save_every",
    "data",
    "objective",
    "optimizer",
    "accumulate",
    "grad_cache",
    "mesh",
    "checkpoint",
    "stop",
    "init_from",
    "evaluators",
)
"""What a training config holds at its top level."""

DATA_FIELDS = (
    "directory",
    "batch_size",
    "validation_batch",
    "crop",
    "reference_crop",
    "modalities",
    "pairing",
    "similarity",
    "max_labels",
    "thin",
    "cache",
    "workers",
    "threads",
    "prefetch",
)
"""What its section `data` holds."""


def make_objective(section: Mapping[str, Any], *, spec: InputSpec, crop: int, labels) -> Objective:
    """Builds an objective; model shapes follow from the InputSpec and the crop."""
    return configs.build(OBJECTIVES, section, "config.objective", spec=spec, crop=crop, labels=labels)


def check_norm_groups(objective: Mapping[str, Any], *, examples: int) -> None:
    """Raises where batch norm, which is given so many examples at a time, has groups that do not divide them."""
    for name, section in objective.items():
        group = section.get("norm_group") if isinstance(section, Mapping) else None
        if isinstance(group, int) and group > 0 and examples % group:
            fit = [n for n in range(1, examples + 1) if examples % n == 0]
            raise ValueError(
                f"config.objective.{name}.norm_group is {group}, which does not divide the {examples} examples of "
                f"config.data.batch_size / config.accumulate / config.grad_cache; choose one of {fit}, or None for "
                f"all of them."
            )


def label_columns(manifest: Manifest) -> tuple[dict[str, Any], ...]:
    """Label columns with their train statistics, as objectives and checkpoints hold them."""
    return tuple(manifest.to_json()["targets"])


@dataclasses.dataclass(frozen=True)
class Trained:
    """A checkpoint ready to be asked: its objective, weights, and what was saved beside them."""

    objective: Objective
    params: Tree
    extra: Tree
    step: int
    meta: Mapping[str, Any]

    @property
    def spec(self) -> InputSpec:
        """The inputs it was trained on."""
        return InputSpec.from_json(self.meta["input_spec"])

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities it has an encoder for."""
        return tuple(m for m in ("ecg", "cmr") if m in self.params)


def open_checkpoint(
    workdir: epath.PathLike,
    step: int,
    mesh: Mesh | None = None,
    *,
    wanted: Callable[[str], bool] | None = None,
) -> Trained:
    """Reads one checkpoint; model and objective come from the checkpoint itself.

    With `wanted` only leaves whose path it takes are read; the others are left as shapes.
    """
    meta = checkpoint.read_meta(workdir, step)
    config = meta["config"]
    objective = configs.build(
        {**OBJECTIVES, **CONVERTED},
        config["objective"],
        "config.objective",
        spec=InputSpec.from_json(meta["input_spec"]),
        crop=config["data"]["crop"],
        labels=meta["labels"],
    )
    shapes = jax.eval_shape(objective.init, jax.random.key(0))
    mesh = meshes.make_mesh(devices=jax.devices()[:1]) if mesh is None else mesh
    sharded = [
        jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            tree,
            meshes.shardings(tree, mesh),
        )
        for tree in shapes
    ]
    params, extra = checkpoint.read_params(workdir, step, *sharded, wanted=wanted)
    return Trained(objective, params, extra, step, meta)


def encoder_section(config: Mapping[str, Any], modality: str) -> dict[str, Any] | None:
    """The section that describes a run's encoder, sizes of its variant filled in; None where it has none."""
    objective, reader = config["objective"], {"ecg": "vit", "cmr": "resnet"}[modality]
    for name in (modality, "encoder"):
        section = objective.get(name)
        if section and section.get("name") == reader:
            return with_variant(section, f"config.objective.{name}")
    return None


def token_rows(config: Mapping[str, Any], spec: InputSpec) -> int | None:
    """Rows of tokens that the leads of an ECG make; None where the run has no ECG transformer."""
    section = encoder_section(config, "ecg")
    return patch_rows(len(spec.ecg.leads), section.get("patch_leads", 1)) if section else None


def splits_for(trained: Trained, data: str | None = None, *, crops: int = 4) -> Splits:
    """The evaluation data of a checkpoint, refused where they were conditioned otherwise than its training data."""
    config = trained.meta["config"]
    directory = data or config["data"]["directory"]
    if not directory:
        raise ValueError("the checkpoint was converted and knows no data; give it as --data=DIR.")
    check_spec(trained.spec, read_manifest(directory).input_spec, trained.modalities, directory)
    # Crops of the whole window would all be the same one.
    several = "ecg" in trained.modalities and config["data"]["crop"] < trained.spec.ecg.length
    return open_splits(
        directory,
        batch_size=max(config["data"]["batch_size"], 256),
        crop=config["data"]["crop"],
        crops=crops if several else 1,
        modalities=trained.modalities,
    )


def check_spec(trained: InputSpec, found: InputSpec, modalities: tuple[str, ...], directory) -> None:
    """Raises where data meet a checkpoint that was trained on another kind of input."""
    lines = [line for modality in modalities for line in trained.differences(found, modality)]
    if lines:
        raise ValueError(
            f"{directory} was conditioned otherwise than what the checkpoint was trained on; checkpoint against "
            f"data: {'; '.join(lines)}. Prepare the data with the checkpoint's InputSpec; "
            f"`ecgjax prepare --like` takes that of the ECG."
        )


def predictor(
    trained: Trained, keys: tuple[str, ...] | None = None
) -> Callable[[Batch], dict[str, np.ndarray]]:
    """Returns the function from a host batch to host predictions; jit prunes what `keys` leaves out."""

    @jax.jit
    def predict(params, extra, batch):
        out = trained.objective.predict(params, extra, batch)
        if absent := [key for key in keys or () if key not in out]:
            raise ValueError(f"the checkpoint predicts {sorted(out)}, not {absent}; choose among the former.")
        return out if keys is None else {key: out[key] for key in keys}

    def call(batch: Batch) -> dict[str, np.ndarray]:
        inputs = {name: batch[name] for name in (*trained.modalities, "beats", "rr") if name in batch}
        return jax.device_get(predict(trained.params, trained.extra, inputs))

    return call
