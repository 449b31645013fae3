"""Before the first step, all processes compare what they are about to do."""

import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from etils import epath

import ecgjax
from ecgjax.core import config as configs
from ecgjax.core import distributed
from ecgjax.core.files import absolute

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "grain", "orbax-checkpoint", "numpy")
_PLUGINS = ("libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin")
"""What compiles for the devices; one of them at most is there."""
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_threefry_partitionable", "jax_platforms")
_ENVIRONMENT = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
"""What else decides which program is compiled."""

_WAYS_OUT = {
    "config": "start every process with the same command",
    "command": "start every process with the same flags",
    "code": "install the same ecgjax everywhere",
    "libraries": "install the same versions everywhere",
    "data": "give every host the same prepared data",
    "run": "start every process with the same --workdir",
    "settings": "start every process in the same environment",
    "devices": "look why a host does not find its accelerators, or leave it out",
}

Items = Mapping[str, Mapping[str, Any]]


def items(config: Mapping[str, Any], workdir: epath.PathLike, command: Mapping[str, Any]) -> Items:
    """What must be the same on every process, each part with its own way out.

    `command` are the flags that decide where a process waits for the others.
    """
    manifest = (epath.Path(config["data"]["directory"]) / "manifest.json").read_bytes()
    return {
        "config": config,
        "command": command,
        "code": {"version": ecgjax.__version__, "sources": _sources()},
        "libraries": {name: _version(name) for name in (*_LIBRARIES, *_PLUGINS)},
        "data": {"fingerprint": json.loads(manifest)["fingerprint"], "manifest": _digest(manifest)},
        "run": {"workdir": os.fspath(absolute(workdir))},
        "settings": {
            **{name: getattr(jax.config, name) for name in _SETTINGS},
            **{name: os.environ.get(name, "") for name in _ENVIRONMENT},
        },
        "devices": {"kind": jax.local_devices()[0].device_kind},
    }


def check(items: Items) -> None:
    """Raises on every process where one of them differs, naming the process and both values.

    Digests first: the whole, which may be long, travels only where there is something to say.
    """
    text = json.dumps(items, sort_keys=True)
    if len(set(distributed.gather("agreement", _digest(text.encode())))) == 1:
        return
    lead, *others = map(json.loads, distributed.gather("disagreement", text))
    lines, ways = [], []
    for number, other in enumerate(others, start=1):
        for name in lead:
            if found := configs.differences(lead[name], other[name], name):
                ways.append(_WAYS_OUT[name])
                lines.append(f"{distributed.name(number)} differs from process 0:")
                lines += [f"  {line}" for line in found]
    way = "; ".join(dict.fromkeys(ways))
    raise ValueError(
        "the processes do not agree, so none trains.\n" + "\n".join(lines) + f"\nThe way out: {way}."
    )


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _sources() -> str:
    """Of every source file of the package: an edit without a new version shows as well."""
    root = Path(ecgjax.__file__).parent
    sha = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        sha.update(f"{path.relative_to(root)}\n".encode())
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
