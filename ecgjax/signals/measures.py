"""What a reader measures on a 12-lead ECG to judge who will profit from resynchronisation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ecgjax.signals import lbbb
from ecgjax.signals.ecg import LEADS, Rate, check
from ecgjax.signals.notches import lead_qrs
from ecgjax.signals.qrs import representative_beat
from ecgjax.signals.vcg import KORS, qrs_area_uvs, qrs_vector_uvs, rows_of


def measure(
    signal_mv: Float[np.ndarray, "l t"], rate_hz: Rate, *, female: bool | None, leads: Sequence[str] = LEADS
) -> dict[str, float]:
    """The classical measures of one recording of 0.05 to 150 Hz, from 250 Hz.

    `leads` names the rows; the eight independent ones are read, and aVL and aVF follow from I and II. Flags are
    0 or 1. NaN: not evaluable (no P wave, no R, a sex that is not known where Strauss' answer hangs on it).
    Raises QualityError where nothing can be measured: "short", "nan", "flat", "amplitude" (`signals.ecg.check`),
    "rate" or "beats". Paced beats are measured like others: see `signals.pacing`.
    """
    signal = signal_mv[rows_of(KORS, leads)]
    check(signal, min_length=int(rate_hz))
    beat = representative_beat(signal, rate_hz)
    row = dict(zip(KORS, beat.signal_mv[:, beat.onset : beat.offset + 1], strict=True))
    row |= {"aVL": row["I"] - row["II"] / 2, "aVF": row["II"] - row["I"] / 2}
    shapes = {name: lead_qrs(row[name], beat.rate_hz) for name in lbbb.NOTCH_LEADS}
    vector = qrs_vector_uvs(
        beat.signal_mv, tuple(KORS), onset=beat.onset, offset=beat.offset, rate_hz=rate_hz
    )
    strauss = lbbb.strauss_2011(beat.qrs_ms, shapes, female=female)
    # aVF is an augmented lead; its true projection is 2 / sqrt(3) of it.
    axis = np.degrees(np.arctan2(row["aVF"].sum() * 2 / np.sqrt(3), row["I"].sum()))
    return {
        "ecg_qrs_ms": beat.qrs_ms,
        "ecg_qrs_area_uvs": qrs_area_uvs(vector),
        "ecg_axis_deg": float(axis),
        "ecg_pr_ms": beat.pr_ms,
        "ecg_rate_bpm": beat.rate_bpm,
        "ecg_r_peak_time_v5_ms": shapes["V5"].r_peak_ms,
        "ecg_r_peak_time_v6_ms": shapes["V6"].r_peak_ms,
        "ecg_notched_leads": float(lbbb.notched_leads(shapes)),
        "ecg_lbbb_strauss": float("nan") if strauss is None else float(strauss),
        "ecg_lbbb_aha": float(lbbb.aha_2009(beat.qrs_ms, shapes)),
        "ecg_lbbb_esc": float(lbbb.esc_2013(beat.qrs_ms, shapes)),
    }
