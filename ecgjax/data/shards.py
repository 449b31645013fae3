"""Shards: writing ArrayRecord files, and reading them at random with every kind of damage told apart."""

import bisect
import hashlib
import itertools
import os
import threading
from collections.abc import Iterable, Sequence
from typing import SupportsIndex

import numpy as np
from etils import epath

from ecgjax.data.manifest import Manifest, Shard
from ecgjax.data.schema import DamagedExampleError

# group_size above 1 makes random access a hundred times slower. Uncompressed, because conditioned int16
# spans its whole range: zstd:1 saves 2 % of 12 x 1000 + 32 x 32 x 3 and costs more than half of the reads.
WRITER_OPTIONS = "group_size:1,uncompressed"
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_READER_BUFFER_BYTES = 32768
_WAY_OUT = "Run `ecgjax prepare` again with the same config: it rebuilds damaged shards only."


class DamagedDataError(ValueError):
    """A shard is missing, changed or cut; the message names it, the expected, the found and the way out."""


def write_shard(path: epath.PathLike, records: Iterable[bytes]) -> Shard:
    """Writes records to `path`, which appears only when complete, and returns its summary.

    The bytes depend on the records alone.
    """
    from array_record.python import array_record_module

    path = local_path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    writer = array_record_module.ArrayRecordWriter(os.fspath(temporary), WRITER_OPTIONS)
    examples = 0
    try:
        for record in records:
            writer.write(record)
            examples += 1
    except BaseException:
        writer.close()
        temporary.unlink(missing_ok=True)
        raise
    writer.close()
    descriptor = os.open(temporary, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    shard = Shard(path.name, examples, os.path.getsize(temporary), sha256_of(temporary))
    temporary.replace(path)
    return shard


def sha256_of(path: epath.PathLike) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ShardSource:
    """Random access to the records of one split, in the order of the manifest.

    Opening checks that every shard exists with the right size and record count, which costs a footer a shard;
    reading raises DamagedDataError for a record whose bytes have changed. Safe to share between threads;
    pickling leaves the open files behind.
    """

    def __init__(self, directory: epath.PathLike, manifest: Manifest, split: str):
        self._directory = local_path(directory)
        self._split = split
        self._schema = manifest.schema
        self._shards = manifest.split(split).shards
        self._ends = list(itertools.accumulate(shard.examples for shard in self._shards))
        self._readers = {}
        self._lock = threading.Lock()
        damages = [line for shard in self._shards if (line := check_size(self._directory, shard))]
        if damages:
            raise DamagedDataError(_message(damages))
        for i in range(len(self._shards)):
            self._reader(i)

    def __len__(self) -> int:
        return self._ends[-1]

    def __repr__(self) -> str:
        return f"ShardSource({os.fspath(self._directory)!r}, split={self._split!r}, examples={len(self)})"

    def __getitem__(self, position: SupportsIndex) -> bytes:
        """The intact record at `position`."""
        position = position.__index__()
        if not 0 <= position < len(self):
            raise IndexError(f"Position {position} is outside 0 to {len(self) - 1} of split {self._split}.")
        number = bisect.bisect_right(self._ends, position)
        row = position - (self._ends[number - 1] if number else 0)
        try:
            record = self._reader(number).read([row])[0]
            self._schema.check(record)
        except DamagedDataError:
            raise
        except (DamagedExampleError, RuntimeError, ValueError, IndexError) as error:
            file = self._directory / self._shards[number].file
            raise DamagedDataError(
                f"{file}: record {row} (position {position} of split {self._split}) is damaged: {error}. "
                f"{_WAY_OUT}"
            ) from error
        return record

    def __getitems__(self, positions: Iterable[SupportsIndex]) -> list[bytes]:
        """The intact records at `positions`."""
        return [self[position] for position in positions]

    def __getstate__(self):
        state = self.__dict__.copy()
        state["_readers"] = {}
        del state["_lock"]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _reader(self, number: int):
        reader = self._readers.get(number)
        if reader is None:
            with self._lock:
                reader = self._readers.get(number)
                if reader is None:
                    reader = _open(self._directory, self._shards[number])
                    self._readers[number] = reader
        return reader


def read_split(
    directory: epath.PathLike,
    manifest: Manifest,
    split: str,
    *,
    names: tuple[str, ...] | None = None,
) -> dict[str, np.ndarray]:
    """Decodes a whole split into arrays with a leading axis b, of all fields or of `names`."""
    source = ShardSource(directory, manifest, split)
    schema = manifest.schema
    fields = schema.fields if names is None else [schema.field(name) for name in names]
    arrays = {field.name: np.empty((len(source), *field.shape), field.dtype) for field in fields}
    for i in range(len(source)):
        for name, value in schema.views(source[i], tuple(arrays)).items():
            arrays[name][i] = value
    return arrays


def check_size(directory: epath.PathLike, shard: Shard) -> str:
    """What is wrong with the file of `shard` as its directory entry tells; empty where nothing is."""
    path = epath.Path(directory) / shard.file
    if not path.exists():
        return f"{path}: expected {shard.bytes} bytes, the file is missing"
    size = os.path.getsize(path)
    return "" if size == shard.bytes else f"{path}: expected {shard.bytes} bytes, found {size}"


def check_content(directory: epath.PathLike, shard: Shard) -> str:
    """What is wrong with the file of `shard`, every byte read; empty where nothing is."""
    if damage := check_size(directory, shard):
        return damage
    path = epath.Path(directory) / shard.file
    found = sha256_of(path)
    return "" if found == shard.sha256 else f"{path}: expected SHA-256 {shard.sha256}, found {found}"


def verify(directory: epath.PathLike, manifest: Manifest, *, progress: bool = True) -> int:
    """Reads every byte of every shard against the manifest; returns how many bytes were read.

    Raises DamagedDataError with one line for every damaged shard.
    """
    directory = local_path(directory)
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    damages = []
    for shard in _bar(shards, progress, desc="verify", unit="shard"):
        if damage := check_content(directory, shard):
            damages.append(damage)
    if damages:
        raise DamagedDataError(_message(damages))
    return sum(shard.bytes for shard in shards)


def _open(directory: epath.Path, shard: Shard):
    from array_record.python import array_record_module

    path = directory / shard.file
    try:
        reader = array_record_module.ArrayRecordReader(
            os.fspath(path), options=_READER_OPTIONS, file_reader_buffer_size=_READER_BUFFER_BYTES
        )
        found = reader.num_records()  # A cut file opens without a complaint and has none.
    except (RuntimeError, ValueError) as error:
        raise DamagedDataError(_message([f"{path}: cannot be opened: {error}"])) from error
    if found != shard.examples:
        raise DamagedDataError(_message([f"{path}: expected {shard.examples} records, found {found}"]))
    return reader


def _message(damages: Sequence[str]) -> str:
    lines = "; ".join(damages[:10]) + (f"; and {len(damages) - 10} more" if len(damages) > 10 else "")
    return f"{len(damages)} damaged shard(s): {lines}. {_WAY_OUT}"


def local_path(path: epath.PathLike) -> epath.Path:
    """`path` as a path of the file system; raises ValueError for a bucket address."""
    if "://" in os.fspath(path):
        raise ValueError(
            f"{path}: ArrayRecord needs a file system; mount the bucket (gcsfuse) and give that path."
        )
    return epath.Path(path)


def _bar(items, progress: bool, **settings):
    if not progress:
        return items
    from tqdm import tqdm

    return tqdm(items, **settings)
