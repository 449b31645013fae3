import io

import fake_runs
import numpy as np
import pytest
from etils import epath
from PIL import Image

from ecgjax.formats.recording import LEADS
from ecgjax.reports import localisation_figure as figures
from ecgjax.reports.localisation_section import localisation_section
from ecgjax.reports.page import Animation

SCALE = figures.importance_scale(0.6)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def strips(figure, start):
    """What is drawn as colour under a name."""
    found = {image.get_gid(): image for image in figure.axes[0].images}
    return {gid.removeprefix(start): found[gid] for gid in found if gid.startswith(start)}


@pytest.mark.parametrize(("seconds", "columns"), [(2.5, 2), (10.0, 1)])
def test_every_lead_has_its_own_strip_behind_its_own_trace(seconds, columns):
    signal, importance = fake_runs.ecg_like(seconds=seconds), draw(12, 5)
    figure = figures.ecg_map_paper(signal, importance, rate_hz=100.0, leads=LEADS, scale=SCALE)
    drawn, means = strips(figure, "strip "), strips(figure, "mean ")
    traces = {line.get_gid().removeprefix("trace "): line for line in figure.axes[0].lines if line.get_gid()}
    assert set(drawn) == {*LEADS, "of all leads"}
    tops = set()
    for number, lead in enumerate(LEADS):
        values = np.asarray(drawn[lead].get_array())[0]
        np.testing.assert_array_equal(values, importance[number])
        assert np.asarray(means[lead].get_array()).item() == pytest.approx(values.mean(), abs=1e-6)
        left, right, low, high = drawn[lead].get_extent()
        x, y = traces[lead].get_data()
        assert left <= x.min()
        assert x.max() <= right
        assert low < y.min()
        assert y.max() < high
        np.testing.assert_allclose(np.ptp(y), 10 * np.ptp(signal[number]), rtol=1e-4)
        tops.add((left, high))
    assert len(tops) == 12
    assert len({left for left, _ in tops}) == columns
    np.testing.assert_allclose(
        np.asarray(drawn["of all leads"].get_array())[0], importance.mean(0), atol=1e-6
    )


def test_leads_that_share_a_patch_share_a_strip_and_limits_are_fixed():
    importance = 0.1 * draw(2, 5)
    figure = figures.ecg_map_paper(
        fake_runs.ecg_like(), importance, rate_hz=100.0, leads=LEADS, scale=SCALE, title="record"
    )
    drawn = strips(figure, "strip ")
    np.testing.assert_array_equal(drawn["I"].get_array(), drawn["aVF"].get_array())
    assert not np.array_equal(drawn["aVF"].get_array(), drawn["V1"].get_array())
    assert {image.get_clim() for image in drawn.values()} == {(-1.0, 1.0)}
    assert any(SCALE.label in axes.get_title(loc="left") for axes in figure.axes)


def test_map_rows_that_do_not_fit_the_leads_are_refused():
    with pytest.raises(ValueError, match="5 map rows"):
        figures.ecg_map_paper(fake_runs.ecg_like(), draw(5, 4), rate_hz=100.0, leads=LEADS, scale=SCALE)


def test_the_map_covers_every_frame():
    frames, importance = np.abs(draw(16, 20, 3)), draw(4, 5)
    figure = figures.cmr_map_figure(frames, importance, frame_names=("ES", "mid", "ED"), scale=SCALE)
    grid = np.array(figure.axes[:8]).reshape(2, 4)
    for column in range(3):
        assert len(grid[0, column].images) == 1
        base, overlay = grid[1, column].images
        np.testing.assert_array_equal(base.get_array(), frames[..., column])
        np.testing.assert_array_equal(overlay.get_array(), importance)
        assert overlay.get_extent() == base.get_extent()
        assert overlay.get_clim() == (-1.0, 1.0)


def test_times_of_the_pairwise_strip_are_those_marked_on_the_lead():
    signal, importance = fake_runs.ecg_like()[1], draw(10, 4, 4)
    figure = figures.pairwise_figure(
        signal, np.abs(draw(16, 16)), importance, rate_hz=100.0, lead="II", scale=SCALE
    )
    above, *below = figure.axes[: 1 + figures.TIMES]
    marks = [line.get_xdata()[0] for line in above.lines[1:]]
    assert [f"{mark:.2f} s" for mark in marks] == [axes.get_title() for axes in below]
    assert marks[0] == pytest.approx(0.125)
    assert marks[-1] == pytest.approx(2.375)
    assert above.get_ylabel() == "lead II, mV"


def test_the_animation_has_a_picture_for_every_time():
    options = {"rate_hz": 100.0, "lead": "II", "scale": SCALE}
    arguments = fake_runs.ecg_like()[1], np.abs(draw(16, 16)), draw(4, 4, 4)
    gif = figures.pairwise_animation(*arguments, **options)
    with Image.open(io.BytesIO(gif)) as image:
        assert (image.format, image.n_frames) == ("GIF", 4)
        assert image.info["loop"] == 0
    assert figures.pairwise_animation(*arguments, **options) == gif


@pytest.mark.parametrize("softmax", [False, True])
def test_the_section_shows_results_and_says_what_they_are_not(tmp_path, softmax):
    fake_runs.write_localisation(tmp_path / "mmcl", softmax=softmax)
    section = localisation_section({"workdir": "mmcl", "examples": 1}, epath.Path(tmp_path))
    assert "no evidence" in section.text[0]
    assert "61% of comparisons [55%, 66%] (chance 50 %)" in section.text[1]
    assert "40% of the CMR map lies in the region" in section.text[1]
    assert len(section.pictures) == 5
    assert sum(isinstance(picture, Animation) for picture in section.pictures) == 1
    assert "A patch spans 2 leads, which share a strip." in section.pictures[0].caption


def test_the_section_names_missing_results_and_unknown_keys(tmp_path):
    assert "results/localisation" in localisation_section({"workdir": "a"}, epath.Path(tmp_path)).warnings[0]
    with pytest.raises(ValueError, match=r"unknown \['workdirs'\]"):
        localisation_section({"workdirs": "a"}, epath.Path(tmp_path))
