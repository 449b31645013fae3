"""A user's patients before resynchronisation: their recordings, who responded, and what else is known of them."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from ecgjax.data.cohorts.base import Acquisition, Item, RejectedError
from ecgjax.data.cohorts.crt.columns import CLINICAL, RESPONSE, TARGETS
from ecgjax.data.cohorts.crt.response import NEEDS, Deaths, after_deaths, derive
from ecgjax.data.cohorts.crt.table import Table, read_table, refuse
from ecgjax.formats import wfdb
from ecgjax.formats.recording import LEADS, Recording
from ecgjax.signals.quality import QualityError

LBBB_LEAST_MS = 120
FOLLOWUP_MONTHS = (3, 12)
"""Beyond these the table is taken as it is, and the lines are named."""


class UnusableError(RejectedError):
    """The recording cannot be used; `kind` is what the manifest counts."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind

    def __reduce__(self):
        # Worker processes send errors home by pickle, which would call the class with the message alone.
        return type(self), (self.kind, str(self))


class CrtCohort:
    """A CSV `table` of patients and 12-lead WFDB records under `directory`, by default beside the table.

    Columns (`columns.KNOWN`): patient_id and record on every line, and `response` or the columns that its definition
    needs (`response.NEEDS`); the rest may be missing or blank. A patient may have several
    lines, one a recording, that agree in all else. Without a `split` column all patients are "train", which
    cross-validation then divides.

    `response` names the definition, `strict` its inequality where authors disagree and `deaths` what dying before
    follow-up counts as (`response.derive`); "given" takes the table's response column, checked against deaths only.
    Where a patient has a response both given and derived and they differ, `on_disagreement` refuses the table, naming
    the lines, or takes one of the two. ECGs of paced hearts are rejected: spikes tell that the device is in, and so the
    outcome's timing. `inclusion` says in words who came into the table; reports print it beside the guidelines, which
    are easily beaten where they themselves chose the patients. `verify_checksums` False takes recordings whose headers
    hold wrong sums, as some programs write them.
    """

    name = "crt"
    targets = TARGETS

    def __init__(
        self,
        table: str,
        directory: str | None = None,
        *,
        response: Literal["given", "lvesv15", "lvef5", "super", "clinical"],
        strict: bool | None = None,
        deaths: Deaths = "nonresponder",
        on_disagreement: Literal["refuse", "given", "derived"] = "refuse",
        inclusion: str | None = None,
        ignore: Sequence[str] = (),
        verify_checksums: bool = True,
    ):
        path = pathlib.Path(table)
        self._verify_checksums = verify_checksums
        self._directory = pathlib.Path(directory) if directory is not None else path.parent
        self._table = read_table(path, ignore=ignore)
        given, derived = _responses(self._table, response, strict, deaths)
        differing = np.flatnonzero((given != derived) & ~np.isnan(given) & ~np.isnan(derived))
        if on_disagreement == "refuse":
            refuse(
                path, [_disagreement(self._table, i, given, derived, response) for i in differing.tolist()]
            )
        first, second = (given, derived) if on_disagreement != "derived" else (derived, given)
        known = np.where(np.isnan(first), second, first)
        if deaths == "excluded":
            known = after_deaths(known, self._table.values.get("died_before_followup"), deaths=deaths)
        if np.isnan(known).all():
            raise ValueError(
                f"{path}: no patient has a response by {response!r}; fill the response column or the columns "
                f"{', '.join(NEEDS.get(response, ()))}."
            )
        self._response: Float64[np.ndarray, "n"] = known
        self.settings = {
            "table": self._table.digest,
            "response": response,
            "strict": strict,
            "deaths": deaths,
            "on_disagreement": on_disagreement,
            "disagreements": len(differing),
            "inclusion": inclusion,
            **({} if verify_checksums else {"verify_checksums": False}),
            "taken_as_given": int(np.sum(np.isnan(derived) & ~np.isnan(known))),
            **_counts(self._table, known),
        }
        self.settings["notes"] = self.notes = (*_notes(self.settings), *_doubts(self._table))

    def items(self) -> Sequence[Item]:
        """All recordings in the order of the table."""
        return [
            Item(self._table.patients[i], record, self._table.splits[i]) for i, record in self._table.records
        ]

    def load(self, item: Item) -> Acquisition:
        """Reads and measures one recording, leads in the order of `LEADS`."""
        position = self._position(item)
        clinical = self._clinical(position)
        if clinical.get("paced") == 1:
            raise UnusableError("paced", f"{item.record}: the table says that the rhythm was paced")
        try:
            recording = wfdb.read(
                self._directory / item.record, leads=LEADS, verify_checksums=self._verify_checksums
            )
        except ValueError as error:
            raise RejectedError(str(error)) from error
        response = {RESPONSE.name: float(self._response[position])}
        return Acquisition(
            ecg=recording, cmr=None, targets=response | clinical | _measured(recording, clinical, item)
        )

    def _position(self, item: Item) -> int:
        for i, record in self._table.records:
            if record == item.record:
                return i
        raise ValueError(f"CRT record {item.record!r} is not in the table; take items from items().")

    def _clinical(self, position: int) -> dict[str, float]:
        names = [target.name for target in CLINICAL if target.name in self._table.values]
        return {name: float(self._table.values[name][position]) for name in names}


