import numpy as np
import pytest

from ecgjax.signals.notches import BROAD_S, lead_qrs, notched

RATE = 500


def wave(*bumps, length_s=0.16, rate_hz=RATE, st_mv=0.0):
    """Sum of half-cosine-squared bumps (centre s, half-width s, mV), and an ST segment that it ends in."""
    at = np.arange(round(length_s * rate_hz) + 1) / rate_hz
    total = st_mv * np.clip((at / length_s - 0.5) * 2, 0, 1) ** 2
    for centre, half, height in bumps:
        inside = np.abs(at - centre) < half
        total = total + inside * height * np.cos(np.pi / 2 * (at - centre) / half) ** 2
    return total


M_SHAPE = ((0.05, 0.04, 1.0), (0.11, 0.04, 0.9))
SHOULDER = ((0.05, 0.04, 1.0), (0.10, 0.05, 0.6))


@pytest.mark.parametrize("rate_hz", [250, 360, 500, 1000])
@pytest.mark.parametrize("sign", [1, -1])
def test_notches_and_slurs_are_found_at_any_rate_up_and_down(rate_hz, sign):
    assert notched(sign * wave(*M_SHAPE, rate_hz=rate_hz), rate_hz)
    assert notched(sign * wave(*SHOULDER, rate_hz=rate_hz), rate_hz)


@pytest.mark.parametrize("rate_hz", [250, 360, 500, 1000])
@pytest.mark.parametrize("half_s", [0.03, 0.05, 0.08])
def test_smooth_waves_have_none(rate_hz, half_s):
    assert not notched(wave((0.08, half_s, 1.0), rate_hz=rate_hz), rate_hz)
    assert not notched(wave((0.08, half_s, -1.0), rate_hz=rate_hz, st_mv=0.3), rate_hz)


def test_waves_of_an_rs_or_a_qrs_are_not_notches():
    assert not notched(wave((0.04, 0.025, 0.4), (0.09, 0.04, -1.5)), RATE)
    assert not notched(wave((0.02, 0.02, -0.2), (0.06, 0.03, 1.2), (0.10, 0.03, -0.5)), RATE)


def test_early_and_late_turns_are_not_in_the_middle():
    # One 30 ms after the onset, one in the last quarter; the latter counts where it comes earlier.
    assert not notched(wave((0.015, 0.015, 0.5), (0.06, 0.05, 1.0)), RATE)
    assert not notched(wave((0.08, 0.08, 1.0), (0.14, 0.012, 0.25)), RATE)
    assert notched(wave((0.08, 0.08, 1.0), (0.115, 0.012, 0.25)), RATE)


def test_a_ripple_below_20_uv_in_10_ms_is_noise():
    at = np.arange(81) / RATE
    ripple = np.sin(2 * np.pi * 40 * at)
    assert not notched(wave((0.08, 0.08, 0.2)) + 0.002 * ripple, RATE)
    assert notched(wave((0.08, 0.08, 1.0)) + 0.1 * ripple, RATE)


def test_flat_and_tiny_leads_have_none():
    assert not notched(np.zeros(81), RATE)
    assert not notched(0.05 * wave(*M_SHAPE), RATE)


@pytest.mark.parametrize(
    ("qrs", "want"),
    [
        ("QS", True),
        ("rS", True),
        ("QS with a high ST", True),
        ("rS with a high ST", True),
        ("Rs", False),
        ("rSr", False),
        ("qrS", False),
        ("R", False),
        ("flat", False),
    ],
)
def test_qs_and_rs_are_told_from_other_shapes(qrs, want):
    shapes = {
        "QS": wave((0.08, 0.07, -1.0)),
        "rS": wave((0.02, 0.02, 0.3), (0.09, 0.05, -1.5)),
        "QS with a high ST": wave((0.08, 0.07, -1.0), st_mv=0.4),
        "rS with a high ST": wave((0.02, 0.02, 0.3), (0.09, 0.05, -1.5), st_mv=0.4),
        "Rs": wave((0.05, 0.04, 1.0), (0.11, 0.03, -0.5)),
        "rSr": wave((0.03, 0.02, 0.3), (0.07, 0.03, -0.8), (0.13, 0.02, 0.3)),
        "qrS": wave((0.015, 0.015, -0.2), (0.045, 0.015, 0.3), (0.10, 0.04, -1.0)),
        "R": wave((0.08, 0.07, 1.0)),
        "flat": np.zeros(81),
    }
    assert lead_qrs(shapes[qrs], RATE).qs_or_rs is want


def test_q_is_a_negative_wave_before_r_of_half_a_small_square():
    for depth, want in ((0.04, False), (0.06, True), (0.3, True)):
        assert lead_qrs(wave((0.02, 0.02, -depth), (0.08, 0.04, 1.0)), RATE).q is want
    assert lead_qrs(wave((0.08, 0.07, -1.0)), RATE).q is False  # A QS has no q.
    assert lead_qrs(wave((0.05, 0.04, 1.0), (0.11, 0.03, -0.5)), RATE).q is False


def test_breadth_of_r_is_its_time_above_a_tenth():
    # cos^2 is above 0.1 for 0.795 of its base.
    for share, want in ((0.95, False), (1.05, True)):
        half = share * BROAD_S / 0.795 / 2
        assert lead_qrs(wave((0.08, half, 1.0)), RATE).broad_r is want
    assert lead_qrs(wave((0.06, 0.05, 0.8), (0.13, 0.03, -1.0)), RATE).broad_r is False  # S is larger.


def test_r_peak_time_is_that_of_the_last_high_peak():
    assert lead_qrs(wave((0.06, 0.04, 1.0)), RATE).r_peak_ms == pytest.approx(60, abs=2)
    assert lead_qrs(wave((0.05, 0.03, 1.0), (0.11, 0.03, 0.9)), RATE).r_peak_ms == pytest.approx(110, abs=2)
    assert lead_qrs(wave((0.05, 0.03, 1.0), (0.11, 0.03, 0.5)), RATE).r_peak_ms == pytest.approx(50, abs=2)
    assert np.isnan(lead_qrs(wave((0.08, 0.07, -1.0)), RATE).r_peak_ms)
