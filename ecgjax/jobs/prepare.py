"""Turns a cohort into conditioned ArrayRecord shards and a manifest. Run again after a kill: finished shards stay.

  python -m ecgjax prepare --config=configs/prepare.py:synthetic --directory=DATA
  python -m ecgjax prepare --config=configs/prepare.py:ptbxl --config.cohort.directory=PTBXL --directory=DATA

Damaged records are left out, counted by kind in the manifest, and listed with their reason in rejects.csv. Subject
and record identifiers are stored as keyed hashes; the key stays in DATA/private, which training never needs: keep
it apart from the shards you share. `--withdrawn=FILE` names subjects, one a line, who must not be in the data.

`--like=WORKDIR` prepares data for the encoder of a run: rate, band, conditioning and image, with its mean and
deviation, are those the run was trained on, so that both fit each other. For a run on whole recordings leads and length
are as well. What the command line sets otherwise is refused.

  python -m ecgjax prepare --config=configs/prepare.py:synthetic_crt --like=BEATS_RUN --directory=CRT_DATA

Two preparations of one cohort, for two encoders, give a patient one name where both get the same `--key_file`; only
then can their predictions be compared patient by patient.
"""

import os
from collections.abc import Mapping
from typing import Any

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from ecgjax.core import config as configs
from ecgjax.core import runtime
from ecgjax.core.files import write_json
from ecgjax.data.build import build, read_identifiers_file
from ecgjax.data.cohorts import COHORTS
from ecgjax.data.cohorts.synthetic import SyntheticCohort
from ecgjax.data.cohorts.synthetic.ceiling import attainable
from ecgjax.data.manifest import Manifest
from ecgjax.jobs import like

SECTIONS = ("cohort", "ecg", "cmr", "examples_per_shard", "attainable")
"""What a preparation config holds at its top level."""

_FIELDS = {
    "ecg": (
        *("leads", "rate_hz", "length", "band_hz", "window", "beats", "image"),
        *("conditioning", "quality"),
    ),
    "cmr": ("height", "width", "pixel_mm", "conditioning"),
}


def define() -> None:
    """Declares the flags of this job."""
    config_flags.DEFINE_config_file(
        "config", help_string="Preparation config: FILE or FILE:ARG.", lock_config=True
    )
    flags.DEFINE_string("directory", None, "Data directory to write.")
    flags.DEFINE_integer("workers", None, "Processes; default: one a core.")
    flags.DEFINE_string("key_file", None, "Secret for hashing identifiers; default: made in DATA/private.")
    flags.DEFINE_string(
        "like", None, "Run whose encoder shall read the data; its settings of the ECG are taken."
    )
    flags.DEFINE_string("withdrawn", None, "File of subject identifiers to leave out, one a line.")


def run(args: flags.FlagValues) -> int:
    """Prepares; returns the exit code."""
    if args.config is None or args.directory is None:
        raise ValueError(
            "prepare needs --config=FILE and --directory=DIR; see `python -m ecgjax prepare --help`."
        )
    runtime.start()
    prepare(
        args.config,
        epath.Path(args.directory),
        workers=args.workers or os.cpu_count() or 1,
        key_file=args.key_file,
        withdrawn=read_identifiers_file(args.withdrawn) if args.withdrawn else (),
        like_run=args.like,
        given=config_flags.get_override_values(args["config"]),
    )
    return 0


def prepare(
    config: ConfigDict,
    directory: epath.Path,
    *,
    workers: int = 1,
    key_file: str | None = None,
    withdrawn: tuple[str, ...] = (),
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
        withdrawn=withdrawn,
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
