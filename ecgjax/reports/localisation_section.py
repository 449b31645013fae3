"""The part of a report that shows which beats and which places of the image resemble each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from ecgjax.core.files import read_json
from ecgjax.core.result_files import read_results
from ecgjax.reports import intervals
from ecgjax.reports import localisation_figure as figures
from ecgjax.reports.page import Animation, Picture, Section
from ecgjax.reports.specs import check_keys

TITLE = "Localisation"
_KEYS = {"workdir", "step", "examples"}
_CAUTION = (
    "A map says which times and places the model finds like the other half of the pair. It is no evidence of where "
    "a finding lies, and nobody has marked where it should be."
)


def localisation_section(spec: Mapping[str, Any], root: epath.Path) -> Section:
    """Scores and figures of the evaluator's results under `{"workdir", "step", "examples"}`."""
    check_keys(spec, "localisation", _KEYS)
    try:
        tree, arrays = read_results(root / spec["workdir"], "localisation", spec.get("step", "last"))
    except FileNotFoundError as error:
        return Section(TITLE, warnings=[f"missing: {error}"])
    inputs = read_json(root / spec["workdir"] / "input_spec.json")
    pictures: list[Picture | Animation] = []
    for number in range(min(spec.get("examples", 1), len(arrays["record"]))):
        one = {name: array[number] for name, array in arrays.items()}
        pictures += _pictures(one, inputs, tree, animated=number == 0)
    return Section(TITLE, text=[_CAUTION, _scores(tree["scalars"])], pictures=pictures)


def _scores(scalars: Mapping[str, float]) -> str:
    lines = []
    for half, name, other in (("ecg", "ECG", "CMR"), ("cmr", "CMR", "ECG")):
        auc = intervals.of_scalars(scalars, f"{half}/partner_auc")
        lines.append(
            f"The best place of the {name} is more like its own {other} than like another subject's in "
            f"{auc.value:.0%} of comparisons [{auc.low:.0%}, {auc.high:.0%}] (chance 50 %). "
            f"{scalars[f'{half}/shared_variance']:.0%} of the variance of the {name} map is the same for everyone; its "
            f"entropy is {scalars[f'{half}/entropy']:.3f} of a flat map's, {scalars[f'{half}/entropy_other']:.3f} with "
            "another subject as partner."
        )
    if "cmr/region" in scalars:
        lines.append(
            f"{scalars['cmr/region']:.0%} of the CMR map lies in the region of interest, whose area is "
            f"{scalars['chance/region']:.0%} of the image."
        )
    return f"Over {scalars['n']:.0f} examples of the split. " + " ".join(lines)


def _pictures(one, inputs, tree, *, animated: bool) -> list[Picture | Animation]:
    leads, names = inputs["ecg"]["leads"], inputs["cmr"]["frames"]
    rate_hz, settings = tree["scalars"]["rate_hz"], tree["settings"]
    record = f"Record {str(one['record'])[:8]}"
    rows = one["ecg/map"].shape[0]
    shared = "" if rows == len(leads) else f" A patch spans {len(leads) // rows} leads, which share a strip."
    maps, scales = {}, {}
    for name in ("ecg", "cmr", "pairwise"):
        maps[name], scales[name] = _scaled(one[f"{name}/map"], name, settings)
    received = one["attention/map"].mean(0)
    received = received / received.mean()
    paper = {"rate_hz": rate_hz, "leads": leads}
    ecg = figures.ecg_map_paper(one["ecg_mv"], maps["ecg"], scale=scales["ecg"], **paper)
    cmr = figures.cmr_map_figure(one["cmr"], maps["cmr"], frame_names=names, scale=scales["cmr"])
    attention = figures.ecg_map_paper(
        one["ecg_mv"],
        received,
        scale=figures.share_scale("attention received, times an even share", received),
        **paper,
    )
    # Lead II is what a clinician reads rhythm from; without it, the first.
    lead = leads.index("II") if "II" in leads else 0
    frame = one["cmr"][..., len(names) // 2]
    strip = {"rate_hz": rate_hz, "lead": leads[lead], "scale": scales["pairwise"]}
    pair = figures.pairwise_figure(one["ecg_mv"][lead], frame, maps["pairwise"], **strip)
    frame_name = names[len(names) // 2]
    found: list[Picture | Animation] = [
        Picture(ecg, f"{record}: each time of the ECG against the whole CMR.{shared}", "ECG map", False),
        Picture(cmr, f"{record}: each place of the CMR against the whole ECG.", "CMR map", False),
        Picture(
            pair,
            f"{record}: each place of the CMR (frame {frame_name}) against single times of the ECG, mean over leads.",
            "pairwise map at some times",
            False,
        ),
    ]
    if animated:
        gif = figures.pairwise_animation(one["ecg_mv"][lead], frame, maps["pairwise"], **strip)
        found.append(Animation(gif, f"{record}: the same through all times.", "pairwise map as animation"))
    caption = f"{record}: attention that each patch receives in the last block, mean over heads.{shared}"
    return [*found, Picture(attention, caption, "attention map", False)]


def _scaled(values: np.ndarray, name: str, settings: Mapping[str, Any]):
    """A map with its scale: as it is, or as shares in multiples of a flat map's."""
    if not settings["softmax"]:
        return values, figures.importance_scale(settings["temperature"])
    shares = values / values.mean(axis=(-2, -1), keepdims=True)
    return shares, figures.share_scale("share of the map, times an even share", shares)
