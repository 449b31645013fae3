import pickle
import shutil
from concurrent import futures

import numpy as np
import pytest
from tiny_cohort import SETTINGS, TinyCohort

from ecgjax.data.build import build
from ecgjax.data.manifest import read_manifest
from ecgjax.data.shards import DamagedDataError, ShardSource, read_split, sha256_of, verify, write_shard


@pytest.fixture
def copied(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "copied")


def _shard(directory, number=1):
    return directory / read_manifest(directory).splits["train"].shards[number].file


def _flip(path, marker):
    content = bytearray(path.read_bytes())
    position = content.index(marker) + len(marker) - 1
    content[position] ^= 0x01
    path.write_bytes(bytes(content))


def test_the_bytes_of_a_shard_depend_on_the_records_alone(tmp_path):
    records = [np.random.default_rng(i).bytes(3000) for i in range(20)]
    (tmp_path / "b").mkdir()
    first, second = write_shard(tmp_path / "x", records), write_shard(tmp_path / "b" / "x", iter(records))
    assert first == second
    assert first.examples == 20
    assert first.sha256 == sha256_of(tmp_path / "x")
    assert first.bytes == (tmp_path / "x").stat().st_size


def test_a_failing_writer_leaves_nothing_behind(tmp_path):
    def records():
        yield b"one"
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        write_shard(tmp_path / "x", records())
    assert list(tmp_path.iterdir()) == []


def test_source_reads_every_position_in_any_order(prepared):
    manifest = read_manifest(prepared)
    source = ShardSource(prepared, manifest, "train")
    in_order = [source[i] for i in range(len(source))]
    assert len(in_order) == 30 == len(set(in_order))
    order = np.random.default_rng(0).permutation(30)
    assert source.__getitems__(order) == [in_order[i] for i in order]
    with futures.ThreadPoolExecutor(4) as executor:
        assert list(executor.map(source.__getitem__, order)) == [in_order[i] for i in order]
    with pytest.raises(IndexError, match="Position 30 is outside 0 to 29"):
        source[30]


def test_source_survives_pickling(prepared):
    source = ShardSource(prepared, read_manifest(prepared), "val")
    assert pickle.loads(pickle.dumps(source))[2] == source[2]


def test_read_split_stacks_what_the_source_gives(prepared):
    manifest = read_manifest(prepared)
    arrays = read_split(prepared, manifest, "test", names=("cmr", "label"))
    assert set(arrays) == {"cmr", "label"}
    want = manifest.schema.decode(ShardSource(prepared, manifest, "test")[1])
    np.testing.assert_array_equal(arrays["cmr"][1], want["cmr"])
    np.testing.assert_array_equal(arrays["label"][1], want["label"])


@pytest.mark.parametrize("keep", [0, 1000, -1])
def test_a_truncated_shard_is_told_at_opening(copied, keep):
    path = _shard(copied)
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    found = len(content[:keep])
    with pytest.raises(
        DamagedDataError, match=f"{path.name}: expected {len(content)} bytes, found {found}.*again"
    ):
        ShardSource(copied, read_manifest(copied), "train")


def test_a_missing_shard_is_told_at_opening(copied):
    _shard(copied, 0).unlink()
    _shard(copied, 2).unlink()
    with pytest.raises(DamagedDataError, match=r"2 damaged shard\(s\): .*train-00000.* the file is missing"):
        ShardSource(copied, read_manifest(copied), "train")
    ShardSource(copied, read_manifest(copied), "val")  # Other splits are not held up.


def test_a_shard_of_the_right_size_without_records_is_told_at_opening(copied):
    path = _shard(copied)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DamagedDataError, match=f"{path.name}: expected 5 records, found 0"):
        ShardSource(copied, read_manifest(copied), "train")


def test_a_flipped_byte_is_told_at_reading_with_shard_and_record(copied):
    manifest, path = read_manifest(copied), _shard(copied)
    record = ShardSource(copied, manifest, "train")[5 + 3]
    _flip(path, record[:200])
    source = ShardSource(copied, manifest, "train")
    with pytest.raises(
        DamagedDataError, match=f"{path.name}: record 3 .position 8 of split train. is damaged"
    ):
        source[8]
    assert source[7]  # Its neighbours are intact.


def test_a_whole_shard_of_wrong_records_is_told_at_reading(copied):
    manifest, path = read_manifest(copied), _shard(copied)
    source = ShardSource(copied, manifest, "train")
    records = [source[i] for i in range(5, 10)]
    write_shard(path, [*records[:2], records[2][:-1] + b"!", *records[3:]])  # ArrayRecord finds it intact.
    source = ShardSource(copied, manifest, "train")
    assert source[6] == records[1]
    with pytest.raises(
        DamagedDataError, match=f"{path.name}: record 2 .* is damaged: expected CRC32 .* found"
    ):
        source[7]


def test_verify_lists_every_damaged_shard(copied):
    manifest = read_manifest(copied)
    total = sum(path.stat().st_size for path in copied.glob("*.array_record"))
    assert verify(copied, manifest, progress=False) == total
    record = ShardSource(copied, manifest, "train")[6]
    _flip(_shard(copied, 1), record[:300])
    _shard(copied, 3).unlink()
    with pytest.raises(
        DamagedDataError, match=r"2 damaged.*00001.*expected SHA-256 .* found .*00003.*missing"
    ):
        verify(copied, manifest, progress=False)


def test_prepare_mends_damaged_shards_only(copied, prepared):
    manifest = read_manifest(copied)
    untouched = _shard(copied, 0).stat().st_mtime_ns
    _flip(_shard(copied, 1), ShardSource(copied, manifest, "train")[6][:300])
    _shard(copied, 3).unlink()
    build(TinyCohort(), copied, **SETTINGS)
    assert _shard(copied, 0).stat().st_mtime_ns == untouched
    verify(copied, manifest, progress=False)
    assert _shard(copied, 1).read_bytes() == _shard(prepared, 1).read_bytes()


def test_a_bucket_address_is_refused(prepared):
    with pytest.raises(ValueError, match="mount the bucket"):
        ShardSource("gs://bucket/data", read_manifest(prepared), "train")
