"""The binary form of one example: fixed-size fields behind a header that can tell damage."""

import dataclasses
import functools
import hashlib
import struct
import zlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float32, Int16

MAGIC = b"ECGX"
VERSION = 1
_HEADER = struct.Struct(
    "<4sHH8sQII"
)  # magic, version, reserved, schema digest, reserved, payload bytes, CRC32
_ALIGNMENT = 8
DTYPES = ("int16", "uint8", "float16", "float32", "int32")


class DamagedExampleError(ValueError):
    """The bytes are not an intact example of the schema; the message says what was expected and found."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One array of an example; shape and dtype are the same in every example of a data set."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise ValueError(f"Field {self.name}: dtype {self.dtype!r} is unknown; choose from {DTYPES}.")
        if any(size < 1 for size in self.shape):
            raise ValueError(f"Field {self.name}: shape {self.shape} has an axis below 1.")

    @functools.cached_property
    def numpy_dtype(self) -> np.dtype:
        """Little-endian, whatever the machine."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def nbytes(self) -> int:
        """Bytes of the array, without padding."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.numpy_dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Schema:
    """The fields of a data set in the order in which they lie in a record.

    Fields begin at multiples of 8 bytes, so that decoded arrays are aligned views. The header holds a digest
    of the fields: a record of another data set is refused, never misread.
    """

    fields: tuple[Field, ...]

    def __post_init__(self):
        names = [field.name for field in self.fields]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"A schema needs fields with distinct names; got {names}.")

    @functools.cached_property
    def offsets(self) -> dict[str, int]:
        """Byte offset of every field from the start of the record."""
        offsets, position = {}, _HEADER.size
        for field in self.fields:
            offsets[field.name] = position
            position += -(-field.nbytes // _ALIGNMENT) * _ALIGNMENT
        return offsets

    @functools.cached_property
    def nbytes(self) -> int:
        """Bytes of a record."""
        last = self.fields[-1]
        return self.offsets[last.name] + -(-last.nbytes // _ALIGNMENT) * _ALIGNMENT

    @functools.cached_property
    def digest(self) -> bytes:
        """Eight bytes that stand for version, names, dtypes and shapes."""
        text = repr((VERSION, [(field.name, field.dtype, tuple(field.shape)) for field in self.fields]))
        return hashlib.sha256(text.encode()).digest()[:8]

    def field(self, name: str) -> Field:
        """The field called `name`."""
        for field in self.fields:
            if field.name == name:
                return field
        raise ValueError(f"No field {name!r}; this data set has {[field.name for field in self.fields]}.")

    def encode(self, example: Mapping[str, np.ndarray]) -> bytes:
        """Returns the record of `example`, whose names, dtypes and shapes must be the schema's exactly."""
        names = {field.name for field in self.fields}
        if set(example) != names:
            raise ValueError(
                f"The example has fields {sorted(example)}, the schema {sorted(names)}; give exactly these."
            )
        record = bytearray(self.nbytes)
        for field in self.fields:
            value = np.asarray(example[field.name])
            if value.dtype != np.dtype(field.dtype) or value.shape != tuple(field.shape):
                raise ValueError(
                    f"Field {field.name}: expected {field.dtype} {tuple(field.shape)}, "
                    f"got {value.dtype} {value.shape}."
                )
            start = self.offsets[field.name]
            record[start : start + field.nbytes] = value.astype(field.numpy_dtype).tobytes()
        payload = memoryview(record)[_HEADER.size :]
        _HEADER.pack_into(record, 0, MAGIC, VERSION, 0, self.digest, 0, len(payload), zlib.crc32(payload))
        return bytes(record)

    def decode(self, record: bytes) -> dict[str, np.ndarray]:
        """Returns read-only views into `record`, of all fields.

        Raises DamagedExampleError, which names what was expected and found.
        """
        self.check(record)
        return self.views(record)

    def views(self, record: bytes, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
        """As `decode`, of all fields or of `names`, for a record that was checked before."""
        fields = self.fields if names is None else [self.field(name) for name in names]
        return {
            field.name: np.frombuffer(
                record,
                field.numpy_dtype,
                field.nbytes // field.numpy_dtype.itemsize,
                self.offsets[field.name],
            ).reshape(field.shape)
            for field in fields
        }

    def check(self, record: bytes) -> None:
        """Raises DamagedExampleError unless `record` is intact and of this schema."""
        if len(record) < _HEADER.size:
            raise DamagedExampleError(
                f"expected at least {_HEADER.size} bytes of header, found {len(record)}"
            )
        magic, version, _, digest, _, size, checksum = _HEADER.unpack_from(record)
        if magic != MAGIC:
            raise DamagedExampleError(f"expected magic {MAGIC!r}, found {magic!r}: not an ecgjax example")
        if version != VERSION:
            raise DamagedExampleError(
                f"expected schema version {VERSION}, found {version}: written by another ecgjax"
            )
        if digest != self.digest:
            raise DamagedExampleError(
                f"expected schema digest {self.digest.hex()}, found {digest.hex()}: the fields differ"
            )
        if size != self.nbytes - _HEADER.size or len(record) != self.nbytes:
            raise DamagedExampleError(
                f"expected a record of {self.nbytes} bytes, found {len(record)} with a payload of {size}"
            )
        found = zlib.crc32(memoryview(record)[_HEADER.size :])
        if found != checksum:
            raise DamagedExampleError(f"expected CRC32 {checksum:08x}, found {found:08x}: bytes have changed")

    def to_json(self) -> list[dict]:
        """Returns plain lists and dicts."""
        return [{"name": f.name, "dtype": f.dtype, "shape": list(f.shape)} for f in self.fields]

    @classmethod
    def from_json(cls, tree: list) -> "Schema":
        """Reverses `to_json`."""
        return cls(tuple(Field(entry["name"], entry["dtype"], tuple(entry["shape"])) for entry in tree))


def make_schema(
    *,
    ecg: tuple[int, int] | None,
    cmr: tuple[int, int, int] | None,
    targets: int,
    beats: int = 0,
    rr: bool = False,
) -> Schema:
    """The schema of a data set with ECGs of shape `ecg` = [l t], CMR of shape `cmr` = [y x c], or one.

    `beats` places for R peaks; `rr` where an example is one beat and the times to its neighbours are known.
    """
    if ecg is None and cmr is None:
        raise ValueError("A data set needs an ECG or a CMR; both are absent.")
    fields = []
    if ecg is not None:
        leads = ecg[0]
        fields += [
            Field("ecg", "int16", tuple(ecg)),
            Field("ecg_step", "float32", ()),
            Field("ecg_offset", "float32", (leads,)),
            Field("ecg_scale", "float32", (leads,)),
        ]
        fields += [Field("beats", "int32", (beats,))] if beats else []
        fields += [Field("rr", "float32", (4,))] if rr else []
    if cmr is not None:
        fields.append(Field("cmr", "float16", tuple(cmr)))
    if targets:
        fields.append(Field("label", "float32", (targets,)))
    fields += [Field("subject", "uint8", (8,)), Field("record", "uint8", (8,))]
    return Schema(tuple(fields))


def quantise(signal: Float[np.ndarray, "l t"]) -> tuple[Int16[np.ndarray, "l t"], Float32[np.ndarray, ""]]:
    """Rounds to int16 with one step for the whole example, max|x| / 32767.

    The error of an element is at most half a step, that is max|x| / 65534: -96 dB of the peak, below the
    resolution of a 16-bit recorder. A signal of zeros gets step 1 / 32767.
    """
    peak = float(np.max(np.abs(signal)))
    if not np.isfinite(peak):
        raise ValueError("The signal holds NaN or infinity, which int16 cannot; condition it first.")
    step = np.float32((peak or 1.0) / 32767)
    if step == 0:
        raise ValueError(f"The peak {peak} is too small for a float32 step; scale the signal first.")
    return np.rint(signal / np.float64(step)).astype(np.int16), np.asarray(step)


def dequantise(
    ecg: Int16[np.ndarray, "*b l t"], step: Float32[np.ndarray, "*b"]
) -> Float32[np.ndarray, "*b l t"]:
    """Reverses `quantise` up to half a step."""
    return ecg.astype(np.float32) * step[..., None, None]
