"""The pickle inside a PyTorch file, read as data: an interpreter of its opcodes that imports and calls nothing.

Python's unpickler runs whatever a file names. This one knows the few dozen opcodes that `torch.save` writes and the
names in `torch_objects`: tensors are built from their description, plain containers come back as such, and
hyper-parameter containers as `Record`. Any other name or opcode is an error.
"""

import pickletools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from ecgjax.weights.objects import RESAVE, Global, Objects, Record, build, named, set_items, short

_MAX_OPCODES = 4_000_000
_MAX_NODES = 1_000_000
_MAX_DEPTH = 64


def read_pickle(content: bytes, open_storage: Callable[[str], np.ndarray], *, order: str, where: str) -> Any:
    """Returns what the pickle describes: dicts, lists, tuples, numpy arrays, scalars, strings, `Record`, `Global`.

    `open_storage` gives the bytes of a storage by its key; `order` is their byte order, `<` or `>`. Arrays may share
    memory and cannot be written to. Expanded tensors, which claim more values than their storage has, are refused,
    and so is a tree that is cyclic, deeper than 64 levels or, unrolled, larger than a million nodes.
    """
    objects = Objects(open_storage, order)
    machine = _Machine(objects)
    count = position = 0
    try:
        for opcode, argument, found in pickletools.genops(content):
            count, position = count + 1, found
            if count > _MAX_OPCODES:
                raise ValueError(f"more than {_MAX_OPCODES} opcodes: this is no file of weights")
            machine.step(opcode.name, argument)
        tree = machine.result()
        _check_tree(tree, objects.storage_bytes)
    except (IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise ValueError(f"{where}: malformed pickle at byte {position} ({type(error).__name__}).") from None
    except ValueError as error:
        raise ValueError(f"{where}, byte {position}: {error}") from None
    return tree


class _Machine:
    """Stack, marks and memo of the pickle language; `step` carries out one opcode."""

    def __init__(self, objects: Objects):
        self._objects = objects
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def result(self):
        """What is left at the end."""
        if len(self._stack) != 1 or self._below:
            raise ValueError("the pickle leaves more or less than one object")
        return self._stack[0]

    def step(self, opcode: str, argument: Any) -> None:
        """Carries out one opcode."""
        stack = self._stack
        match opcode:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4":
                if argument.bit_length() > 128:
                    raise ValueError(f"an integer of {argument.bit_length()} bits")
                stack.append(argument)
            case "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                stack.append(argument)
            case "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8":
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "MARK":
                self._below.append(stack)
                self._stack = []
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._marked()
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": ()}[opcode])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                number = int(opcode[-1])
                items = tuple(stack[-number:])
                if len(items) != number:
                    raise IndexError
                stack[-number:] = [items]
            case "TUPLE":
                self._push(tuple(self._marked()))
            case "LIST":
                self._push(self._marked())
            case "DICT":
                items = self._marked()
                self._push(set_items({}, items))
            case "APPEND":
                value = stack.pop()
                _list(stack[-1]).append(value)
            case "APPENDS":
                items = self._marked()
                _list(self._stack[-1]).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                set_items(stack[-1], [key, value])
            case "SETITEMS":
                items = self._marked()
                set_items(self._stack[-1], items)
            case "GLOBAL":
                stack.append(named(".".join(argument.split(" ", 1))))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(named(f"{module}.{name}"))
            case "BINPERSID":
                stack.append(self._objects.storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._objects.call(function, arguments))
            case "NEWOBJ":
                arguments, cls = stack.pop(), stack.pop()
                stack.append(self._objects.call(cls, arguments))
            case "BUILD":
                state = stack.pop()
                build(stack[-1], state)
            case _:
                raise ValueError(f"opcode {opcode} is none that torch.save writes for weights; {RESAVE}")

    def _push(self, value):
        self._stack.append(value)

    def _marked(self) -> list:
        items, self._stack = self._stack, self._below.pop()
        return items


def _list(target) -> list:
    if type(target) is not list:
        raise ValueError(f"appending to {short(target)}")
    return target


def _check_tree(tree, storage_bytes: int) -> None:
    """Raises where the tree, unrolled, is too large, too deep or cyclic, or holds what is no value."""
    nodes = claimed = 0
    pending = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        nodes += 1
        if nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise ValueError(
                f"nested deeper than {_MAX_DEPTH}, in a circle, or unrolled to more than {_MAX_NODES} nodes"
            )
        if isinstance(node, np.ndarray):
            claimed += node.nbytes
            if claimed > 8 * storage_bytes:
                raise ValueError(f"tensors of {claimed} bytes share storages of {storage_bytes}")
        elif isinstance(node, Record):
            pending += [(child, depth + 1) for child in (node.args, node.fields)]
        elif type(node) is dict:
            pending += [(child, depth + 1) for child in node.values()]
        elif type(node) in (list, tuple):
            pending += [(child, depth + 1) for child in node]
        elif type(node) not in (str, bytes, int, float, bool, type(None), Global):
            raise ValueError(f"{type(node).__name__.strip('_').lower()} that belongs to no tensor")
