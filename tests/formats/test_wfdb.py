import pathlib

import numpy as np
import pytest

from ecgjax.formats import wfdb
from ecgjax.formats.wfdb import WfdbError


def pack(samples, number):
    """Bytes of interleaved samples, written from the format's description, one sample at a time."""
    if number == 16:
        return b"".join(int(value).to_bytes(2, "little", signed=True) for value in samples)
    content = bytearray()
    for i in range(0, len(samples), 2):
        first = int(samples[i]) % 4096
        second = int(samples[i + 1]) % 4096 if i + 1 < len(samples) else 0
        content += bytes([first % 256, first // 256 + 16 * (second // 256), second % 256])
    odd = len(samples) % 2
    return bytes(content[:-1]) if odd else bytes(content)


def write_record(
    directory: pathlib.Path,
    samples,
    *,
    number=16,
    name="rec",
    leads=None,
    gain="1000(0)/mV",
    skip=0,
):
    """Writes [l t] integers as one record in one file with right checksums; returns its path."""
    samples = np.asarray(samples)
    leads = leads or [f"L{i}" for i in range(len(samples))]
    lines = [f"{name} {len(samples)} 500 {samples.shape[1]}"]
    for lead, row in zip(leads, samples, strict=True):
        checksum = (int(row.sum()) + 32768) % 65536 - 32768
        offset = f"+{skip}" if skip else ""
        lines.append(f"{name}.dat {number}{offset} {gain} 16 0 {row[0]} {checksum} 0 {lead}")
    (directory / f"{name}.hea").write_text("\n".join(lines) + "\n")
    (directory / f"{name}.dat").write_bytes(b"x" * skip + pack(samples.T.reshape(-1), number))
    return directory / name


@pytest.fixture
def samples():
    return np.random.default_rng(0).integers(-2047, 2048, (3, 51))


@pytest.mark.parametrize("number", [16, 212])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 6), (3, 51)])
def test_samples_come_back(tmp_path, number, shape):
    samples = np.random.default_rng(1).integers(-2047, 2048, shape)
    got = wfdb.read(write_record(tmp_path, samples, number=number))
    np.testing.assert_allclose(got.signal_mv, samples / 1000, atol=1e-12)
    assert got.rate_hz == 500


def test_full_range_of_format_16(tmp_path):
    samples = np.array([[-32767, 32767, 0, -1]])
    np.testing.assert_allclose(wfdb.read(write_record(tmp_path, samples)).signal_mv, samples / 1000)


def test_padded_last_triple_of_212_is_accepted(tmp_path, samples):
    path = write_record(tmp_path, samples, number=212)
    data = path.with_suffix(".dat")
    data.write_bytes(data.read_bytes() + b"\0")
    assert wfdb.read(path).signal_mv.shape == (3, 51)


@pytest.mark.parametrize(("number", "code"), [(16, -32768), (212, -2048)])
def test_invalid_samples_become_nan_and_keep_the_checksum(tmp_path, samples, number, code):
    samples[1, 4] = samples[2, 0] = code
    got = wfdb.read(write_record(tmp_path, samples, number=number)).signal_mv
    np.testing.assert_array_equal(np.isnan(got), samples == code)


@pytest.mark.parametrize(
    ("gain", "factor", "baseline"),
    [
        ("200", 1 / 200, 0),
        ("0", 1 / 200, 0),
        ("1000(24)", 1 / 1000, 24),
        ("1000(-24)/mV", 1 / 1000, -24),
        ("2/uV", 1 / 2000, 0),
        ("2/µV", 1 / 2000, 0),
        ("1e6/V", 1 / 1000, 0),
        ("204.8/MV", 1 / 204.8, 0),
    ],
)
def test_units_gain_and_baseline_lead_to_millivolt(tmp_path, samples, gain, factor, baseline):
    got = wfdb.read(write_record(tmp_path, samples, gain=gain)).signal_mv
    np.testing.assert_allclose(got, (samples - baseline) * factor, rtol=1e-12)


def test_prolog_bytes_are_skipped(tmp_path, samples):
    got = wfdb.read(write_record(tmp_path, samples, skip=24))
    np.testing.assert_allclose(got.signal_mv, samples / 1000)


def test_a_path_with_the_suffix_is_the_same(tmp_path, samples):
    path = write_record(tmp_path, samples, name="s1.5")
    want = wfdb.read(path).signal_mv
    np.testing.assert_array_equal(wfdb.read(f"{path}.hea").signal_mv, want)


def test_several_files_form_one_record(tmp_path, samples):
    write_record(tmp_path, samples, name="a", leads=["I", "II", "V1"])
    write_record(tmp_path, -samples[:1], name="b", number=212, leads=["V2"])
    lines = [(tmp_path / f"{name}.hea").read_text().splitlines()[1:] for name in "ab"]
    (tmp_path / "both.hea").write_text("\n".join(["both 4 500 51", *lines[0], *lines[1]]))
    got = wfdb.read(tmp_path / "both")
    np.testing.assert_allclose(got.signal_mv, np.concatenate([samples, -samples[:1]]) / 1000)
    assert got.leads == ("I", "II", "V1", "V2")


