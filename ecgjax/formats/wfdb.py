"""WFDB records (PhysioNet): header and signal files in format 16 or 212 to a Recording."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int32, UInt8

from ecgjax.formats.recording import LEADS, Recording

FORMATS = (16, 212)

_TO_MILLIVOLT = {"nv": 1e-6, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "mv": 1.0, "v": 1e3}
_INVALID = {16: -32768, 212: -2048}
_CANONICAL = {name.lower(): name for name in (*LEADS, "MLII")} | {"di": "I", "dii": "II", "diii": "III"}
_RATE = re.compile(r"(?P<rate>[^/(]+)(?:/(?P<counter>[^(]+)(?:\((?P<base>.+)\))?)?$")
_FORMAT = re.compile(r"(?P<number>\d+)(?:x(?P<per_frame>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<skip>\d+))?$")
_GAIN = re.compile(r"(?P<gain>[^(/]+)(?:\((?P<baseline>[+-]?\d+)\))?(?:/(?P<unit>\S+))?$")


class WfdbError(ValueError):
    """A record breaks the format or its own checksums; the message names file, value, rule and way out."""


@dataclasses.dataclass(frozen=True)
class Signal:
    """One signal line of a header. Physical value = (sample - baseline) / gain, in `unit`.

    Defaults as the format has them: gain absent or 0 means an uncalibrated 200 a unit, no baseline means
    `zero`, no unit means mV. `initial` and `checksum` are None where the header does not give them.
    """

    file: str
    format: int
    lead: str
    gain: float = 200.0
    baseline: int = 0
    unit: str = "mV"
    resolution_bits: int = 12
    zero: int = 0
    initial: int | None = None
    checksum: int | None = None
    skip_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Header:
    """A header file. `length` is samples a signal, None where the header leaves it to the signal file."""

    record: str
    rate_hz: float
    length: int | None
    signals: tuple[Signal, ...]
    comments: tuple[str, ...]


def read(
    path: str | os.PathLike, *, leads: Sequence[str] | None = None, verify_checksums: bool = True
) -> Recording:
    """Reads a record by the path of its header, with or without `.hea`, into mV; invalid samples are NaN.

    `leads` picks rows by name, in that order; without it every signal is read, and one that is no voltage is
    an error. Signal files must lie beside the header. The sum and the first sample of every signal in those
    files are compared with the header; `verify_checksums` False is for collections whose headers are known to
    be wrong.
    """
    header_path = _header_path(path)
    header = read_header(header_path)
    samples = {}
    for file in dict.fromkeys(signal.file for signal in header.signals):
        rows = [i for i, signal in enumerate(header.signals) if signal.file == file]
        block = _read_samples(header_path, header, [header.signals[i] for i in rows])
        samples |= dict(zip(rows, block, strict=True))
    if len({row.size for row in samples.values()}) > 1:
        sizes = {header.signals[i].file: row.size for i, row in samples.items()}
        raise WfdbError(
            f"{header_path}: gives no length and its signal files hold {sizes} samples a signal; "
            "write the length into the record line."
        )
    if verify_checksums:
        for i, signal in enumerate(header.signals):
            _verify(header_path, signal, samples[i])
    names = tuple(signal.lead for signal in header.signals)
    chosen = range(len(names)) if leads is None else _rows(names, leads, str(header_path))
    signal_mv = np.stack([_millivolt(header_path, header.signals[i], samples[i]) for i in chosen])
    return Recording(signal_mv=signal_mv, rate_hz=header.rate_hz, leads=tuple(names[i] for i in chosen))


def read_header(path: str | os.PathLike) -> Header:
    """Reads a header; `path` with or without `.hea`."""
    path = _header_path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise WfdbError(f"{path}: no such header; give the path of a record without its suffix.") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # Any byte decodes; older headers write the micro sign so.
    return parse_header(text, source=str(path))


def parse_header(text: str, *, source: str = "header") -> Header:
    """Parses the text of a header; `source` names it in errors. Lead names get their canonical spelling."""
    lines = [line.strip() for line in text.splitlines()]
    comments = tuple(line[1:].strip() for line in lines if line.startswith("#"))
    fields = [line for line in lines if line and not line.startswith("#")]
    if not fields:
        raise WfdbError(f"{source}: holds no record line; the file is empty or not a WFDB header.")
    record, count, rate_hz, length = _record_line(fields[0], source)
    if len(fields) - 1 != count:
        raise WfdbError(
            f"{source}: announces {count} signals but has {len(fields) - 1} signal lines; restore the header."
        )
    signals = tuple(_signal_line(line, f"signal {i}", source) for i, line in enumerate(fields[1:]))
    return Header(record, rate_hz, length, signals, comments)


def canonical_lead(name: str) -> str:
    """The spelling of `LEADS` for any case of a standard lead (AVR, avr: aVR); other names unchanged."""
    return _CANONICAL.get(name.strip().lower(), name.strip())


def _header_path(path: str | os.PathLike) -> pathlib.Path:
    path = pathlib.Path(path)
    return path if path.suffix == ".hea" else path.with_name(path.name + ".hea")


def _record_line(line: str, source: str) -> tuple[str, int, float, int | None]:
    parts = line.split()
    if "/" in parts[0]:
        raise WfdbError(
            f"{source}: record {parts[0]!r} has several segments, which are not read; "
            "read each segment's own header, or join them with a WFDB tool."
        )
    if len(parts) < 2:
        raise WfdbError(f"{source}: record line {line!r} must give at least a name and a number of signals.")
    count = _number(int, parts[1], "number of signals", source)
    if count < 1:
        raise WfdbError(f"{source}: number of signals is {count}, must be at least 1.")
    rate_hz = 250.0
    if len(parts) > 2:
        match = _RATE.match(parts[2])
        rate_hz = _number(float, match["rate"] if match else parts[2], "sampling rate", source)
    if not (np.isfinite(rate_hz) and rate_hz > 0):
        raise WfdbError(f"{source}: sampling rate is {rate_hz}, must be above 0.")
    length = _number(int, parts[3], "number of samples", source) if len(parts) > 3 else 0
    if length < 0:
        raise WfdbError(f"{source}: number of samples is {length}, must not be negative.")
    return parts[0], count, rate_hz, length or None  # The format writes "unknown" as 0.


def _signal_line(line: str, place: str, source: str) -> Signal:
    parts = line.split(None, 8)
    where = f"{source}: {place}"
    if len(parts) < 2:
        raise WfdbError(f"{where}: line {line!r} must give at least a file and a format.")
    file = parts[0]
    if file in (".", "..", "-", "~") or re.search(r"[/\\:\x00]", file):
        raise WfdbError(f"{where}: file {file!r} must lie beside the header; write its bare name.")
    match = _FORMAT.match(parts[1])
    if match is None or int(match["number"]) not in FORMATS:
        raise WfdbError(
            f"{where}: format {parts[1]!r} is not read, only {FORMATS}; convert the record with a WFDB tool."
        )
    if int(match["per_frame"] or 1) != 1 or int(match["skew"] or 0) != 0:
        raise WfdbError(
            f"{where}: format {parts[1]!r} has several samples a frame or a skew, which are not read; "
            "convert the record with a WFDB tool to one sample a frame without skew."
        )
    zero = _number(int, parts[4], "ADC zero", where) if len(parts) > 4 else 0
    gain, baseline, unit = 0.0, None, None
    if len(parts) > 2:
        calibration = _GAIN.match(parts[2])
        if calibration is None:
            raise WfdbError(f"{where}: gain {parts[2]!r} must read gain(baseline)/unit.")
        gain = _number(float, calibration["gain"], "gain", where)
        baseline, unit = calibration["baseline"], calibration["unit"]
    if not np.isfinite(gain):
        raise WfdbError(f"{where}: gain is {gain}, must be finite.")
    return Signal(
        file=file,
        format=int(match["number"]),
        lead=canonical_lead(parts[8]) if len(parts) > 8 else place,
        gain=gain or 200.0,
        baseline=zero if baseline is None else int(baseline),
        unit=unit or "mV",
        resolution_bits=_number(int, parts[3], "ADC resolution", where) or 12 if len(parts) > 3 else 12,
        zero=zero,
        initial=_number(int, parts[5], "initial value", where) if len(parts) > 5 else None,
        checksum=_number(int, parts[6], "checksum", where) if len(parts) > 6 else None,
        skip_bytes=int(match["skip"] or 0),
    )


def _number(kind: type, text: str, what: str, source: str) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise WfdbError(f"{source}: {what} is {text!r}, must be a number; restore the header.") from None


def _read_samples(
    header_path: pathlib.Path, header: Header, signals: list[Signal]
) -> list[Int32[np.ndarray, "t"]]:
    """The interleaved samples of one signal file, one array a signal."""
    first = signals[0]
    path = header_path.with_name(first.file)
    layouts = {(signal.format, signal.skip_bytes) for signal in signals}
    if len(layouts) > 1:
        raise WfdbError(
            f"{header_path}: signals of {first.file} differ in (format, offset): {sorted(layouts)}; "
            "signals in one file must agree."
        )
    try:
        content = np.fromfile(path, dtype=np.uint8, offset=first.skip_bytes)
    except FileNotFoundError:
        raise WfdbError(
            f"{path}: the signal file that {header_path.name} names is missing; fetch it."
        ) from None
    unpack, bits = {16: (_unpack_16, 16), 212: (_unpack_212, 12)}[first.format]
    frame_bits = bits * len(signals)
    length = content.size * 8 // frame_bits if header.length is None else header.length
    size = -(-length * frame_bits // 8)
    # Format 212 stores pairs: after an odd number of samples some writers fill the last pair up.
    if content.size not in (size, -(-size // 3) * 3 if first.format == 212 else size):
        fault = "truncated" if content.size < size else "longer than its header says"
        raise WfdbError(
            f"{path}: holds {content.size} bytes of samples but {length} samples of {len(signals)} leads in "
            f"format {first.format} take {size}; the file is {fault}, fetch it again."
        )
    samples = unpack(content[:size])[: length * len(signals)].reshape(length, len(signals))
    return list(np.ascontiguousarray(samples.T))


def _unpack_16(content: UInt8[np.ndarray, "bytes"]) -> Int32[np.ndarray, "n"]:
    """Little-endian 16-bit two's complement."""
    return content.view("<i2").astype(np.int32)


