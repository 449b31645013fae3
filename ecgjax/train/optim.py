"""Optimisers by name, assembled with their schedule, groups and frozen parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import optax

from ecgjax.core import config as configs
from ecgjax.train import groups as grouping
from ecgjax.train import schedules
from ecgjax.train.groups import Group, decay_mask


def adamw(
    *,
    schedule: optax.Schedule,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.05,
    no_decay: Sequence[str] = (),
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """AdamW with decoupled decay on everything of two or more dimensions (tokens too, as in the released code).

    `no_decay` are regexes of paths to spare as well: fine-tuning spares tokens and positions.
    """
    adam = optax.adamw(
        schedule,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        mask=lambda params: decay_mask(params, no_decay),
    )
    return adam if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), adam)


def adam_l2(
    *,
    schedule: optax.Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
) -> optax.GradientTransformation:
    """Adam with the decay added to the gradient of every parameter, as in the published MMCL recipe."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.scale_by_learning_rate(schedule),
    )


def sgd(
    *, schedule: optax.Schedule, momentum: float = 0.9, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """Descent with heavy-ball momentum; the decay is added to the gradient of every parameter."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum),
        optax.scale_by_learning_rate(schedule),
    )


def lars(
    *,
    schedule: optax.Schedule,
    momentum: float = 0.9,
    trust: float = 0.001,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """LARS (arXiv:1708.03888) of the linear probe.

    The decayed gradient of a parameter of two or more dimensions is brought to `trust` times the parameter's norm,
    then enters the momentum; biases and norms are neither decayed nor adapted. The rate acts after the momentum.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
        optax.masked(optax.scale_by_trust_ratio(trust_coefficient=trust), decay_mask),
        optax.trace(momentum),
        optax.scale_by_learning_rate(schedule),
    )


OPTIMIZERS = {"adamw": adamw, "adam_l2": adam_l2, "sgd": sgd, "lars": lars}

_OWN = ("groups", "layer_decay")
"""Fields of the section that `build` reads itself; they go with every optimiser."""


def build(
    section: Mapping[str, Any],
    *,
    steps: int,
    frozen: Sequence[str] = (),
    batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    path: str = "config.optimizer",
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Builds the optimiser and its schedule; returns both, the schedule for the log.

    `groups` of the section maps names to `Group`s; each has an optimiser of its own, clipping included, and the
    remaining parameters share the plain one. `layer_decay` lowers the rate of a transformer's lower layers.
    Parameters whose path one of the regexes `frozen` finds are not updated and hold no moments.
    """
    fields = dict(section)
    if "schedule" not in fields:
        raise ValueError(f"{path}.schedule: missing section; name one of {', '.join(schedules.SCHEDULES)}.")
    schedule = schedules.build(
        fields.pop("schedule"),
        f"{path}.schedule",
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
    )
    own = {name: fields.pop(name) for name in _OWN if fields.get(name) is not None}
    fields = {name: value for name, value in fields.items() if name not in _OWN}
    tx = configs.build(OPTIMIZERS, fields, path, schedule=schedule)
    if reserved := {grouping.TRAINED, grouping.FROZEN} & set(own.get("groups", {})):
        raise ValueError(
            f"{path}.groups: {reserved.pop()!r} is what the rest is called; choose another name."
        )
    groups = {
        name: configs.call(Group, group, f"{path}.groups.{name}")
        for name, group in own.get("groups", {}).items()
    }
    if groups or frozen:
        transforms = {
            name: _for_group(group, fields, schedule, f"{path}.groups.{name}")
            for name, group in groups.items()
        }
        tx = grouping.split({grouping.TRAINED: tx, **transforms}, groups=groups, frozen=frozen)
    if "layer_decay" in own:
        tx = optax.chain(tx, configs.call(grouping.scale_layers, {"layer_decay": own["layer_decay"]}, path))
    return tx, schedule


def rates(section: Mapping[str, Any], schedule: optax.Schedule) -> dict[str, optax.Schedule]:
    """The schedules of a section that `build` accepted, by the name they are logged under: the base, each group's."""
    groups = section["groups"] if section.get("groups") is not None else {}
    return {
        "learning_rate": schedule,
        **{f"learning_rate/{name}": _rate(Group(**group), schedule) for name, group in groups.items()},
    }


def _rate(group: Group, schedule: optax.Schedule) -> optax.Schedule:
    if group.learning_rate is not None:
        return optax.constant_schedule(group.learning_rate)
    return schedule if group.scale is None else schedules.scaled(schedule, group.scale)


def _for_group(
    group: Group, fields: Mapping[str, Any], schedule: optax.Schedule, path: str
) -> optax.GradientTransformation:
    """The section's optimiser with the rate and decay of a group."""
    schedule = _rate(group, schedule)
    own = {} if group.weight_decay is None else {"weight_decay": group.weight_decay}
    return configs.build(OPTIMIZERS, {**fields, **own}, path, schedule=schedule)
