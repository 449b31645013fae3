"""What a data directory or a workdir holds, in lines and pictures."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from ecgjax.core import trees
from ecgjax.core.files import read_json
from ecgjax.core.spec import EcgSpec, InputSpec
from ecgjax.data.manifest import NAME as MANIFEST_NAME
from ecgjax.data.manifest import Manifest, TargetColumn, read_manifest
from ecgjax.data.schema import dequantise
from ecgjax.data.shards import DamagedDataError, ShardSource, verify
from ecgjax.formats.recording import LEADS
from ecgjax.reports.cine_figure import cine_figure
from ecgjax.reports.ecg_paper import ecg_paper, lead_paper
from ecgjax.reports.image_figure import image_figure
from ecgjax.reports.results import last_step
from ecgjax.runs import opening
from ecgjax.signals.stft import log_image
from ecgjax.train import checkpoint

_LEVELS = 2
"""Parameters are counted by the first two parts of their path, such as ecg/encoder."""


def describe_data(manifest: Manifest) -> list[str]:
    """Lines that say what a prepared data directory holds."""
    lines = [
        f"cohort {manifest.cohort}, prepared by ecgjax {manifest.code_version}",
        f"fingerprint {manifest.fingerprint}",
        "",
    ]
    rows = [
        (
            name,
            str(split.examples),
            str(split.subjects),
            str(len(split.shards)),
            _bytes(sum(shard.bytes for shard in split.shards)),
        )
        for name, split in manifest.splits.items()
    ]
    lines += _table(("split", "examples", "subjects", "shards", "size"), rows)
    lines += ["", *_spec_lines(manifest.input_spec)]
    if manifest.targets:
        train = manifest.splits["train"].examples
        header = ("target", "kind", "unit", "mean", "std", "prevalence", "missing", "")
        lines += ["", *_table(header, [_target_row(column, train) for column in manifest.targets])]
        lines.append(f"Statistics over the {train} training examples.")
    rejects = ", ".join(f"{kind} {count}" for kind, count in sorted(manifest.rejects.items()))
    lines += ["", f"rejected records: {rejects or 'none'}; withdrawn subjects: {manifest.withdrawn}"]
    lines += manifest.config["cohort"].get("notes", [])
    return lines


def verified(directory: epath.PathLike, manifest: Manifest) -> tuple[bool, str]:
    """Whether every byte of every shard is as the manifest says, and that in words."""
    try:
        count = verify(directory, manifest)
    except DamagedDataError as error:
        return False, f"DAMAGED: {error}"
    shards = sum(len(split.shards) for split in manifest.splits.values())
    return True, f"OK: {shards} shards, {_bytes(count)}, every SHA-256 as in the manifest"


def describe_workdir(workdir: epath.Path) -> list[str]:
    """Lines that say what a run was, how far it came and what was found."""
    if not (workdir / "config.json").exists():
        what = f"it holds {MANIFEST_NAME}: give it as --data" if (workdir / MANIFEST_NAME).exists() else ""
        raise ValueError(
            f"{workdir} holds no config.json and so is no workdir of ecgjax: "
            f"{what or 'correct --workdir, or run `ecgjax train` into it'}."
        )
    config = read_json(workdir / "config.json")
    if "converted" in config:
        return _converted_lines(workdir, config)
    manifest = read_manifest(workdir)
    steps = checkpoint.steps(workdir)
    marker = workdir / "TRAINED"
    state = f"TRAINED at step {read_json(marker)['step']}" if marker.exists() else "not TRAINED yet"
    found = ", ".join(map(str, steps)) or "none"
    lines = [
        f"objective {config['objective']['name']}, {state}, {config['steps']} steps asked for",
        f"checkpoints: {found}",
        f"data: {config['data']['directory']}, fingerprint {manifest.fingerprint}",
        "",
        *_spec_lines(manifest.input_spec),
    ]
    lines += ["", *_parameter_lines(config, manifest)]
    lines += ["", *_metric_lines(workdir / "metrics.jsonl")]
    lines += ["", *_result_lines(workdir)]
    return lines


def _converted_lines(workdir: epath.Path, config: Mapping[str, Any]) -> list[str]:
    """What `convert` made of published weights: no training, no data of its own."""
    source = config["converted"]
    return [
        f"objective {config['objective']['name']}, converted from {source['file']} (SHA-256 {source['sha256']})",
        f"data: {config['data']['directory'] or 'none; evaluate and export need --data'}",
        "",
        *_spec_lines(InputSpec.from_json(read_json(workdir / "input_spec.json"))),
        "",
        *(workdir / "convert.txt").read_text().splitlines(),
        "",
        *_result_lines(workdir),
    ]


def draw(
    directory: epath.Path, manifest: Manifest, output: epath.PathLike, *, split: str, examples: int
) -> list[epath.Path]:
    """Writes one PNG an ECG, on paper in mV, one of all time-frequency images and one of all CMR frames.

    Where an example is one beat, examples are taken at equal distances, as neighbours look alike; else the first ones.
    """
    source = ShardSource(directory, manifest, split)
    if examples > len(source):
        raise ValueError(f"--examples: {examples} asked for, split {split} holds {len(source)}.")
    output = epath.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    beats = manifest.input_spec.ecg is not None and manifest.input_spec.ecg.window == "beat"
    step = len(source) // examples if beats else 1
    rows = [manifest.schema.views(source[i * step]) for i in range(examples)]
    labels = [_labels(row, manifest.targets) for row in rows]
    names = [f"{split} {number}: {text}".rstrip(": ") for number, text in enumerate(labels)]
    paths = []
    if (spec := manifest.input_spec.ecg) is not None:
        signals = [dequantise(row["ecg"], row["ecg_step"]) for row in rows]
        for number, (signal, row, name) in enumerate(zip(signals, rows, names, strict=True)):
            millivolt = signal * row["ecg_scale"][:, None] + row["ecg_offset"][:, None]
            paths.append(output / f"ecg-{split}-{number}.png")
            _save(_paper(millivolt, spec, title=name), paths[-1])
        if spec.image is not None and spec.image.span == spec.length:
            images = (log_image(np.stack(signals), spec.image) - spec.image.mean) / spec.image.std
            paths.append(output / f"image-{split}.png")
            about = {"spec": spec.image, "rate_hz": spec.rate_hz, "leads": spec.leads}
            _save(image_figure(images, row_names=names, **about), paths[-1])
    if (spec := manifest.input_spec.cmr) is not None:
        frames = np.stack([np.moveaxis(row["cmr"].astype(np.float32), -1, 0) for row in rows])
        paths.append(output / f"cmr-{split}.png")
        _save(
            cine_figure(frames, row_names=names, frame_names=spec.frames),
            paths[-1],
        )
    return paths


def _paper(signal_mv: np.ndarray, spec: EcgSpec, *, title: str) -> Figure:
    if spec.leads == LEADS:
        return ecg_paper(signal_mv, rate_hz=spec.rate_hz, title=title)
    return lead_paper(signal_mv, rate_hz=spec.rate_hz, leads=spec.leads, title=title)


def _save(figure, path: epath.Path) -> None:
    with path.open("wb") as file:
        figure.savefig(file, format="png")


def _labels(row: Mapping[str, np.ndarray], targets: Sequence[TargetColumn]) -> str:
    """The conditions that are present; numbers of all phenotypes would not fit on the paper."""
    if not targets:
        return ""
    present = [
        column.target.name
        for column, value in zip(targets, row["label"], strict=True)
        if column.target.kind == "binary" and value == 1
    ]
    return ", ".join(present) or "no condition"


def _spec_lines(spec: InputSpec) -> list[str]:
    lines = []
    if spec.ecg is not None:
        ecg = spec.ecg
        seconds = ecg.length / ecg.rate_hz
        lines.append(
            f"ECG: {len(ecg.leads)} leads {' '.join(ecg.leads)}, {ecg.length} samples at {ecg.rate_hz:g} Hz "
            f"({seconds:g} s), in {ecg.unit}"
        )
        lines.append(f"  conditioning: {_settings(ecg.conditioning)}")
        if ecg.band_hz is not None:
            lines.append(f"  band-pass before it: {ecg.band_hz[0]:g} to {ecg.band_hz[1]:g} Hz")
        if ecg.window == "beat":
            lines.append("  an example is one beat, its R peak in the middle")
        if ecg.beats:
            lines.append(f"  R peaks beside it: up to {ecg.beats}")
        if ecg.image is not None:
            lines.append(f"  time-frequency image: {_settings(dataclasses.asdict(ecg.image))}")
    if spec.cmr is not None:
        cmr = spec.cmr
        lines.append(
            f"CMR: frames {' '.join(cmr.frames)}, {cmr.height} x {cmr.width} pixels of {cmr.pixel_mm:g} mm, {cmr.unit}"
        )
        lines.append(f"  conditioning: {_settings(cmr.conditioning)}")
    return lines


def _target_row(column: TargetColumn, train: int) -> tuple[str, ...]:
    target = column.target
    numbers = [_number(value) for value in (column.mean, column.std, column.prevalence)]
    if target.kind == "binary":
        numbers[:2] = ["", ""]
    missing = f"{1 - column.count / train:.1%}" if train else ""
    return (target.name, target.kind, target.unit, *numbers, missing, "control" if target.control else "")


def _parameter_lines(config: Mapping[str, Any], manifest: Manifest) -> list[str]:
    """Counts by branch of the model that the config builds; no checkpoint is read."""
    objective = opening.make_objective(
        config["objective"],
        spec=manifest.input_spec,
        crop=config["data"]["crop"],
        labels=opening.label_columns(manifest),
    )
    params, _ = jax.eval_shape(objective.init, jax.random.key(0))
    branches: dict[str, int] = {}
    for name, leaf in trees.flatten(params).items():
        branch = "/".join(name.split("/")[:_LEVELS])
        branches[branch] = branches.get(branch, 0) + math.prod(leaf.shape)
    rows = [(name, f"{count:,}") for name, count in branches.items()]
    return _table(("branch", "parameters"), [*rows, ("all", f"{trees.count(params):,}")])


def _metric_lines(path: epath.Path) -> list[str]:
    """The last value of every metric: training and validation are logged at different steps."""
    if not path.exists():
        return ["metrics: none yet"]
    last: dict[str, tuple[int, float]] = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # A killed run may leave half a line; the resumed one drops it.
            continue
        last |= {name: (row["step"], value) for name, value in row.items() if name not in ("step", "time")}
    return _table(("metric", "last", "step"), [(n, _number(v), str(s)) for n, (s, v) in last.items()])


def _result_lines(workdir: epath.Path) -> list[str]:
    directory = workdir / "results"
    names = sorted(path.name for path in directory.iterdir()) if directory.exists() else []
    rows = []
    for name in names:
        if (step := last_step(workdir, name)) is not None:
            rows.append((name, str(step), _headline(read_json(directory / name / f"{step}.json"))))
    return _table(("evaluator", "step", "headline"), rows) if rows else ["results: none yet"]


def _headline(tree: Mapping[str, Any]) -> str:
    """Means over targets by input and metric, without controls; else the scalars."""
    groups: dict[str, list[float]] = {}
    for row in tree["rows"]:
        if not row["control"] and row["value"] is not None:
            groups.setdefault(f"{row['input']} mean {row['metric']}", []).append(row["value"])
    means = {name: sum(values) / len(values) for name, values in groups.items()} or tree["scalars"]
    return ", ".join(f"{name} {_number(value)}" for name, value in means.items()) or "nothing scored"


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "none"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Left-aligned columns, two blanks apart."""
    rows = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