def test_length_may_be_left_to_the_signal_file(tmp_path, samples):
    path = write_record(tmp_path, samples)
    header = path.with_suffix(".hea")
    header.write_text(header.read_text().replace("rec 3 500 51", "rec 3 500"))
    np.testing.assert_allclose(wfdb.read(path).signal_mv, samples / 1000)


def test_header_defaults_follow_the_format():
    header = wfdb.parse_header("r 2\nr.dat 16\nr.dat 16 100 0 7\n")
    assert (header.rate_hz, header.length) == (250.0, None)
    first, second = header.signals
    assert (first.gain, first.baseline, first.unit, first.resolution_bits) == (200.0, 0, "mV", 12)
    assert (first.initial, first.checksum, first.lead) == (None, None, "signal 0")
    assert second.baseline == 7


def test_header_fields_comments_and_counter_are_parsed():
    text = (
        "# before\r\nr 1 360/2.5(10) 100 12:00:00 1/2/1990\r\n\r\n"
        "r.dat 16x1:0+24 -5.5(3)/uV 11 1024 4 -9 0 ecg lead avr\r\n#Age: 7\r\n"
    )
    header = wfdb.parse_header(text)
    assert (header.record, header.rate_hz, header.length) == ("r", 360.0, 100)
    assert header.comments == ("before", "Age: 7")
    (signal,) = header.signals
    assert (signal.gain, signal.baseline, signal.unit, signal.skip_bytes) == (-5.5, 3, "uV", 24)
    assert (signal.resolution_bits, signal.zero, signal.initial, signal.checksum) == (11, 1024, 4, -9)
    assert signal.lead == "ecg lead avr"


def test_lead_names_are_canonical():
    names = ["AVR", "avl", "aVF", "i", "DII", "v1", "V6", "MLII", "mlii", "Resp"]
    want = ["aVR", "aVL", "aVF", "I", "II", "V1", "V6", "MLII", "MLII", "Resp"]
    assert [wfdb.canonical_lead(name) for name in names] == want


def test_leads_are_chosen_by_name(tmp_path, samples):
    path = write_record(tmp_path, samples, leads=["V1", "avr", "II"])
    got = wfdb.read(path, leads=("II", "aVR"))
    np.testing.assert_allclose(got.signal_mv, samples[[2, 1]] / 1000)
    assert got.leads == ("II", "aVR")


def test_leads_that_are_missing_or_double_are_named(tmp_path, samples):
    path = write_record(tmp_path, samples, leads=["I", "II", "I"])
    with pytest.raises(ValueError, match=r"\['V3'\] are missing, there are \['I', 'II', 'I'\]"):
        wfdb.read(path, leads=("II", "V3"))
    with pytest.raises(ValueError, match=r"\['I'\] occur more than once"):
        wfdb.read(path, leads=("I",))


def test_other_signals_are_refused_unless_leads_are_chosen(tmp_path, samples):
    path = write_record(tmp_path, samples, leads=["V1", "II", "ABP"])
    header = path.with_suffix(".hea")
    lines = header.read_text().splitlines()
    header.write_text("\n".join([*lines[:3], lines[3].replace("/mV", "/mmHg")]))
    with pytest.raises(WfdbError, match=r"lead ABP is in 'mmHg', which is no voltage; pass leads"):
        wfdb.read(path)
    got = wfdb.read(path, leads=("II", "V1"))
    np.testing.assert_allclose(got.signal_mv, samples[[1, 0]] / 1000)
    assert got.leads == ("II", "V1")


def test_one_flipped_bit_is_found_and_named(tmp_path, samples):
    path = write_record(tmp_path, samples, leads=["I", "aVR", "V1"])
    data = path.with_suffix(".dat")
    content = bytearray(data.read_bytes())
    content[2 * (3 * 20 + 1)] ^= 4  # Sample 20 of the second signal.
    data.write_bytes(bytes(content))
    total = int(samples[1].sum())
    with pytest.raises(WfdbError) as error:
        wfdb.read(path)
    message = str(error.value)
    assert "rec.dat: lead aVR" in message
    assert f"says {(total + 32768) % 65536 - 32768}" in message
    assert "sum to " in message
    assert "fetch the record again" in message
    assert wfdb.read(path, verify_checksums=False).signal_mv.shape == (3, 51)


def test_swapped_samples_are_found_by_the_first_one(tmp_path, samples):
    path = write_record(tmp_path, samples[:1])
    content = path.with_suffix(".dat").read_bytes()
    path.with_suffix(".dat").write_bytes(content[2:] + content[:2])  # The sum stays.
    with pytest.raises(WfdbError, match=f"first sample is {samples[0, 1]} but rec.hea says {samples[0, 0]}"):
        wfdb.read(path)