def _unpack_212(content: UInt8[np.ndarray, "bytes"]) -> Int32[np.ndarray, "n"]:
    """Two 12-bit samples in three bytes; the middle byte holds both high nibbles, the first sample's low."""
    triples = np.pad(content, (0, -content.size % 3)).reshape(-1, 3).astype(np.int32)
    middle = triples[:, 1]
    pairs = np.stack([triples[:, 0] | (middle & 0x0F) << 8, triples[:, 2] | (middle & 0xF0) << 4], axis=1)
    return np.where(pairs > 2047, pairs - 4096, pairs).reshape(-1)


def _verify(header_path: pathlib.Path, signal: Signal, samples: Int32[np.ndarray, "t"]) -> None:
    way_out = (
        "fetch the record again, or set verify_checksums to False if the headers of all records are wrong."
    )
    where = f"{header_path.with_name(signal.file)}: lead {signal.lead}"
    if signal.checksum is not None:
        total = int(samples.sum(dtype=np.int64))
        if (total - signal.checksum) % 65536 != 0:
            signed = (total + 32768) % 65536 - 32768
            raise WfdbError(
                f"{where}: samples sum to {signed} modulo 65536 but {header_path.name} says "
                f"{signal.checksum}: {way_out}"
            )
    if signal.initial is not None and samples.size and samples[0] != signal.initial:
        raise WfdbError(
            f"{where}: first sample is {samples[0]} but {header_path.name} says {signal.initial}: {way_out}"
        )


def _millivolt(
    header_path: pathlib.Path, signal: Signal, samples: Int32[np.ndarray, "t"]
) -> Float64[np.ndarray, "t"]:
    factor = _TO_MILLIVOLT.get(signal.unit.lower())
    if factor is None:
        raise WfdbError(
            f"{header_path}: lead {signal.lead} is in {signal.unit!r}, which is no voltage; "
            "pass leads=(...) to read the ECG leads only."
        )
    values = (samples - float(signal.baseline)) / signal.gain * factor
    values[samples == _INVALID[signal.format]] = np.nan
    return values


def _rows(names: Sequence[str], leads: Sequence[str], source: str) -> list[int]:
    """The row of every lead of `leads`."""
    missing = [lead for lead in leads if lead not in names]
    if missing:
        raise ValueError(f"{source}: leads {missing} are missing, there are {list(names)}; ask for those.")
    double = [lead for lead in leads if list(names).count(lead) > 1]
    if double:
        raise ValueError(f"{source}: leads {double} occur more than once in {list(names)}; rename one.")
    return [list(names).index(lead) for lead in leads]
