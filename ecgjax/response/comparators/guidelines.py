"""What guidelines say about implanting CRT, as pure functions of six facts; what is missing counts only if it matters.

Rows that were not read in the guideline's own text, but in accounts of it, are marked "to be verified". Upgrades of
paced patients, atrioventricular block and NYHA I with an ischaemic cause (a IIb tier of the American documents) are
outside of all of them: their answer here is `NONE`, which neither binary rule counts as yes.
"""

import dataclasses
import enum
import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Literal


class Class(enum.IntEnum):
    """Class of recommendation, ordered from advice against to advice for; `NONE` is no recommendation either way."""

    III = 0
    NONE = 1
    IIB = 2
    IIA = 3
    I = 4


@dataclasses.dataclass(frozen=True)
class Facts:
    """One patient, complete: LVEF in %, QRS duration in ms, NYHA class 1 to 4."""

    lvef: float
    rhythm: Literal["sinus", "fibrillation", "other"]
    lbbb: bool
    qrs_ms: float
    nyha: int
    female: bool


def accf_aha_hrs_2012(facts: Facts) -> Class:
    """ACCF/AHA/HRS focused update 2012/13: LVEF <= 35 %, QRS >= 120 ms.

    LBBB and NYHA II-IV: I from 150 ms, IIa from 120. Otherwise from 150 ms IIa in NYHA III-IV and IIb in II; from
    120 ms IIb in III-IV and III in I-II. To be verified: atrial fibrillation has IIa at best (rate control or
    ablation so that nearly all beats are paced being assumed).
    """
    if facts.lvef > 35 or facts.qrs_ms < 120:
        return Class.NONE
    return _in_fibrillation(facts, _american(facts, Class.IIA))


def hrs_2023(facts: Facts) -> Class:
    """HRS/APHRS/LAHRS 2023: as 2012, but below 120 ms III (no benefit), and two tiers more.

    To be verified: women with LBBB of 120-149 ms have I; LVEF 36-50 % with LBBB from 150 ms in NYHA II-IV has IIb;
    atrial fibrillation has IIa at best.
    """
    if facts.qrs_ms < 120:
        return Class.III
    if facts.lvef > 35:
        borderline = facts.lvef <= 50 and facts.lbbb and facts.qrs_ms >= 150 and facts.nyha >= 2
        return Class.IIB if borderline and facts.rhythm != "other" else Class.NONE
    return _in_fibrillation(facts, _american(facts, Class.I if facts.female else Class.IIA))


def esc_2021(facts: Facts) -> Class:
    """ESC 2021, to be verified in every row: LVEF <= 35 %, symptomatic (NYHA II-IV), QRS >= 130 ms; below it III.

    Sinus rhythm: LBBB I from 150 ms and IIa from 130; otherwise IIa and IIb. Atrial fibrillation: IIa in NYHA III-IV
    (nearly complete biventricular capture being assumed).
    """
    if facts.qrs_ms < 130:
        return Class.III
    if facts.lvef > 35 or facts.nyha < 2 or facts.rhythm == "other":
        return Class.NONE
    if facts.rhythm == "fibrillation":
        return Class.IIA if facts.nyha >= 3 else Class.NONE
    wide = facts.qrs_ms >= 150
    if facts.lbbb:
        return Class.I if wide else Class.IIA
    return Class.IIA if wide else Class.IIB


def ccs_2017(facts: Facts) -> Class:
    """CCS 2017: LVEF <= 35 %, NYHA II-IV; strong for LBBB from 130 ms, weak otherwise from 150; against below 130.

    Its two strengths are given as I and IIa (our choice), so that the lenient rule takes any advice for CRT. To be
    verified: atrial fibrillation has a weak recommendation where sinus rhythm has any.
    """
    if facts.qrs_ms < 130:
        return Class.III
    if facts.lvef > 35 or facts.nyha < 2:
        return Class.NONE
    if facts.lbbb:
        found = Class.I
    else:
        found = Class.IIA if facts.qrs_ms >= 150 else Class.NONE
    return _in_fibrillation(facts, found)


GUIDELINES: Mapping[str, Callable[[Facts], Class]] = {
    "accf_aha_hrs_2012": accf_aha_hrs_2012,
    "esc_2021": esc_2021,
    "hrs_2023": hrs_2023,
    "ccs_2017": ccs_2017,
}

