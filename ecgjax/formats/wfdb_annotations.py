"""WFDB annotation files (MIT format, such as .atr): samples, symbols and auxiliary text."""

import dataclasses
import os
import pathlib

import numpy as np
from jaxtyping import Int64, UInt16

from ecgjax.formats.wfdb import WfdbError

SYMBOLS = (
    dict(enumerate("NLRaVFJASEj/Q~", start=1))
    | dict(enumerate("|", start=16))
    | dict(enumerate('sT*D"=pB^t+u?![]en@xf()r', start=18))
)
"""Symbol by code, as the format's table has them."""

BEATS = frozenset("NLRBAaJSVrFejnE/fQ?")
"""Symbols that mark a beat; the others are rhythm, noise, waves or remarks."""

_SKIP, _NUM, _SUB, _CHN, _AUX = range(59, 64)
_RESOLUTION = "## time resolution:"


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
    """Annotations in the order of time; `aux` is the text of each, mostly empty."""

    samples: Int64[np.ndarray, "n"]
    symbols: tuple[str, ...]
    aux: tuple[str, ...]


def read_annotations(path: str | os.PathLike, *, length: int | None = None) -> Annotations:
    """Reads an annotation file; with `length`, the record's samples a signal, none may lie beyond its end."""
    path = pathlib.Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise WfdbError(f"{path}: no such annotation file; fetch it beside the record's header.") from None
    return parse_annotations(content, length=length, source=str(path))


def parse_annotations(
    content: bytes, *, length: int | None = None, source: str = "annotations"
) -> Annotations:
    """Decodes little-endian words of a 6-bit code above a 10-bit time step; a zero word ends the file.

    SKIP adds a 32-bit step, high word first. NUM, SUB and CHN, which take no time, are passed over. AUX appends text of
    as many bytes as its step says, padded to even.
    """
    if len(content) % 2:
        raise WfdbError(
            f"{source}: holds {len(content)} bytes, must be whole words of two; the file is truncated, "
            "fetch it again."
        )
    words = np.frombuffer(content, "<u2")
    samples, symbols, aux = [], [], []
    time, at = 0, 0
    while (word := _word(words, at, source)) != 0:
        code, step = word >> 10, word & 1023
        at += 1
        if code == _SKIP:
            jump = _word(words, at, source) << 16 | _word(words, at + 1, source)
            time += jump - (1 << 32 if jump >> 31 else 0)
            at += 2
        elif code == _AUX:
            if not aux:
                raise WfdbError(
                    f"{source}: word {at - 1} is text of no annotation, one must come before; fetch it again."
                )
            words_of_text = -(-step // 2)
            _word(words, at + words_of_text, source)  # The end of the file comes after it.
            aux[-1] = words[at : at + words_of_text].tobytes()[:step].rstrip(b"\0").decode("latin-1")
            at += words_of_text
        elif code not in (_NUM, _SUB, _CHN):
            time += step
            symbols.append(_symbol(code, time, source))
            _check_time(time, samples, length, source)
            samples.append(time)
            aux.append("")
    at += 1
    if words[at:].any():
        raise WfdbError(
            f"{source}: ends at byte {2 * at} but {2 * (len(words) - at)} bytes follow, which must be none or zeros; "
            "fetch the file again."
        )
    if aux and aux[0].startswith(_RESOLUTION):
        raise WfdbError(
            f"{source}: counts time in steps of its own ({aux[0]!r}), which are not read; write the annotations in "
            "samples of the record."
        )
    return Annotations(np.asarray(samples, np.int64), tuple(symbols), tuple(aux))


def _word(words: UInt16[np.ndarray, "n"], at: int, source: str) -> int:
    if at >= len(words):
        raise WfdbError(
            f"{source}: stops after {2 * len(words)} bytes without the zero word that ends annotations; the file is "
            "truncated, fetch it again."
        )
    return int(words[at])


def _symbol(code: int, time: int, source: str) -> str:
    if code not in SYMBOLS:
        raise WfdbError(
            f"{source}: annotation at sample {time} has code {code}, must be one of the format's "
            f"1 to {max(SYMBOLS)}; fetch the file again, or convert user-defined codes with a WFDB tool."
        )
    return SYMBOLS[code]


def _check_time(time: int, samples: list[int], length: int | None, source: str) -> None:
    before = samples[-1] if samples else 0
    if time < before:
        raise WfdbError(
            f"{source}: annotation {len(samples)} is at sample {time}, before {before}, and must not go back; "
            "fetch the file again."
        )
    if length is not None and time >= length:
        raise WfdbError(
            f"{source}: annotation {len(samples)} is at sample {time}, the record has {length} samples; signal and "
            "annotations are of different records or one is truncated, fetch both again."
        )
