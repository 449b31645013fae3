"""From a preparation config to a data directory."""

from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from ecgjax.core import config as configs
from ecgjax.core import runtime
from ecgjax.core.files import write_json
from ecgjax.data.build import build, read_identifiers_file
from ecgjax.data.cohorts import COHORTS
from ecgjax.data.cohorts.synthetic import SyntheticCohort
from ecgjax.data.cohorts.synthetic.ceiling import attainable
from ecgjax.data.manifest import Manifest
from ecgjax.runs import like

SECTIONS = ("cohort", "ecg", "cmr", "examples_per_shard", "attainable")
"""What a preparation config holds at its top level."""

_FIELDS = {
    "ecg": (
        *("leads", "rate_hz", "length", "band_hz", "window", "beats", "image"),
        *("conditioning", "quality"),
    ),
    "cmr": ("height", "width", "pixel_mm", "conditioning"),
}


def prepare(
    config: ConfigDict,
    directory: epath.Path,
    *,
    workers: int = 1,
    key_file: str | None = None,
    withdrawn: epath.PathLike | None = None,
    like_run: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> Manifest:
    """Builds the data directory that `config` describes.

    With `like_run`, a workdir, its ECG settings are those of that run. `given` are the fields that the user set, by
    dotted path: they may not contradict it.
    """
    configs.check_sections(config, SECTIONS)
    config = configs.plain(config)
    _check_lead(config)
    cohort = configs.build(COHORTS, config["cohort"], "config.cohort")
    for note in getattr(cohort, "notes", ()):
        runtime.say(f"{cohort.name}: {note}.")
    ecg, cmr = config["ecg"], config["cmr"]
    for name, fields in _FIELDS.items():
        if config[name] is not None:
            configs.check_sections(config[name], fields, f"config.{name}")
    if like_run is not None:
        if ecg is None:
            raise ValueError("--like: the config prepares no ECG (config.ecg is None); leave --like out.")
        own = {
            path.removeprefix("ecg."): value
            for path, value in (given or {}).items()
            if path.startswith("ecg.")
        }
        ecg = like.with_settings(ecg, like.run_spec(like_run), like_run, own)
    sizes = {}
    if ecg is not None:
        sizes |= {"ecg_length": ecg["length"], "rate_hz": float(ecg["rate_hz"])}
        sizes |= {name: ecg[name] for name in ("window", "beats", "image")}
        sizes |= {"band_hz": ecg["band_hz"] and tuple(ecg["band_hz"])}
        sizes |= {"leads": tuple(ecg["leads"])} if ecg["leads"] else {}
    if cmr is not None:
        sizes |= {"cmr_height": cmr["height"], "cmr_width": cmr["width"], "pixel_mm": float(cmr["pixel_mm"])}
    manifest = build(
        cohort,
        directory,
        conditioning_ecg=ecg and ecg["conditioning"],
        conditioning_cmr=cmr and cmr["conditioning"],
        quality_ecg=ecg and ecg["quality"],
        examples_per_shard=config["examples_per_shard"],
        workers=workers,
        key_file=key_file,
        withdrawn=read_identifiers_file(withdrawn) if withdrawn else (),
        **sizes,
    )
    sizes = ", ".join(
        f"{name} {split.examples} of {split.subjects}" for name, split in manifest.splits.items()
    )
    runtime.say(f"{directory}: examples of subjects: {sizes}.")
    if manifest.rejects:
        runtime.say(
            f"rejected {sum(manifest.rejects.values())}: {dict(manifest.rejects)}; see {directory}/rejects.csv."
        )
    if config["attainable"]:
        _attainable(cohort, config["attainable"], directory)
    return manifest


def _check_lead(config: Mapping[str, Any]) -> None:
    """Raises where a cohort of beats reads another lead than its examples shall hold: all would be rejected."""
    if "lead" not in config["cohort"] or config["ecg"] is None:
        return
    lead, leads = config["cohort"]["lead"], list(config["ecg"]["leads"])
    if leads != [lead]:
        raise ValueError(
            f"config.cohort.lead is {lead!r}, but config.ecg.leads is {leads}; a beat is of one lead: set both to it, "
            f"such as --config.ecg.leads=\"('{lead}',)\"."
        )


def _attainable(cohort, settings: Mapping[str, Any], directory: epath.Path) -> None:
    """What no encoder of the ECG can beat, for a cohort that knows its own causes."""
    path = directory / "attainable.json"
    if path.exists():
        return
    if not isinstance(cohort, SyntheticCohort):
        raise ValueError(
            f"config.attainable: the causes of cohort {cohort.name} are not known; set it to None."
        )
    rows = attainable(seed=cohort.seed, strength=cohort.strength, **settings)
    write_json(path, {"rows": rows, "settings": dict(settings)})
    runtime.say(f"{path}: the score that no encoder of this ECG can beat.")
