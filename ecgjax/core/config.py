"""Configuration is arguments: each section is `name` plus the keyword arguments of one constructor."""

import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ml_collections import ConfigDict


def bind(table: Mapping[str, Callable], section: Mapping[str, Any], path: str, **given: Any) -> Callable:
    """Looks `section.name` up in `table` and binds the rest of the section, checked against the signature.

    `given` are arguments that the program knows, such as lead count; those the constructor does not take are
    left out. Arguments that neither supplies and that have no default stay open for the caller.
    """
    fields = dict(section)
    name = fields.pop("name", None)
    if name not in table:
        raise ValueError(
            f"{path}.name: unknown {name!r}; choose from {', '.join(table)}.{_near(name, table)}"
        )
    target = table[name]
    parameters = _parameters(target)
    for key in fields:
        if key not in parameters or key in given:
            owner = (
                f"set by the program, not by the config of {name}" if key in given else f"no field of {name}"
            )
            raise ValueError(f"{path}.{key}: {owner}.{_near(key, set(parameters) - set(given))}")
    checked = {
        key: _check(value, parameters[key].annotation, f"{path}.{key}") for key, value in fields.items()
    }
    return functools.partial(target, **checked, **{k: v for k, v in given.items() if k in parameters})


def build(table: Mapping[str, Callable], section: Mapping[str, Any], path: str, **given: Any) -> Any:
    """As `bind`, then calls; a missing argument is named with its path."""
    bound = bind(table, section, path, **given)
    require(bound, path)
    return bound()


def call(function: Callable, section: Mapping[str, Any], path: str, **given: Any) -> Any:
    """As `build` for a section that needs no name, since only one function can be meant."""
    name = path.rpartition(".")[2]
    return build({name: function}, {"name": name, **section}, path, **given)


def require(bound: functools.partial, path: str, *, open_arguments: Sequence[str] = ()) -> None:
    """Raises where a required argument is neither in the section nor supplied by the program."""
    for key, parameter in _parameters(bound.func).items():
        if (
            parameter.default is inspect.Parameter.empty
            and key not in bound.keywords
            and key not in open_arguments
        ):
            raise ValueError(f"{path}.{key}: missing; {bound.func.__name__} needs it.")


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """One line for every leaf in which two records of settings differ: configs, manifests, InputSpecs.

    As `config.optimizer.learning_rate: 0.001 -> 0.01`; whoever prints it says what stands on either side. Tuples and
    lists are the same, as JSON has them.
    """
    old, new = plain(old), plain(new)
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return [] if old == new else [f"{path}: {old} -> {new}"]
    lines = []
    for key in sorted({*old, *new}):
        here = f"{path}.{key}" if path else key
        if key in old and key in new:
            lines += differences(old[key], new[key], here)
        else:
            lines.append(f"{here}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}")
    return lines


def plain(tree: Any) -> Any:
    """ConfigDicts and tuples as dicts and lists, ready for JSON."""
    if isinstance(tree, ConfigDict):
        tree = tree.to_dict()
    if isinstance(tree, Mapping):
        return {str(key): plain(value) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return [plain(value) for value in tree]
    return tree


def check_sections(config: Any, expected: Sequence[str], path: str = "config") -> None:
    """The level `path` holds exactly what a job reads there: what is not read must not be there."""
    if not hasattr(config, "keys"):
        raise ValueError(f"{path}: expected the keys {', '.join(expected)}, got {config!r}.")
    for key in config:
        if key not in expected:
            raise ValueError(f"{path}.{key}: no such key.{_near(key, expected)}")
    for key in expected:
        if key not in config:
            raise ValueError(f"{path}.{key}: missing; the configs in configs/ show what belongs there.")


def check_set(config: Mapping[str, Any], *paths: str) -> None:
    """Raises where a field that a config leaves to the user, such as `data.directory`, was not given."""
    for path in paths:
        value: Any = config
        for key in path.split("."):
            value = value[key]
        if value is None:
            raise ValueError(f"config.{path}: not set; give it as --config.{path}=VALUE.")


def _parameters(target: Callable) -> Mapping[str, inspect.Parameter]:
    # An NNX module's metaclass hides the signature of its constructor.
    signature = inspect.signature(target.__init__ if inspect.isclass(target) else target)
    return {k: p for k, p in signature.parameters.items() if k != "self" and p.kind is not p.VAR_KEYWORD}


def _near(key: Any, known) -> str:
    close = difflib.get_close_matches(str(key), [str(k) for k in known], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _check(value: Any, annotation: Any, path: str) -> Any:
    """Compares a value with a constructor's annotation; lists become tuples, ints may stand for floats."""
    if isinstance(value, list):
        value = tuple(value)
    accepted = _accepted(annotation)
    if accepted is None:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and float in accepted and int not in accepted:
        return float(value)
    literals = [x for x in accepted if not isinstance(x, type)]
    kinds = tuple(x for x in accepted if isinstance(x, type))
    if value in literals or (
        isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)
    ):
        return value
    if literals and not kinds:
        raise ValueError(
            f"{path}: unknown {value!r}; choose from {', '.join(map(str, literals))}.{_near(value, literals)}"
        )
    if value is None:
        raise ValueError(f"{path}: not set; give it as --{path}=VALUE.")
    names = " or ".join(
        ["None" if k is types.NoneType else k.__name__ for k in kinds] + [repr(x) for x in literals]
    )
    raise ValueError(f"{path}: expected {names}, got {value!r}.")


def _accepted(annotation: Any) -> list | None:
    """Types and literal values that an annotation admits; None where it cannot be checked here."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        parts = [_accepted(part) for part in typing.get_args(annotation)]
        return None if None in parts else [x for part in parts for x in part]
    if origin is Literal:
        return list(typing.get_args(annotation))
    if annotation in (None, types.NoneType):
        return [types.NoneType]
    if annotation in (int, float, bool, str, tuple):
        return [annotation]
    if origin in (tuple, Sequence):
        return [tuple]
    if origin is Mapping or annotation is Mapping:
        return [Mapping]
    return None