def _measured(recording: Recording, clinical: Mapping[str, float], item: Item) -> dict[str, float]:
    from ecgjax.signals.measures import measure  # Its scipy.signal costs most of a second.
    from ecgjax.signals.pacing import pacing_spikes

    female = clinical.get("female", np.nan)
    try:
        spikes = pacing_spikes(recording.signal_mv, recording.rate_hz)
        if spikes.size:
            raise UnusableError("paced", f"{item.record}: {spikes.size} pacing spikes were found")
        return measure(
            recording.signal_mv, recording.rate_hz, female=None if np.isnan(female) else bool(female)
        )
    except QualityError as error:
        raise UnusableError(f"ecg {error.kind}", f"{item.record}: {error}") from error


def _responses(
    table: Table, response: str, strict: bool | None, deaths: Deaths
) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """The response as given and as derived, NaN where there is none."""
    nothing = np.full(len(table.patients), np.nan)
    given = table.values.get("response", nothing)
    if response == "given":
        if "response" not in table.values:
            raise ValueError(
                f"{table.path}: column 'response' is missing, and config.cohort.response is 'given'; add it, or choose "
                f"a definition from {', '.join(NEEDS)}."
            )
        if strict is not None:
            raise ValueError(
                f"config.cohort.strict is {strict}, but response 'given' derives nothing; set it to None."
            )
        return given, after_deaths(nothing, table.values.get("died_before_followup"), deaths=deaths)
    absent = [name for name in NEEDS[response] if name not in table.values]
    if absent and "response" not in table.values:
        raise ValueError(
            f"{table.path}: columns {absent} are missing, which response {response!r} is derived from; add them or a "
            "column 'response', or choose another config.cohort.response."
        )
    columns = {**dict.fromkeys(NEEDS[response], nothing), **table.values}
    return given, derive(columns, definition=response, strict=strict, deaths=deaths)


def _disagreement(table: Table, i: int, given: np.ndarray, derived: np.ndarray, definition: str) -> str:
    columns = (*NEEDS.get(definition, ()), "died_before_followup")
    values = ", ".join(f"{name} {table.values[name][i]:g}" for name in columns if name in table.values)
    return (
        f"line {table.lines[i]}: response is {given[i]:g}, but {derived[i]:g} by {definition!r} from {values}; correct "
        "one, or set config.cohort.on_disagreement to 'given' or 'derived'"
    )


def _counts(table: Table, response: Float64[np.ndarray, "n"]) -> dict[str, Any]:
    """Who is in the table, before any recording is read: patients, and those whose value is missing by column."""
    missing = {
        target.name: int(np.isnan(table.values[target.name]).sum())
        if target.name in table.values
        else len(table.patients)
        for target in CLINICAL
    }
    died = table.values.get("died_before_followup")
    return {
        "patients": len(table.patients),
        "recordings": len(table.records),
        "responders": int(np.sum(response == 1)),
        "without_response": int(np.isnan(response).sum()),
        "died": None if died is None else int(np.sum(died == 1)),
        "missing": missing,
    }


def _notes(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What the counts say, in sentences."""
    counts = {name: value for name, value in settings["missing"].items() if value}
    as_given = settings["taken_as_given"] if settings["response"] != "given" else 0
    patients, died = settings["patients"], settings["died"]
    deaths = (
        "who died before follow-up is not recorded"
        if died is None
        else f"{died} died before follow-up (deaths: {settings['deaths']})"
    )
    return (
        f"{patients} patients with {settings['recordings']} recordings, before any is rejected: "
        f"{settings['responders']} responders by {settings['response']!r}, {settings['without_response']} without a "
        f"response; {deaths}",
        f"missing of {patients} patients: " + (", ".join(f"{k} {v}" for k, v in counts.items()) or "nothing"),
        *([f"{as_given} responses are the table's own, whose definition is not known"] if as_given else []),
    )


def _doubts(table: Table) -> tuple[str, ...]:
    """What a patient may have, but hardly has: kept, with the lines to look at."""
    unknown = np.full(len(table.patients), np.nan)
    lbbb, qrs_ms, months = (table.values.get(name, unknown) for name in ("lbbb", "qrs_ms", "followup_months"))
    doubts = {
        f"lbbb is 1 with qrs_ms below {LBBB_LEAST_MS}, which no definition of it allows": (lbbb == 1)
        & (qrs_ms < LBBB_LEAST_MS),
        f"followup_months is outside {FOLLOWUP_MONTHS[0]} to {FOLLOWUP_MONTHS[1]}, where definitions of response "
        f"mean about 6": (months < FOLLOWUP_MONTHS[0]) | (months > FOLLOWUP_MONTHS[1]),
    }
    return tuple(
        f"lines {', '.join(str(table.lines[i]) for i in np.flatnonzero(found))}: {what}; look at them"
        for what, found in doubts.items()
        if found.any()
    )
