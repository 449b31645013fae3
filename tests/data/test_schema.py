import numpy as np
import pytest

from ecgjax.data.schema import DamagedExampleError, Field, Schema, dequantise, make_schema, quantise

SCHEMA = make_schema(ecg=(3, 7), cmr=(4, 5, 3), targets=2)


@pytest.fixture
def example():
    rng = np.random.default_rng(0)
    ecg, step = quantise(rng.normal(size=(3, 7)))
    return {
        "ecg": ecg,
        "ecg_step": step,
        "ecg_offset": rng.normal(size=3).astype(np.float32),
        "ecg_scale": rng.normal(size=3).astype(np.float32),
        "cmr": rng.random((4, 5, 3)).astype(np.float16),
        "label": np.array([1.5, np.nan], np.float32),
        "subject": rng.integers(0, 256, 8, dtype=np.uint8),
        "record": rng.integers(0, 256, 8, dtype=np.uint8),
    }


def test_decode_reverses_encode_bit_for_bit(example):
    decoded = SCHEMA.decode(SCHEMA.encode(example))
    assert set(decoded) == set(example)
    for name, value in example.items():
        assert decoded[name].dtype == value.dtype
        np.testing.assert_array_equal(decoded[name], value)


def test_decoded_arrays_are_aligned_views_of_the_record(example):
    record = SCHEMA.encode(example)
    decoded = SCHEMA.decode(record)
    for value in decoded.values():
        assert value.flags.aligned
        assert not value.flags.writeable
    start = SCHEMA.offsets["ecg"]
    assert record[start : start + 42] == example["ecg"].tobytes()  # Raw little-endian int16, 3 * 7 of them.


def test_decode_gives_only_the_named_fields(example):
    assert set(SCHEMA.views(SCHEMA.encode(example), ("cmr", "subject"))) == {"cmr", "subject"}


def test_every_flipped_bit_is_noticed_or_harmless(example):
    record = SCHEMA.encode(example)
    reserved = {*range(6, 8), *range(16, 24)}  # Two reserved spans of the header.
    for position in range(len(record)):
        if position in reserved:
            continue
        damaged = bytearray(record)
        damaged[position] ^= 0x10
        with pytest.raises(DamagedExampleError, match=r"expected .* found"):
            SCHEMA.decode(bytes(damaged))


@pytest.mark.parametrize("length", [0, 5, 31, 32, 100])
def test_a_cut_record_is_refused(example, length):
    with pytest.raises(DamagedExampleError, match=r"expected .* found"):
        SCHEMA.decode(SCHEMA.encode(example)[:length])


def test_a_record_of_another_schema_is_refused(example):
    other = make_schema(ecg=(3, 7), cmr=(5, 4, 3), targets=2)  # Equal in bytes, different in meaning.
    assert other.nbytes == SCHEMA.nbytes
    with pytest.raises(DamagedExampleError, match="schema digest"):
        other.decode(SCHEMA.encode(example))


def test_encode_refuses_a_wrong_dtype_shape_or_name(example):
    with pytest.raises(ValueError, match=r"cmr: expected float16 \(4, 5, 3\), got float64"):
        SCHEMA.encode({**example, "cmr": example["cmr"].astype(np.float64)})
    with pytest.raises(ValueError, match=r"label: expected float32 \(2,\), got float32 \(3,\)"):
        SCHEMA.encode({**example, "label": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="give exactly these"):
        SCHEMA.encode({key: value for key, value in example.items() if key != "label"})


def test_absent_modalities_have_no_fields():
    names = [field.name for field in make_schema(ecg=None, cmr=(4, 5, 3), targets=0).fields]
    assert names == ["cmr", "subject", "record"]
    with pytest.raises(ValueError, match="both are absent"):
        make_schema(ecg=None, cmr=None, targets=1)


def test_json_keeps_the_digest():
    assert Schema.from_json(SCHEMA.to_json()).digest == SCHEMA.digest


def test_unknown_dtype_and_empty_axis_are_refused():
    with pytest.raises(ValueError, match="dtype 'float8'"):
        Field("x", "float8", (1,))
    with pytest.raises(ValueError, match="axis below 1"):
        Field("x", "int16", (3, 0))


def test_quantisation_error_is_at_most_half_a_step():
    signal = np.random.default_rng(1).normal(size=(12, 500)) * 3
    ecg, step = quantise(signal)
    assert np.abs(ecg).max() == 32767
    error = np.abs(dequantise(ecg[None], step[None])[0] - signal)
    assert error.max() <= np.abs(signal).max() / 65534 * (1 + 1e-4)  # float32 products add their own ulp.
    assert error.max() > np.abs(signal).max() / 65534 * 0.9


def test_zeros_stay_zeros_and_nan_is_refused():
    ecg, step = quantise(np.zeros((2, 3)))
    assert not dequantise(ecg, step).any()
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantise(np.array([[np.nan, 1.0]]))
