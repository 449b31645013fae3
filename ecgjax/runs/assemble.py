"""From a config, and what is known of its data, to one training step; `train` runs it, `plan` only compiles it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from ecgjax.core import config as configs
from ecgjax.core import mesh as meshes
from ecgjax.core.interfaces import Objective
from ecgjax.core.spec import InputSpec
from ecgjax.data import thinning
from ecgjax.data.manifest import Manifest
from ecgjax.objectives import OBJECTIVES
from ecgjax.train import optim, step
from ecgjax.train import state as states

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


Abstract = dict[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class Data:
    """What a step must know of its data before any are read; `examples` are those of the train split.

    Those of `labels` that config.data.thin names hold the share that is `kept`.
    """

    spec: InputSpec
    labels: tuple[dict[str, Any], ...]
    examples: int

    @classmethod
    def of(cls, manifest: Manifest, thin: Mapping[str, float]) -> "Data":
        """Of prepared data."""
        labels = thinning.marked(label_columns(manifest), thin)
        return cls(manifest.input_spec, labels, manifest.split("train").examples)

    def epoch(self, config: Mapping[str, Any]) -> int:
        """Examples of one epoch; of so many labels, which end with a whole subject, a few may stay unused."""
        limit, kept = config["data"]["max_labels"], self.examples - thinning.left_out(self.labels)
        return kept if limit is None else min(kept, limit)


@dataclasses.dataclass(frozen=True)
class Assembly:
    """One training step with all that it was made of; `state` is abstract, with shardings."""

    mesh: Mesh
    rules: tuple[tuple[str, str], ...]
    objective: Objective
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    state: states.TrainState
    train_step: Any
    eval_step: Any


def assemble(
    config: Mapping[str, Any], data: Data, *, devices: Sequence[jax.Device] | None = None
) -> Assembly:
    """Builds what `config` describes over `devices`, by default those of JAX; touches no device memory."""
    section = dict(config["mesh"])
    rules = tuple(tuple(rule) if isinstance(rule, list) else rule for rule in section.pop("rules", ()))
    meshes.check_rules(rules)
    mesh = configs.call(meshes.make_mesh, section, "config.mesh", devices=devices)
    batch_size = config["data"]["batch_size"]
    meshes.check_batch_size(batch_size, mesh)
    objective = make_objective(
        config["objective"], spec=data.spec, crop=config["data"]["crop"], labels=data.labels
    )
    tx, schedule = optim.build(
        config["optimizer"],
        steps=config["steps"],
        frozen=objective.frozen_paths,
        batch_size=batch_size,
        steps_per_epoch=max(data.epoch(config) // batch_size, 1),
    )
    step.check_accumulate(config["accumulate"], batch_size=batch_size, mesh=mesh)
    step.check_grad_cache(
        config["grad_cache"],
        objective=objective,
        name=config["objective"]["name"],
        accumulate=config["accumulate"],
        batch_size=batch_size,
        mesh=mesh,
    )
    check_norm_groups(
        config["objective"], examples=batch_size // config["accumulate"] // config["grad_cache"]
    )
    state = states.abstract_state(objective, tx, mesh, rules)
    parts = {name: config[name] for name in ("accumulate", "grad_cache")}
    train_step, eval_step = step.compile_steps(objective, tx, mesh, rules=rules, **parts)
    return Assembly(mesh, rules, objective, tx, schedule, state, train_step, eval_step)


def abstract_batch(config: Mapping[str, Any], data: Data, run: Assembly) -> Abstract:
    """Shapes of a training batch as the loop hands it in; raises where it lacks a modality with parameters."""
    wanted = config["data"]["modalities"]
    missing = [m for m in ("ecg", "cmr") if m in run.state.params and m not in wanted]
    if missing:
        raise ValueError(
            f"config.data.modalities is {wanted}, but objective {config['objective']['name']} reads {missing} as well."
        )
    size, spec = config["data"]["batch_size"], data.spec
    shapes = {
        "label": ((size, len(data.labels)), "float32"),
        "subject": ((size, 2), "uint32"),
        "index": ((size,), "int32"),
        "mask": ((size,), "bool"),
    }
    if "ecg" in wanted:
        shapes["ecg"] = ((size, len(spec.ecg.leads), config["data"]["crop"]), "float32")
        if spec.ecg.beats:
            shapes["beats"] = ((size, spec.ecg.beats), "int32")
        if spec.ecg.window == "beat":
            shapes["rr"] = ((size, 4), "float32")
    if "cmr" in wanted:
        shapes["cmr"] = ((size, spec.cmr.height, spec.cmr.width, len(spec.cmr.frames)), "float32")
    if config["data"]["similarity"]:
        shapes["similarity"] = ((size, data.examples), "float32")
    split = meshes.batch_sharding(run.mesh)
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=split) for name, (shape, dtype) in shapes.items()
    }


def abstract_key(run: Assembly) -> jax.ShapeDtypeStruct:
    """The shape of the key that a step draws from, as the loop hands it in."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=meshes.replicated(run.mesh))