@pytest.mark.parametrize("number", [16, 212])
@pytest.mark.parametrize(("change", "fault"), [(-2, "truncated"), (4, "longer than its header says")])
def test_wrong_size_of_the_signal_file(tmp_path, samples, number, change, fault):
    path = write_record(tmp_path, samples, number=number)
    data = path.with_suffix(".dat")
    content = data.read_bytes()
    data.write_bytes(content[:change] if change < 0 else content + b"\0" * change)
    with pytest.raises(WfdbError, match=rf"rec\.dat: holds {len(content) + change} bytes.* is {fault}"):
        wfdb.read(path)


def test_missing_files_are_named(tmp_path, samples):
    with pytest.raises(WfdbError, match=r"nothing\.hea: no such header"):
        wfdb.read(tmp_path / "nothing")
    path = write_record(tmp_path, samples)
    path.with_suffix(".dat").unlink()
    with pytest.raises(WfdbError, match=r"rec\.dat: the signal file that rec\.hea names is missing"):
        wfdb.read(path)


@pytest.mark.parametrize("file", ["../rec.dat", "/etc/passwd", "sub/rec.dat", "..", "C:\\rec.dat", "~", "-"])
def test_signal_files_elsewhere_are_refused(tmp_path, samples, file):
    path = write_record(tmp_path, samples)
    header = path.with_suffix(".hea")
    header.write_text(header.read_text().replace("rec.dat", file))
    with pytest.raises(WfdbError, match="must lie beside the header"):
        wfdb.read(path)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "holds no record line"),
        ("# only a comment\n", "holds no record line"),
        ("r\n", "at least a name and a number of signals"),
        ("r/3 2 360 100\nseg1 50\nseg2 50\n", "has several segments"),
        ("r two 360\n", "number of signals is 'two'"),
        ("r 0 360\n", "must be at least 1"),
        ("r 1 -360\nr.dat 16\n", "sampling rate is -360.0, must be above 0"),
        ("r 1 nan\nr.dat 16\n", "must be above 0"),
        ("r 1 360 -5\nr.dat 16\n", "must not be negative"),
        ("r 2 360 100\nr.dat 16\n", "announces 2 signals but has 1"),
        ("r 1 360 100\nr.dat\n", "at least a file and a format"),
        ("r 1 360 100\nr.dat 80\n", "format '80' is not read"),
        ("r 1 360 100\nr.dat 16x4\n", "several samples a frame"),
        ("r 1 360 100\nr.dat 16:3\n", "or a skew"),
        ("r 1 360 100\nr.dat 16 abc\n", "gain is 'abc', must be a number"),
        ("r 1 360 100\nr.dat 16 inf\n", "gain is inf, must be finite"),
        ("r 1 360 100\nr.dat 16 200(x)/mV\n", "must read gain"),
        ("r 1 360 100\nr.dat 16 200 12 0 0 xyz\n", "checksum is 'xyz'"),
    ],
)
def test_damaged_headers_say_what_is_wrong(text, rule):
    with pytest.raises(WfdbError, match=rule) as error:
        wfdb.parse_header(text, source="r.hea")
    assert str(error.value).startswith("r.hea")


def test_signals_of_one_file_must_agree_in_format(tmp_path, samples):
    path = write_record(tmp_path, samples)
    header = path.with_suffix(".hea")
    header.write_text(header.read_text().replace("rec.dat 16", "rec.dat 212", 1))
    with pytest.raises(WfdbError, match="differ in"):
        wfdb.read(path)


def test_files_of_different_length_are_refused(tmp_path, samples):
    write_record(tmp_path, samples, name="a")
    write_record(tmp_path, samples[:1, :40], name="b", leads=["V2"])
    lines = [(tmp_path / f"{name}.hea").read_text().splitlines()[1:] for name in "ab"]
    (tmp_path / "both.hea").write_text("\n".join(["both 4 500", *lines[0], *lines[1]]))
    with pytest.raises(WfdbError, match="write the length into the record line"):
        wfdb.read(tmp_path / "both")


@pytest.mark.parametrize(
    "pattern",
    [
        "ptbxl/records100/*/*.hea",
        "ptbxl/records500/*/*.hea",
        "mitbih/*.hea",
        "ludb/data/*.hea",
        "cinc2021_mix/*.hea",
    ],
)
def test_real_records_equal_the_wfdb_package(shared_data, pattern):
    reference = pytest.importorskip("wfdb")
    paths = sorted(shared_data.glob(pattern))[:3]
    if not paths:
        pytest.skip(f"no {pattern} under {shared_data}")
    for path in paths:
        got, want = wfdb.read(path), reference.rdrecord(str(path.with_suffix("")))
        np.testing.assert_allclose(got.signal_mv, want.p_signal.T, atol=1e-12)
        assert got.rate_hz == want.fs
        assert [lead.lower() for lead in got.leads] == [lead.lower() for lead in want.sig_name]
        assert got.leads == tuple(wfdb.canonical_lead(lead) for lead in want.sig_name)
