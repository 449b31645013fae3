"""Where the first weights of a run come from: checkpoints of other runs, mapped by path rules."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from ecgjax.core import config as configs
from ecgjax.core import runtime, trees
from ecgjax.core.files import write_text
from ecgjax.core.interfaces import Tree
from ecgjax.core.spec import PER_LEAD, InputSpec
from ecgjax.runs import opening
from ecgjax.train import checkpoint
from ecgjax.train.state import TrainState
from ecgjax.train.transfer import Account, place, transfer

FIELDS = ("workdir", "step", "rules")
"""What a source says of itself; `config.init_from` holds `also`, further sources, beside them."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint to start from, and the rules by which its leaves find their places.

    `rows` of tokens is what the leads make here: positions of a source may be resized in time.
    """

    trained: opening.Trained
    workdir: str
    rules: tuple[tuple[str, str], ...]
    rows: int | None = None

    @property
    def name(self) -> str:
        """Run and step."""
        return f"{self.workdir} step {self.trained.step}"


def sections(config: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Path and section of every source of `config.init_from` that names a workdir, in order."""
    configs.check_sections(config, (*FIELDS, "also"), "config.init_from")
    found = [("config.init_from", {name: config[name] for name in FIELDS})]
    for number, section in enumerate(config["also"]):
        path = f"config.init_from.also[{number}]"
        configs.check_sections(section, FIELDS, path)
        found.append((path, section))
    return [(path, section) for path, section in found if section["workdir"]]


def open_sources(
    config: Mapping[str, Any], spec: InputSpec, state: TrainState, mesh: Mesh
) -> tuple[Source, ...]:
    """The checkpoints to start from, tried on the shapes of `state`; none where the config names none."""
    found, rows = [], opening.token_rows(config, spec)
    places = _flat(state.params, state.extra)
    for path, section in sections(config["init_from"]):
        workdir = epath.Path(section["workdir"])
        rules = tuple((pattern, replacement) for pattern, replacement in section["rules"])
        trained = opening.open_checkpoint(
            workdir,
            checkpoint.choose_step(workdir, section["step"]),
            mesh,
            wanted=lambda name, rules=rules: place(name, rules) in places,  # A decoder may be most of it.
        )
        if "ecg" in trained.params:
            check_input(config["objective"], spec, trained.spec, f"{path}.workdir {workdir}")
        found.append(Source(trained, section["workdir"], rules, rows))
    _copy(state, found)
    return tuple(found)


def check_input(objective: Mapping[str, Any], spec: InputSpec, source: InputSpec, name: str) -> None:
    """Raises where a source was trained on another kind of ECG than this run reads.

    An encoder of beats of one lead that a `leadwise` encoder shares among its leads needs no more than leads that look
    alike: which they are, and how long the recordings, is for the new run to say.
    """
    shared = source.ecg is not None and source.ecg.window == "beat" and _is_leadwise(objective)
    lines = spec.differences(source, "ecg", PER_LEAD if shared else None)
    if lines and shared:
        raise ValueError(
            f"{name} was trained on single leads of other rate, filter or image; data -> run: "
            f"{'; '.join(lines)}. Prepare the data with `ecgjax prepare --like` of that run."
        )
    if lines:
        raise ValueError(f"{name} was trained on other ECG input; data -> run: {'; '.join(lines)}.")


def _is_leadwise(objective: Mapping[str, Any]) -> bool:
    """Whether the ECG encoder of a run is one of single leads, shared among them."""
    sections = [objective.get(name) for name in ("ecg", "encoder")]
    return any(isinstance(section, Mapping) and section.get("name") == "leadwise" for section in sections)


def initialise(
    state: TrainState, sources: Sequence[Source], workdir: epath.Path, *, frozen: Sequence[str] = ()
) -> TrainState:
    """Copies weights and statistics of other runs; the origin of every leaf is printed and kept.

    `frozen` are regexes of paths that training leaves alone: what no source wrote of them is said aloud.
    """
    leaves, accounts = _copy(state, sources)
    copied = {name for account in accounts for name in account.copied}
    if left := sorted(
        {
            "/".join(name.split("/")[:2])
            for name in trees.flatten(state.params)
            if name not in copied and any(re.search(pattern, name) for pattern in frozen)
        }
    ):
        runtime.say(
            f"frozen with random weights, since no source of config.init_from wrote them: {', '.join(left)}; that is "
            f"a baseline, not a start."
        )
    if not sources:
        return state

    origins = []
    for source, account in zip(sources, accounts, strict=True):
        runtime.say(f"initialised from {source.name}: {account}")
        origins += [f"initialised from {source.name}: {account}", *account.copied]
    if runtime.is_lead():
        write_text(workdir / "init_from.txt", "\n".join(origins) + "\n")
    return _placed(state, leaves)


def started(state: TrainState, sources: Sequence[Source]) -> TrainState:
    """As `initialise`, in silence: for the folds after the first."""
    return _placed(state, _copy(state, sources)[0])


def _placed(state: TrainState, leaves: Mapping[str, Any]) -> TrainState:
    """The state with copies of these leaves, each where the old one lay: a step takes its state, sources stay."""

    def placed(tree: Tree) -> Tree:
        return trees.map_named(
            lambda name, old: jax.device_put(leaves[name], old.sharding, may_alias=False), tree
        )

    return state._replace(params=placed(state.params), extra=placed(state.extra))


def _copy(state: TrainState, sources: Sequence[Source]) -> tuple[dict[str, Any], list[Account]]:
    """Parameters and statistics by path after every source was copied; two sources never write one leaf."""
    leaves, accounts, writer = _flat(state.params, state.extra), [], {}
    for source in sources:
        given = _flat(source.trained.params, source.trained.extra)
        leaves, account = transfer(leaves, given, rules=source.rules, rows=source.rows)
        if twice := [name for name in account.copied if name in writer]:
            raise ValueError(
                f"{writer[twice[0]]} and {source.name} both write {twice[0]} (and {len(twice) - 1} more); make the "
                f"rules of config.init_from and config.init_from.also disjoint."
            )
        writer |= dict.fromkeys(account.copied, source.name)
        accounts.append(account)
    return leaves, accounts


def _flat(params: Tree, extra: Tree) -> dict[str, Any]:
    """Both by path: batch statistics lie beside the parameters of their layer, and follow the same rules."""
    flat = trees.flatten(params) | trees.flatten(extra)
    assert len(flat) == len(jax.tree.leaves((params, extra))), "a parameter and a statistic share a path"
    return flat
