"""From a declarative spec and the workdirs it names to the text for a terminal and the HTML page."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from ecgjax.core.files import read_json
from ecgjax.core.result_files import read_results
from ecgjax.reports import claims, curves, intervals, probe_figures, probe_scores, probe_tables, tables
from ecgjax.reports.cine_figure import cine_figure
from ecgjax.reports.ecg_paper import ecg_paper
from ecgjax.reports.localisation_section import localisation_section
from ecgjax.reports.page import Picture, Section, page
from ecgjax.reports.report import Report
from ecgjax.reports.specs import check_keys

_KEYS = {
    "title",
    "lead",
    "rows",
    "claims",
    "curves",
    "reconstruction",
    "retrieval",
    "localisation",
    "draws",
    "seed",
}
_RETRIEVAL_KEYS = ("recall@1", "recall@5", "recall@10", "median_rank")


@dataclasses.dataclass(frozen=True, eq=False)
class Gallery:
    """A few test examples to show: ECG in mV, CMR frames, a name each; None where the data lack the modality."""

    ecg_mv: np.ndarray | None
    rate_hz: float
    cmr: np.ndarray | None
    frames: tuple[str, ...]
    names: tuple[str, ...]


def build(spec: Mapping[str, Any], *, root: epath.PathLike = ".", gallery: Gallery | None = None) -> Report:
    """Builds the report of `spec`; whatever file is missing is said where its content would stand.

    `{"title", "lead", "rows": [probe_scores.load], "claims": [claims.decide], "curves": [{"name", "workdirs",
    "control"}], "reconstruction": {"workdir", "step", "examples"}, "retrieval": [{"name", "workdir", "step"}],
    "localisation": {"workdir", "step", "examples"}, "draws", "seed"}`; all but title and rows may be left out. Paths
    are relative to `root`. A curve that is a control, such as permuted pairs, is expected to stay at ln(batch), so
    nothing is said where it does.
    """
    check_keys(spec, "report", _KEYS, needed={"title", "rows"})
    root = epath.Path(root)
    scored = probe_scores.load(
        spec["rows"], root=root, draws=spec.get("draws", 1000), seed=spec.get("seed", 0)
    )
    verdicts = claims.decide(spec.get("claims", ()), scored)
    score_tables = [
        t for t in (probe_tables.score_table(scored, metric) for metric in probe_scores.SYMBOLS) if t
    ]
    # Without a single result there is no table to say it in.
    absent_rows = [] if score_tables else [f"{r.name}: missing {', '.join(r.missing)}" for r in scored.rows]
    claim, spread = probe_tables.claim_table(verdicts), probe_tables.seed_table(scored)
    groups, missing = _curves(spec.get("curves", ()), root)
    controls = {curve["name"] for curve in spec.get("curves", ()) if curve.get("control", False)}
    warnings = curves.flat_warnings([c for name in groups if name not in controls for c in groups[name]])
    found = _retrieval_table(spec.get("retrieval", ()), root)
    sections = [
        Section("Results", warnings=absent_rows, tables=score_tables, pictures=_headline(scored)),
        *([Section("Claims", tables=[claim, *([spread] if spread else [])])] if claim else []),
        Section("Target by target", pictures=_targets(scored)),
        *([Section("Retrieval", tables=[found])] if found else []),
        *(
            [Section("Reconstruction", **_reconstruction(spec["reconstruction"], root))]
            if "reconstruction" in spec
            else []
        ),
        *([localisation_section(spec["localisation"], root)] if "localisation" in spec else []),
        *([Section("Examples", pictures=_gallery(gallery))] if gallery else []),
        *([_training(groups, missing, warnings)] if groups or missing else []),
        _provenance(scored, root),
    ]
    every = [
        *score_tables,
        *([claim] if claim else []),
        *([spread] if spread else []),
        *([found] if found else []),
    ]
    html = page(spec["title"], lead=spec.get("lead", ""), sections=sections)
    return Report(tuple(every), tuple(verdicts), tuple(warnings + missing), html)


def read_gallery(directory: epath.PathLike, *, split: str = "test", examples: int = 4) -> Gallery:
    """The first examples of a split of a prepared data directory."""
    from ecgjax.data.identifiers import as_hex
    from ecgjax.data.manifest import read_manifest
    from ecgjax.data.shards import ShardSource

    manifest = read_manifest(directory)
    source = ShardSource(directory, manifest, split)
    items = [manifest.schema.decode(source[i]) for i in range(min(examples, len(source)))]
    spec, ecg_mv, cmr = manifest.input_spec, None, None
    if spec.ecg:
        ecg_mv = np.stack(
            [x["ecg"] * x["ecg_step"] * x["ecg_scale"][:, None] + x["ecg_offset"][:, None] for x in items]
        )
    if spec.cmr:
        cmr = np.stack([np.moveaxis(x["cmr"].astype(np.float32), -1, 0) for x in items])
    subjects = as_hex(np.stack([x["subject"] for x in items]))
    return Gallery(
        ecg_mv,
        spec.ecg.rate_hz if spec.ecg else float("nan"),
        cmr,
        spec.cmr.frames if spec.cmr else (),
        tuple(f"subject {name[:8]}" for name in subjects),
    )


def _headline(scored: probe_scores.ReportResults) -> list[Picture]:
    figure = probe_figures.headline_forest(scored)
    caption = (
        "Headline means with 95 % intervals. Dashed line: the first reference row. Grey line: chance. Ticks below a "
        "bar: single training seeds."
    )
    return [Picture(figure, caption, "headline means with intervals")] if figure else []


def _targets(scored: probe_scores.ReportResults) -> list[Picture]:
    figure = probe_figures.target_forest(scored)
    caption = "Each target with 95 % intervals; same rows and marks as above. * positive control."
    return [Picture(figure, caption, "every target with intervals")] if figure else []


def _curves(specs: Sequence[Mapping[str, Any]], root: epath.Path) -> tuple[dict[str, list], list[str]]:
    groups: dict[str, list[curves.Curve]] = {}
    missing = []
    for spec in specs:
        for number, workdir in enumerate(spec["workdirs"]):
            seed = f", seed {number}" if len(spec["workdirs"]) > 1 else ""
            try:
                curve = curves.read_curve(root / workdir, name=f"{spec['name']}{seed}")
            except FileNotFoundError as error:
                missing.append(f"{spec['name']}{seed}: missing {error}")
                continue
            groups.setdefault(spec["name"], []).append(curve)
    return groups, missing


def _training(groups: dict[str, list], missing: Sequence[str], warnings: Sequence[str]) -> Section:
    pictures = []
    if groups:
        caption = "Loss by step. A contrastive loss at ln(batch) has learned nothing about pairs."
        pictures.append(Picture(probe_figures.loss_curves(groups), caption, "loss curves"))
    return Section("Training", warnings=[*warnings, *missing], pictures=pictures)


def _reconstruction(spec: Mapping[str, Any], root: epath.Path) -> dict[str, Any]:
    try:
        tree, arrays = read_results(root / spec["workdir"], "reconstruction", spec.get("step", "last"))
    except FileNotFoundError as error:
        return {"warnings": [f"missing: {error}"]}
    scalars = tree["scalars"]
    text = (
        f"Hidden samples of {scalars['n']:.0f} test ECGs: mean squared error {scalars['mse_hidden/model']:.3f} "
        f"against {scalars['mse_hidden/visible_mean']:.3f} for the mean of what is visible of the lead and "
        f"{scalars['mse_hidden/zero']:.3f} for zero (units of the conditioned ECG); correlation "
        f"{scalars['ncc_hidden/model']:.2f}."
    )
    leads = read_json(root / spec["workdir"] / "input_spec.json")["ecg"]["leads"]
    drawn = probe_figures.reconstructions(
        *(arrays[name] for name in ("original_mv", "reconstruction_mv", "hidden")),
        rate_hz=scalars["rate_hz"],
        leads=leads,
        examples=spec.get("examples", 2),
    )
    caption = "Record {}: conditioned ECG black, reconstruction blue where it was hidden (shaded)."
    pictures = [
        Picture(figure, caption.format(record[:8]), "reconstruction on ECG paper", vector=False)
        for figure, record in zip(drawn, arrays["record"], strict=False)
    ]
    return {"text": [text], "pictures": pictures}


def _retrieval_table(specs: Sequence[Mapping[str, Any]], root: epath.Path) -> tables.Table | None:
    if not specs:
        return None
    lines, chance = [], None
    for spec in specs:
        name = tables.Cell(spec["name"])
        try:
            tree, _ = read_results(root / spec["workdir"], "retrieval", spec.get("step", "last"))
        except FileNotFoundError as error:
            lines.append(tables.Line((name,), f"missing: {error}"))
            continue
        scalars = tree["scalars"]
        for way, label in (("ecg_to_cmr", "ECG finds CMR"), ("cmr_to_ecg", "CMR finds ECG")):
            cells = [_scalar_cell(scalars, f"{way}/{key}") for key in _RETRIEVAL_KEYS]
            lines.append(tables.Line((name, tables.Cell(label), *cells)))
        cells = [_scalar_cell(scalars, f"chance/{key}") for key in _RETRIEVAL_KEYS]
        chance = tables.Line(
            (tables.Cell("chance"), tables.Cell(f"{scalars['n']:.0f} pairs"), *cells), "", True
        )
    header = ("run", "direction", *(key.replace("_", " ") for key in _RETRIEVAL_KEYS))
    return tables.Table(
        "Finding the partner in the test split", header, (*lines, *([chance] if chance else []))
    )


def _scalar_cell(scalars: Mapping[str, float], key: str) -> tables.Cell:
    form = "{:.1f}".format if key.endswith("rank") else tables.fine
    return tables.cell(intervals.of_scalars(scalars, key), form)


def _gallery(gallery: Gallery) -> list[Picture]:
    pictures = []
    if gallery.cmr is not None:
        figure = cine_figure(gallery.cmr, row_names=gallery.names, frame_names=gallery.frames)
        pictures.append(
            Picture(figure, f"CMR input, frames {', '.join(gallery.frames)}.", "CMR frames", vector=False)
        )
    if gallery.ecg_mv is not None and gallery.ecg_mv.shape[1] == 12:
        figure = ecg_paper(gallery.ecg_mv[0], rate_hz=gallery.rate_hz, title=gallery.names[0])
        pictures.append(Picture(figure, "ECG input after conditioning, in mV.", "ECG on paper", vector=False))
    return pictures


def _provenance(scored: probe_scores.ReportResults, root: epath.Path) -> Section:
    """Which checkpoint each row is, and the config of every workdir."""
    details: list[tuple[str, object]] = []
    lines = [probe_tables.describe(row) for row in scored.rows if row.cells]
    for workdir in dict.fromkeys(run.workdir for row in scored.rows for run in row.runs):
        path = root / workdir / "config.json"
        details.append((f"{workdir}: config", read_json(path) if path.exists() else f"missing: {path}"))
    return Section("What was run", details=[("rows and checkpoints", "\n".join(lines)), *details])
