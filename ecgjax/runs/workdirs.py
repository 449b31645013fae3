"""A workdir belongs to one config and one data directory; resuming with others is refused."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from ecgjax.core import config as configs
from ecgjax.core import runtime
from ecgjax.core.files import read_json, write_json
from ecgjax.data import manifest as manifests
from ecgjax.train import checkpoint

_HARMLESS = (
    *("log_every", "validate_every", "save_every", "mesh", "checkpoint", "evaluators", "data.cache"),
    *("data.workers", "data.threads", "data.prefetch", "data.validation_batch", "objective.tile"),
    # How blocks run: equal to float tolerance.
    *(
        f"objective.{part}.{how}"
        for part in ("encoder", "decoder", "ecg", "cmr")
        for how in ("remat", "scan", "pad_tokens")
    ),
    "stop",  # When to end is for the watcher to say; the updates until then stay the same.
)
"""Sections that may change on resume: they do not change what is trained."""

_OFF = (
    *(f": absent -> {value}" for value in (None, [], {})),
    *("accumulate: absent -> 1", "grad_cache: absent -> 1", "mesh.slices: absent -> 1"),
    *("data.reference_crop: absent -> False", "data.threads: absent -> 1", "data.prefetch: absent -> 4"),
    *(
        ".remat: absent -> none",
        ".scan: absent -> 0",
        ".pad_tokens: absent -> 1",
        ".softmax: absent -> float32",
    ),
)
"""A field that an older workdir lacks and that is what there was before it says nothing new."""


def open_workdir(workdir: epath.Path, config: Mapping[str, Any], manifest: manifests.Manifest) -> None:
    """Creates the workdir, or checks that it belongs to this config and data; of several processes the lead first."""
    if not runtime.is_lead() and not (workdir / "config.json").exists():
        raise ValueError(
            f"{workdir} holds no config.json, though process 0 has just written it there: the processes do not see "
            f"one directory. Choose a --workdir on a file system that all share, or a gs:// bucket."
        )
    for line in check_workdir(workdir, config, manifest):
        runtime.say(f"resuming with {line}")
    if runtime.is_lead() and not checkpoint.steps(workdir):
        write_json(workdir / "input_spec.json", manifest.input_spec.to_json())
        write_json(workdir / "manifest.json", manifest.to_json())
        write_json(workdir / "config.json", config)


def check_workdir(workdir: epath.Path, config: Mapping[str, Any], manifest: manifests.Manifest) -> list[str]:
    """Raises where this run may not go on, or begin, in the workdir; what differs from it and does no harm."""
    saved = workdir / "config.json"
    if not saved.exists():
        strangers = (
            sorted(p.name for p in workdir.iterdir() if p.name != "compile_cache") if workdir.exists() else []
        )
        if strangers:
            raise ValueError(
                f"{workdir} is not empty and holds no config.json ({', '.join(strangers[:5])}); it is not a workdir "
                f"of ecgjax: choose another directory."
            )
    if not saved.exists() or not checkpoint.steps(workdir):  # Nothing saved, nothing to protect.
        return []
    changed = configs.differences(read_json(saved), config, "config")
    changed = [line for line in changed if not line.endswith(_OFF)]
    harmful = [line for line in changed if not line.startswith(tuple(f"config.{name}" for name in _HARMLESS))]
    if harmful:
        raise ValueError(
            f"{workdir} belongs to another config:\n  "
            + "\n  ".join(harmful)
            + "\nResume with the config it was "
            "started with, or choose another --workdir."
        )
    before = manifests.Manifest.from_json(read_json(workdir / "manifest.json")).fingerprint
    if before != manifest.fingerprint:
        raise ValueError(
            f"{workdir} was trained on data of fingerprint {before[:12]}, {config['data']['directory']} has "
            f"{manifest.fingerprint[:12]}; restore the data, or choose another --workdir."
        )
    return changed
