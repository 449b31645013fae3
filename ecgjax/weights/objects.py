"""What a PyTorch file may name: tensors, plain containers, and passive records of settings; nothing is imported."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

_MAX_AXES = 16
_MAX_EXTENT = 2**31
RESAVE = (
    "in an environment that trusts the file, save its tensors alone: torch.save(model.state_dict(), FILE)"
)

BFLOAT16 = "bfloat16"
"""Numpy has no such type: its 16 bits are the upper half of a float32, which is what comes back."""

_DTYPES = {
    **{f"float{bits}": f"f{bits // 8}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{"bool": "u1", "complex64": "c8", "complex128": "c16", BFLOAT16: "u2"},
}
_STORAGES = {
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": BFLOAT16,
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.ComplexFloatStorage": "complex64",
    "torch.ComplexDoubleStorage": "complex128",
    "torch.storage.UntypedStorage": None,
    "torch.UntypedStorage": None,
}
_PASSIVE = {
    "argparse.Namespace",
    "types.SimpleNamespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.StringNode",
}
"""Containers of settings; they become a `Record` of the same name, which does nothing."""
_MENTIONED = {
    "typing.Any",
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in ("bool", "dict", "float", "int", "list", "str", "tuple")
    ),
}
"""Types that settings refer to; they may be mentioned, not called."""
_CALLED = {
    "collections.OrderedDict",
    "collections.defaultdict",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "_codecs.encode",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
}
"""What `Objects.call` does itself."""
_KNOWN = {*_STORAGES, *_PASSIVE, *_MENTIONED, *_CALLED, *(f"torch.{dtype}" for dtype in _DTYPES)}


@dataclasses.dataclass(frozen=True)
class Global:
    """A name that a file mentions, such as a dtype; nothing is imported."""

    name: str


@dataclasses.dataclass(frozen=True)
class Record:
    """An object of settings as its file describes it: class, arguments and fields."""

    name: str
    args: tuple = ()
    fields: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Storage:
    """A storage that a tensor may be built on; without `dtype` the tensor says how to read its bytes."""

    key: str
    dtype: str | None
    size: int


@dataclasses.dataclass
class Scalar:
    """A numpy dtype on its way to a numpy scalar."""

    dtype: np.dtype


class Objects:
    """Builds what the pickle describes, on storages that `open_storage` gives by their key.

    `order` is their byte order, `<` or `>`.
    """

    def __init__(self, open_storage: Callable[[str], np.ndarray], order: str):
        self._open_storage, self._order = open_storage, order
        self._storages: dict[str, np.ndarray] = {}
        self._values: dict[tuple[str, str], np.ndarray] = {}

    @property
    def storage_bytes(self) -> int:
        """Bytes of all storages that were referred to."""
        return sum(len(content) for content in self._storages.values())

    def storage(self, pid: Any) -> Storage:
        """The storage of a persistent id, checked against what the file holds."""
        if type(pid) is not tuple or len(pid) != 5 or pid[0] != "storage":
            raise ValueError("a persistent id that is no torch storage")
        _, cls, key, _, elements = pid
        if not isinstance(cls, Global) or cls.name not in _STORAGES:
            raise ValueError(f"storage class {short(cls)} is not supported")
        if type(key) is not str or not key.isascii() or not key.isalnum():
            raise ValueError(f"storage key {short(key)}: letters and digits only")
        if not _is_count(elements):
            raise ValueError(f"storage {key} claims {short(elements)} elements")
        if key not in self._storages:
            self._storages[key] = self._open_storage(key)
        dtype, held = _STORAGES[cls.name], len(self._storages[key])
        size = elements * (np.dtype(_DTYPES[dtype]).itemsize if dtype else 1)
        if size > held:
            raise ValueError(f"storage {key} claims {size} bytes, the file holds {held}")
        return Storage(key, dtype, size)

    def call(self, function: Any, arguments: Any) -> Any:
        """Does what the few functions of a weight file would do; `function` is only a name."""
        if not isinstance(function, Global) or type(arguments) is not tuple:
            raise ValueError(f"a call of {short(function)}")
        name = function.name
        if name in _PASSIVE:
            return Record(name, arguments)
        match name, arguments:
            case "collections.OrderedDict", ():
                return {}
            case "collections.OrderedDict", (list(pairs),):
                return set_items({}, [part for key, value in pairs for part in (key, value)])
            case "collections.defaultdict", (Global(),) | ():
                return {}
            case "torch.Size", (tuple(sizes),):
                return sizes
            case "torch.device", (str(), *_):
                return Record(name, arguments)
            case "torch._utils._rebuild_tensor_v2", (storage, offset, size, stride, bool(), *_):
                return self._tensor(storage, offset, size, stride, None)
            case "torch._utils._rebuild_tensor_v3", (storage, offset, size, stride, bool(), _, Global(d), *_):
                return self._tensor(storage, offset, size, stride, d.removeprefix("torch."))
            case (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                (np.ndarray() as data, bool(), *_),
            ):
                return data
            case "_codecs.encode", (str(text), "latin1"):
                return text.encode("latin1")
            case "numpy.dtype", (str(text), *_) if text in ("f2", "f4", "f8", "i2", "i4", "i8", "b1"):
                return Scalar(np.dtype(text))
            case (
                "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar",
                (Scalar(dtype), bytes(content)),
            ) if len(content) == dtype.itemsize:
                return np.frombuffer(content, dtype)[0].item()
        raise ValueError(f"a call of {name} with arguments that torch.save does not write")

    def _tensor(self, storage, offset, size, stride, dtype) -> np.ndarray:
        if not isinstance(storage, Storage):
            raise ValueError("a tensor without storage")
        dtype = storage.dtype or dtype
        if dtype not in _DTYPES:
            raise ValueError(f"tensors of type {short(dtype)} are not supported")
        _check_extent(storage.size // np.dtype(_DTYPES[dtype]).itemsize, offset, size, stride)
        values = self._values_of(storage.key, dtype)
        if 0 in size:
            return np.empty(size, values.dtype)
        steps = [step * values.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False)

    def _values_of(self, key: str, dtype: str) -> np.ndarray:
        """A whole storage in a type that numpy has and in this machine's byte order, converted once."""
        if (key, dtype) not in self._values:
            stored = np.dtype(_DTYPES[dtype]).newbyteorder(self._order)
            content = self._storages[key]
            values = content[: len(content) // stored.itemsize * stored.itemsize].view(stored)
            if dtype == BFLOAT16:
                values = (values.astype(np.uint32) << 16).view(np.float32)
            elif dtype == "bool":
                values = values != 0
            self._values[key, dtype] = values.astype(values.dtype.newbyteorder("="), copy=False)
        return self._values[key, dtype]


def _check_extent(elements: int, offset, size, stride) -> None:
    """Raises where a tensor would reach out of its storage, or claims more values than that holds."""
    if not (
        _is_count(offset)
        and type(size) is type(stride) is tuple
        and len(size) == len(stride) <= _MAX_AXES
        and all(map(_is_count, (*size, *stride)))
    ):
        raise ValueError(f"a tensor of offset {short(offset)}, size {short(size)}, stride {short(stride)}")
    if max(size, default=0) >= _MAX_EXTENT:
        raise ValueError(f"a tensor of size {short(size)}")
    if 0 in size:
        return
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= elements:
        raise ValueError(
            f"a tensor of size {size}, stride {stride}, offset {offset} reads element {last} of {elements}"
        )
    if math.prod(size) > elements:
        raise ValueError(
            f"a tensor of size {size} over {elements} stored values is an expanded view; save .contiguous()"
        )


def named(name: str) -> Global:
    """The class, function or dtype of that name, if it is one of the few known."""
    if name not in _KNOWN:
        raise ValueError(
            f"the file asks for {short(name)}, which is neither tensor nor plain container, and nothing outside "
            f"that list is imported or run. A pickled module or optimiser? Then {RESAVE}"
        )
    return Global(name)


def build(target: Any, state: Any) -> None:
    """Gives a record its fields; the attributes of a dict, such as a state dict's metadata, are not kept."""
    if isinstance(target, Scalar):
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise ValueError("a numpy dtype that is no plain number")
        target.dtype = target.dtype.newbyteorder(state[1])
        return
    parts = state if type(state) is tuple and len(state) == 2 else (state,)
    if not all(part is None or type(part) is dict for part in parts):
        raise ValueError(f"state that is no dict for {short(target)}")
    if isinstance(target, Record):
        for part in parts:
            target.fields.update(part or {})
    elif type(target) is not dict:
        raise ValueError(f"state for {short(target)}")


def set_items(target: Any, items: list) -> Any:
    """Sets alternating keys and values; on a record, as its fields."""
    fields = target.fields if isinstance(target, Record) else target
    if type(fields) is not dict or len(items) % 2:
        raise ValueError(f"setting items of {short(target)}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int):
            raise ValueError(f"key {short(key)}: only strings and integers are keys of a weight file")
        fields[key] = value
    return target


def _is_count(value) -> bool:
    return type(value) is int and 0 <= value < 2**62


def short(value: Any) -> str:
    """A value in an error message, never more than a line of it."""
    if isinstance(value, Global | Record):
        return value.name[:80]
    if type(value) is tuple:
        return "(" + ", ".join(short(part) for part in value[:4] if type(part) is not tuple) + ", ...)"
    if type(value) is str:
        return repr(value[:80])
    return repr(value) if type(value) in (int, float, bool, type(None)) else type(value).__name__
