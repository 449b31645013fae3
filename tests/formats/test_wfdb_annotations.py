import struct

import numpy as np
import pytest

from ecgjax.formats.wfdb import WfdbError
from ecgjax.formats.wfdb_annotations import BEATS, parse_annotations, read_annotations

SKIP, NUM, SUB, CHN, AUX = range(59, 64)
N, V, RHYTHM = 1, 5, 28


def words(*pairs, end=True):
    """Little-endian words of (code, step) pairs; bytes stay as they are."""
    parts = [
        pair if isinstance(pair, bytes) else struct.pack("<H", pair[0] << 10 | pair[1]) for pair in pairs
    ]
    return b"".join(parts) + (b"\0\0" if end else b"")


def skip(jump):
    """High word first, each word little-endian."""
    jump &= 0xFFFFFFFF
    return words((SKIP, 0), struct.pack("<HH", jump >> 16, jump & 0xFFFF), end=False)


def test_steps_add_up_to_samples():
    got = parse_annotations(words((N, 18), (V, 1023), (N, 0)))
    np.testing.assert_array_equal(got.samples, [18, 1041, 1041])
    assert got.symbols == ("N", "V", "N")
    assert got.aux == ("", "", "")


def test_the_bytes_of_record_100_by_hand():
    # 12 70: 0x7012 is code 28 (+), step 18; 03 fc: AUX of 3 bytes "(N" and a zero, padded; 3b 04: N, 59 later.
    got = parse_annotations(bytes.fromhex("1270 03fc 284e0000 3b04 0000"))
    np.testing.assert_array_equal(got.samples, [18, 77])
    assert (got.symbols, got.aux) == (("+", "N"), ("(N", ""))


def test_skip_is_a_long_step_high_word_first():
    got = parse_annotations(words((N, 5), skip(0x0001_0002), (V, 3)))
    np.testing.assert_array_equal(got.samples, [5, 5 + 65538 + 3])


def test_skip_may_go_back_as_long_as_annotations_do_not():
    got = parse_annotations(words((N, 100), skip(-7), (V, 10)))
    np.testing.assert_array_equal(got.samples, [100, 103])


def test_num_sub_and_chn_take_no_time():
    got = parse_annotations(words((N, 10), (SUB, 3), (CHN, 1), (NUM, 1023), (V, 10)))
    np.testing.assert_array_equal(got.samples, [10, 20])


@pytest.mark.parametrize("text", [b"", b"a", b"(N", b"(AB", b"(AFIB"])
def test_text_is_padded_to_even_and_belongs_to_the_annotation_before(text):
    padded = text + b"\xff" * (len(text) % 2)
    got = parse_annotations(words((RHYTHM, 4), (AUX, len(text)), padded, (N, 6)))
    assert got.aux == (text.decode(), "")
    np.testing.assert_array_equal(got.samples, [4, 10])


def test_a_file_without_annotations_is_empty():
    assert parse_annotations(b"\0\0").samples.shape == (0,)


def test_zeros_after_the_end_are_filling():
    assert len(parse_annotations(words((N, 1)) + b"\0\0\0\0").samples) == 1


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (words((N, 1)) + b"\1", "holds 5 bytes, must be whole words"),
        (b"", "stops after 0 bytes without the zero word"),
        (words((N, 1), (N, 2), end=False), "stops after 4 bytes without the zero word"),
        (words((N, 1), (SKIP, 0), b"\0\0", end=False), "stops after 6 bytes"),
        (words((N, 1), (AUX, 5), b"(N", end=False), "stops after 6 bytes"),
        (words((N, 1), (AUX, 2), b"(N", end=False), "stops after 6 bytes"),
        (words((AUX, 2), b"(N"), "text of no annotation"),
        (words((N, 7), (50, 3)), "annotation at sample 10 has code 50, must be one of"),
        (words((N, 7), (0, 3)), "annotation at sample 10 has code 0"),
        (words((N, 7), (15, 3)), "has code 15"),
        (
            words((N, 100), skip(-50), (V, 10)),
            "annotation 1 is at sample 60, before 100, and must not go back",
        ),
        (words(skip(-50), (V, 10)), "annotation 0 is at sample -40, before 0"),
        (words((N, 999), (N, 1)), "annotation 1 is at sample 1000, the record has 1000 samples"),
        (words((N, 1)) + words((N, 1)), "ends at byte 4 but 4 bytes follow"),
        (words((22, 0), (AUX, 26), b"## time resolution: 500.00"), "counts time in steps of its own"),
    ],
)
def test_damage_is_named_with_value_and_rule(content, rule):
    with pytest.raises(WfdbError, match=f"x.atr: .*{rule}"):
        parse_annotations(content, length=1000, source="x.atr")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WfdbError, match=r"9\.atr: no such annotation file"):
        read_annotations(tmp_path / "9.atr")


def test_every_cut_of_a_real_file_is_refused(shared_data):
    path = shared_data / "mitbih" / "100.atr"
    if not path.is_file():
        pytest.skip(f"no mitbih under {shared_data}")
    content = path.read_bytes()
    whole = parse_annotations(content, length=650_000)
    assert sum(symbol in BEATS for symbol in whole.symbols) == 2273
    assert whole.aux[0] == "(N"
    for size in (1, 2, 3, 6, 1001, 2000, len(content) - 1, len(content) - 2):
        with pytest.raises(WfdbError, match="truncated"):
            parse_annotations(content[:size], length=650_000)
