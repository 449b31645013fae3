"""PyTorch's files of tensors, read and written without PyTorch: the zip of `torch.save`, and safetensors.

No pickle is executed (see `torch_pickle`) and nothing is unpacked to disk. Compressed members, which torch never
writes, are read up to a fixed ratio; the sum of all members is bounded by the size of the file.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from ecgjax.core import files
from ecgjax.weights.pickles import read_pickle

_MAX_PICKLE = 64 * 2**20
_MAX_RATIO = 16
_DATE = (1980, 1, 1, 0, 0, 0)
_STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
_SAFETENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def read_torch(path: epath.PathLike) -> Any:
    """What `torch.save` wrote, as nested dicts, lists and tuples of numpy arrays, scalars and strings.

    Settings that were pickled as objects (argparse.Namespace and the like) come back as `Record`; any other object
    is an error that names it. bfloat16 becomes float32; arrays may share memory and are read-only.
    """
    path = epath.Path(path)
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        head = file.read(4)
        if head[:2] != b"PK":
            raise ValueError(f"{path}: {_what_else(head)}")
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as archive:
                return _read_archive(archive, size, str(path))
        except (
            zipfile.BadZipFile,
            EOFError,
            OSError,
            struct.error,
            NotImplementedError,
            OverflowError,
        ) as error:
            raise ValueError(f"{path}: the zip archive is cut short or damaged ({error}).") from None


def read_safetensors(path: epath.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file by name; bfloat16 becomes float32."""
    library = _safetensors()
    content = epath.Path(path).read_bytes()
    try:
        parts = library.deserialize(content)
    except library.SafetensorError as error:
        raise ValueError(f"{path}: no safetensors file, or a damaged one ({error}).") from None
    tensors = {}
    for name, part in parts:
        if part["dtype"] not in _SAFETENSORS:
            raise ValueError(f"{path}: tensor {name} is {part['dtype']}, which is not supported.")
        values = np.frombuffer(part["data"], _SAFETENSORS[part["dtype"]])
        if part["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = values.reshape(part["shape"])
    return tensors


def write_torch(path: epath.PathLike, tree: Any) -> None:
    """Writes nested dicts and lists of numpy arrays, scalars and strings so that `torch.load` reads them.

    The same tree gives the same bytes. `torch.load(path, weights_only=True)` needs nothing else.
    """
    writer = _Writer()
    writer.value(tree)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:

        def add(name, data):
            archive.writestr(zipfile.ZipInfo(f"archive/{name}", _DATE), data)

        add("data.pkl", b"\x80\x02" + bytes(writer.pickle) + b".")
        add("byteorder", b"little")
        for key, array in enumerate(writer.arrays):
            add(f"data/{key}", array.astype(array.dtype.newbyteorder("<")).tobytes())
        add("version", b"3\n")
    files.write_bytes(path, content.getvalue())


def write_safetensors(
    path: epath.PathLike, tensors: Mapping[str, np.ndarray], *, metadata: Mapping[str, str]
) -> None:
    """Writes tensors by name, and text about them."""
    _safetensors()
    from safetensors.numpy import save

    contiguous = {name: np.array(array, order="C") for name, array in tensors.items()}
    files.write_bytes(path, save(contiguous, dict(metadata)))


def _read_archive(archive: zipfile.ZipFile, size: int, path: str) -> Any:
    members = _check_members(archive, size, path)
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    roots = [name.removesuffix("data.pkl") for name in pickles if name.count("/") <= 1]
    if len(roots) != 1:
        raise ValueError(f"{path}: a zip archive without one data.pkl; torch.save writes another kind.")
    root = roots[0]
    if f"{root}constants.pkl" in members or any(name.startswith(f"{root}code/") for name in members):
        raise ValueError(
            f"{path}: a TorchScript program, not a file of weights; save its tensors: "
            f"torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)."
        )
    order = b"little"
    if f"{root}byteorder" in members:
        order = _read(archive, members[f"{root}byteorder"], path)
    if order not in (b"little", b"big"):
        raise ValueError(f"{path}: byteorder is {order[:20]!r}; expected little or big.")
    if members[f"{root}data.pkl"].file_size > _MAX_PICKLE:
        raise ValueError(f"{path}: data.pkl is larger than {_MAX_PICKLE} bytes: this is no file of weights.")

    def open_storage(key: str) -> np.ndarray:
        name = f"{root}data/{key}"
        if name not in members:
            raise ValueError(f"storage {key} is missing from the archive")
        return np.frombuffer(_read(archive, members[name], path), np.uint8)

    return read_pickle(
        _read(archive, members[f"{root}data.pkl"], path),
        open_storage,
        order="<" if order == b"little" else ">",
        where=f"{path}: {root}data.pkl",
    )


def _check_members(archive: zipfile.ZipFile, size: int, path: str) -> dict[str, zipfile.ZipInfo]:
    """Members by name; raises on what no `torch.save` writes and what could exhaust memory."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename
        if name in members:
            raise ValueError(f"{path}: two members are named {name[:80]!r}.")
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise ValueError(f"{path}: member {name[:80]!r} points out of the archive.")
        if info.flag_bits & 1:
            raise ValueError(f"{path}: member {name[:80]!r} is encrypted.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{path}: member {name[:80]!r} is compressed by method {info.compress_type}.")
        members[name] = info
    stored = sum(info.file_size for info in members.values() if info.compress_type == zipfile.ZIP_STORED)
    deflated = sum(info.file_size for info in members.values()) - stored
    if stored > size or deflated > _MAX_RATIO * size:
        raise ValueError(
            f"{path}: {size} bytes that would unpack to {stored + deflated}; torch.save compresses nothing, and "
            f"more than {_MAX_RATIO} times the file is not read."
        )
    return members


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str) -> bytes:
    """One member, never more of it than it declares."""
    with archive.open(info) as member:
        try:
            content = member.read(info.file_size)
            more = member.read(1)
        except zlib.error as error:
            raise ValueError(f"{path}: member {info.filename!r} is damaged ({error}).") from None
    if len(content) != info.file_size or more:
        raise ValueError(
            f"{path}: member {info.filename!r} declares {info.file_size} bytes and holds others; it is cut short "
            f"or forged."
        )
    return content


def _what_else(head: bytes) -> str:
    resave = "torch.save(torch.load(FILE, weights_only=True), NEW_FILE)"
    if not head:
        return "the file is empty."
    if head[:1] == b"\x80":
        return (
            "the format that torch.save used before version 1.6, or a bare pickle; it is not read. Write it again "
            f"with a current torch: {resave}"
        )
    return f"not what torch.save writes (no zip archive). If torch can read it: {resave}"


class _Writer:
    """Pickle opcodes of protocol 2 for a tree, and the arrays that it refers to."""

    def __init__(self):
        self.pickle = bytearray()
        self.arrays: list[np.ndarray] = []

    def value(self, value: Any) -> None:
        """Appends what rebuilds `value`."""
        out = self.pickle
        if isinstance(value, np.ndarray | np.generic):
            self._array(np.asarray(value))
        elif isinstance(value, Mapping):
            out += b"}("
            for key, item in value.items():
                self.value(key)
                self.value(item)
            out += b"u"
        elif isinstance(value, list | tuple):
            out += b"](" if isinstance(value, list) else b"("
            for item in value:
                self.value(item)
            out += b"e" if isinstance(value, list) else b"t"
        elif value is None or isinstance(value, bool):
            out += {None: b"N", True: b"\x88", False: b"\x89"}[value]
        elif isinstance(value, int):
            self._integer(value)
        elif isinstance(value, float):
            out += b"G" + struct.pack(">d", value)
        elif isinstance(value, str):
            text = value.encode()
            out += b"X" + struct.pack("<I", len(text)) + text
        else:
            raise ValueError(f"{type(value).__name__} has no place in a file of weights; give arrays.")

    def _array(self, array: np.ndarray) -> None:
        if array.dtype.name not in _STORAGES:
            raise ValueError(
                f"an array of {array.dtype.name}: torch files take {', '.join(_STORAGES)}; convert it."
            )
        key = len(self.arrays)
        self.arrays.append(array)
        strides, step = [], 1
        for size in reversed(array.shape):
            strides.append(step)
            step *= size
        self.pickle += b"ctorch._utils\n_rebuild_tensor_v2\n(("
        self.value("storage")
        self.pickle += f"ctorch\n{_STORAGES[array.dtype.name]}\n".encode()
        self.value(str(key))
        self.value("cpu")
        self.value(array.size)
        self.pickle += b"tQ"
        for part in (0, array.shape, tuple(strides[::-1]), False):
            self.value(part)
        self.pickle += b"ccollections\nOrderedDict\n)RtR"

    def _integer(self, value: int) -> None:
        if -(2**31) <= value < 2**31:
            self.pickle += b"J" + struct.pack("<i", value)
        else:
            content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self.pickle += b"\x8a" + bytes([len(content)]) + content


def _safetensors():
    try:
        import safetensors
    except ImportError:
        raise ValueError("safetensors files need an extra: pip install ecgjax[torch]") from None
    return safetensors
