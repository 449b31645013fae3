"""Curves and maps of a response."""

import shutil

import fake_response
import fake_results
import numpy as np
import pytest
from etils import epath
from fake_response import AREA

from ecgjax.reports.figures import BLUE
from ecgjax.response.report import contender_figures, contenders
from ecgjax.response.report.beat_maps import grad_cam_section
from ecgjax.response.report.build import build
from ecgjax.response.report.response_maps import response_maps_section


def test_maps_are_drawn_over_their_seconds_and_hertz(trial, tmp_path):
    root, spec = trial
    section = grad_cam_section(spec["grad_cam"], epath.Path(root))
    assert [[cell.text for cell in line.cells] for line in section.tables[0].lines] == [
        ["V", "8.4", ".00", ".910"],
        ["S", "5.6", "−.75", "–"],
    ]
    mean, example, _ = (picture.figure for picture in section.pictures)
    assert [axes.get_title("left") for axes in mean.axes] == [
        "with V",
        "with S",
        "without V",
        "without S, nobody",
    ]
    shown = mean.axes[0].images[0]
    y, x = np.unravel_index(np.argmax(shown.get_array()), shown.get_array().shape)
    left, right, bottom, top = shown.get_extent()
    assert left + (x + 0.5) * (right - left) / 24 == pytest.approx(0.0, abs=1e-9)  # V peaks on the R peak.
    assert bottom + (y + 0.5) * (top - bottom) / 16 == pytest.approx(8.4)
    ecg, image = example.axes
    assert ecg.get_title("left") == "MLII"
    line = ecg.lines[0]
    assert line.get_xdata()[np.argmax(line.get_ydata())] == 0
    assert len(image.images) == 2
    fake_response.write_grad_cam(tmp_path / "six", leads=("I", "aVL", "V1", "V2", "V5", "V6"))
    section = grad_cam_section({"workdir": "six", "examples": 1}, epath.Path(tmp_path))
    titles = [axes.get_title("left") for axes in section.pictures[1].figure.axes]
    assert titles == ["I", "aVL", "V1", "V2", "V5", "V6"]
    assert "missing: x/results/grad_cam" in grad_cam_section({"workdir": "x"}, epath.Path(root)).warnings[0]


def test_maps_of_the_response_stand_lead_by_lead_beside_the_control(trial, tmp_path):
    root, _ = trial
    for name in ("probe", "random"):
        shutil.copytree(root / name, tmp_path / name)
    responders = np.zeros((2, 4, 5))
    responders[1, 3, 0] = 2.0
    maps = {"network|map_with": responders, "network|map_without": responders / 4}
    axes = {"map|time_s": np.arange(10) / 5 - 1, "map|frequency_hz": np.arange(8.0)}
    fake_results.change(
        tmp_path / "probe",
        scalars={"network|maps_told_apart": 0.75},
        arrays={**maps, **axes, "map|leads": np.array(["I", "V6"])},
    )
    runs = [{"workdir": "probe"}, {"workdir": "random", "names": {"network": "random"}}]
    found = contenders.load(runs, root=tmp_path)
    (section,) = response_maps_section(found, ["network", "random", "missing"])
    assert [[cell.text for cell in line.cells] for line in section.tables[0].lines] == [["network", ".750"]]
    shown = section.pictures[0].figure.axes
    assert [axes.get_title("left") for axes in shown] == [
        "I, responders",
        "V6, responders",
        "I, others",
        "V6, others",
    ]
    assert all(axes.images[0].get_clim() == (0, 2) for axes in shown)
    # The peak covers the highest quarter of the frequencies and the first fifth of the seconds.
    assert shown[1].images[0].get_extent() == pytest.approx((-1.1, 0.9, -0.5, 7.5))
    assert response_maps_section(found, ["random"]) == []
    assert (
        "Grad-CAM of the response"
        in build({"title": "t", "runs": runs, "judged": "network"}, root=tmp_path).html
    )


def test_the_area_under_the_mean_roc_is_the_mean_auroc(found):
    for name in ("MIT-BIH, probe", AREA):
        contender = found.find(name)
        area = np.trapezoid(contender_figures.mean_roc(found.truth, contender.score), np.linspace(0, 1, 201))
        assert area == pytest.approx(contender.metric("auroc").value, abs=0.01)


def test_the_forest_marks_who_is_judged_whom_to_beat_and_what_was_planted(found):
    (axes,) = contender_figures.auroc_forest(found, judged="logistic", reference=AREA, planted=0.8).axes
    names = [contender.name for contender in found.contenders]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    dots = {line.get_color() for line in axes.lines if list(line.get_ydata()) == [names.index("logistic")]}
    assert dots == {BLUE}
    lines = {
        line.get_linestyle(): line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [0, 1]
    }
    assert lines == {"--": found.find(AREA).metric("auroc").value, ":": 0.8, "-": 0.5}


def test_curves_are_drawn_of_those_that_have_them(found):
    figure = contender_figures.learning_curves(found)
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "MIT-BIH, probe"]
    # Folds of 4 leave three quarters of 71 patients for training.
    np.testing.assert_allclose(line.get_xdata(), 71 * 0.75 * np.array([0.3, 0.6, 1.0]))
    shown = contender_figures.calibration_plot(found, ["guideline_esc_2021_strict", AREA])
    assert [axes.get_title("left").split("\n")[0] for axes in shown.axes] == [AREA]
    assert contender_figures.calibration_plot(found, ["guideline_esc_2021_strict"]) is None


@pytest.mark.parametrize(("hits", "n", "low", "high"), [(51, 71, 0.605, 0.810), (28, 36, 0.62, 0.88)])
def test_wilson_intervals_are_the_published_ones(hits, n, low, high):
    share, *bounds = contender_figures.wilson(hits, n)
    assert share == hits / n
    np.testing.assert_allclose(bounds, [low, high], atol=0.005)