RULES: Mapping[str, frozenset[Class]] = {
    "strict": frozenset({Class.I}),
    "lenient": frozenset({Class.I, Class.IIA}),
}
"""The classes that a binary rule counts as yes."""


def classes(
    guideline: str,
    *,
    lvef: float,
    sinus_rhythm: float,
    atrial_fibrillation: float,
    lbbb: float,
    qrs_ms: float,
    nyha: float,
    female: float,
) -> frozenset[Class]:
    """Every class that the known facts leave possible, NaN being a fact that is not known; one if it is settled."""
    _check(lvef, qrs_ms, nyha)
    possible = (
        _LVEF if math.isnan(lvef) else (lvef,),
        _rhythms(sinus_rhythm, atrial_fibrillation),
        _flags(lbbb, "lbbb"),
        _QRS_MS if math.isnan(qrs_ms) else (qrs_ms,),
        (1, 2, 3, 4) if math.isnan(nyha) else (int(nyha),),
        _flags(female, "female"),
    )
    return _answers(guideline, possible)


def recommend(guideline: str, **facts: float) -> Class | None:
    """The class, or None: not evaluable, because it depends on a fact that is missing. See `classes`."""
    found = classes(guideline, **facts)
    return next(iter(found)) if len(found) == 1 else None


def decide(guideline: str, rule: str, **facts: float) -> bool | None:
    """The binary rule's answer, or None: not evaluable. Settled where all possible classes agree about it."""
    answers = {found in RULES[rule] for found in classes(guideline, **facts)}
    return answers.pop() if len(answers) == 1 else None


_LVEF = (20.0, 35.0, 36.0, 50.0, 51.0)
"""One value at least of every range that a guideline tells apart; as is `_QRS_MS`."""
_QRS_MS = (100.0, 120.0, 130.0, 150.0)


@functools.lru_cache(maxsize=4096)
def _answers(guideline, possible):
    return frozenset(GUIDELINES[guideline](Facts(*facts)) for facts in itertools.product(*possible))


def _american(facts: Facts, narrow_lbbb: Class) -> Class:
    """The rows that the two American documents share, for QRS >= 120 ms; `narrow_lbbb` is LBBB below 150 ms."""
    wide, severe = facts.qrs_ms >= 150, facts.nyha >= 3
    if facts.lbbb:
        if facts.nyha < 2:
            return Class.NONE
        return Class.I if wide else narrow_lbbb
    if wide:
        return Class.IIA if severe else Class.IIB if facts.nyha == 2 else Class.NONE
    return Class.IIB if severe else Class.III


def _in_fibrillation(facts: Facts, in_sinus_rhythm: Class) -> Class:
    """Atrial fibrillation has IIa at best; other rhythms have no advice for CRT, while advice against it stands."""
    if facts.rhythm == "other":
        return min(in_sinus_rhythm, Class.NONE)
    return min(in_sinus_rhythm, Class.IIA) if facts.rhythm == "fibrillation" else in_sinus_rhythm


def _rhythms(sinus: float, fibrillation: float) -> tuple[str, ...]:
    """The rhythms that two flags leave possible; a rhythm is sinus, fibrillation or another."""
    found = [
        rhythm
        for rhythm, flags in (("sinus", (1, 0)), ("fibrillation", (0, 1)), ("other", (0, 0)))
        if flags[0] in _flags(sinus, "sinus_rhythm")
        and flags[1] in _flags(fibrillation, "atrial_fibrillation")
    ]
    if not found:
        raise ValueError("sinus_rhythm and atrial_fibrillation are both 1; a patient has one rhythm.")
    return tuple(found)


def _flags(value: float, name: str) -> tuple[bool, ...]:
    if math.isnan(value):
        return (False, True)
    if value not in (0, 1):
        raise ValueError(f"{name} is {value}; give 0, 1, or NaN where it is unknown.")
    return (bool(value),)


def _check(lvef: float, qrs_ms: float, nyha: float) -> None:
    if not math.isnan(lvef) and not 1 < lvef <= 100:
        raise ValueError(f"lvef is {lvef}; it is in %, above 1 and at most 100.")
    if not math.isnan(qrs_ms) and not 40 <= qrs_ms <= 400:
        raise ValueError(f"qrs_ms is {qrs_ms}; it is in ms, from 40 to 400.")
    if not math.isnan(nyha) and nyha not in (1, 2, 3, 4):
        raise ValueError(f"nyha is {nyha}; it is 1, 2, 3 or 4.")
