import io

import numpy as np
import pytest

from ecgjax.formats.recording import LEADS
from ecgjax.reports.cine_figure import cine_figure
from ecgjax.reports.ecg_paper import ecg_paper, reconstruction_paper


def lines(figure, start):
    """Lines whose name starts with `start`."""
    return [line for line in figure.axes[0].lines if (line.get_gid() or "").startswith(start)]


@pytest.fixture
def signal():
    """Lead k is flat at k / 10 mV."""
    return np.tile(np.arange(12)[:, None] / 10, (1, 1000)).astype(np.float32)


def test_a_second_is_25_mm_and_a_millivolt_10(signal):
    signal[1, 400] += 1
    strip = lines(ecg_paper(signal, rate_hz=100.0), "trace II")[-1]
    x, y = strip.get_data()
    assert x[400] - x[0] == pytest.approx(4 * 25)
    assert y[400] - y[399] == pytest.approx(10, abs=1e-4)


def test_the_sheet_is_true_to_scale(signal):
    figure = ecg_paper(signal, rate_hz=100.0)
    axes = figure.axes[0]
    inches = figure.get_size_inches()
    np.testing.assert_allclose(np.ptp(axes.get_xlim()) / 25.4, inches[0])
    np.testing.assert_allclose(np.ptp(axes.get_ylim()) / 25.4, inches[1])
    assert np.ptp(axes.get_xlim()) > 250


def test_every_lead_has_its_place_and_quarter(signal):
    figure = ecg_paper(signal, rate_hz=100.0)
    traces = lines(figure, "trace")
    names = [line.get_gid().removeprefix("trace ") for line in traces]
    assert names == ["I", "aVR", "V1", "V4", "II", "aVL", "V2", "V5", "III", "aVF", "V3", "V6", "II"]
    for line, name, column in zip(traces[:12], names, [0, 1, 2, 3] * 3, strict=False):
        x, y = line.get_data()
        assert (x[0], len(x)) == (pytest.approx(62.5 * column), 250), name
        row = ["I aVR V1 V4", "II aVL V2 V5", "III aVF V3 V6"]
        middle = (3.5 - next(k for k, text in enumerate(row) if name in text.split())) * 32
        np.testing.assert_allclose(y, middle + LEADS.index(name), atol=1e-4)


def test_each_row_has_a_calibration_pulse_of_one_millivolt(signal):
    pulses = lines(ecg_paper(signal, rate_hz=100.0), "calibration")
    assert len(pulses) == 4
    for pulse in pulses:
        x, y = pulse.get_data()
        assert np.ptp(y) == 10
        assert x[y == y.max()].tolist() == [-7.5, -2.5]  # A fifth of a second.


def test_reconstruction_is_drawn_only_where_it_was_hidden(signal):
    signal = signal[:, :250]
    hidden = np.zeros(signal.shape, bool)
    hidden[2, 50:100] = hidden[2, 200:250] = hidden[7, 0:50] = True
    figure = reconstruction_paper(signal, signal + 0.3, hidden, rate_hz=100.0)
    found = [line for line in lines(figure, "trace") if line.get_gid() == "trace"]
    assert len(found) == 12
    for row, line in enumerate(found):
        np.testing.assert_array_equal(np.isfinite(line.get_ydata()), hidden[row])
    spans = [(patch.get_x(), patch.get_width()) for patch in figure.axes[0].patches]
    column = 62.5 + 10  # V2 heads the second column's second row: leads 6 to 11.
    np.testing.assert_allclose(spans, [(12.5, 12.5), (50, 12.5), (column, 12.5)])


def test_wrong_lead_names_are_refused(signal):
    with pytest.raises(ValueError, match="12 signal rows but 2 lead names"):
        reconstruction_paper(signal, signal, signal > 9, rate_hz=100.0, leads=("I", "II"))


def test_figures_save_as_png(signal):
    for figure in (ecg_paper(signal, rate_hz=100.0, title="x"), cine_figure(np.ones((2, 3, 8, 8)))):
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=30)
        assert file.getvalue().startswith(b"\x89PNG")


def test_cine_has_a_row_a_subject_and_a_column_a_frame():
    frames = np.random.default_rng(0).random((2, 3, 8, 8))
    figure = cine_figure(frames, row_names=("a", "b"), frame_names=("ED", "mid", "ES"))
    shown = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(np.array(shown).reshape(2, 3, 8, 8), frames)
    with pytest.raises(ValueError, match="2 names for 3 frames"):
        cine_figure(frames, frame_names=("ED", "ES"))
