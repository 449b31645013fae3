"""Small files, local or gs://, written whole or not at all."""

import json
import os
from collections.abc import Mapping
from typing import Any

from etils import epath


def absolute(path: epath.PathLike) -> epath.Path:
    """A path that means the same from every working directory; a bucket's already does."""
    return epath.Path(path).resolve() if "://" not in os.fspath(path) else epath.Path(path)


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Writes to a neighbour, then renames: a reader never sees half a file, nor does a power cut leave one."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"
    partial.write_bytes(content)
    if "://" not in os.fspath(path):  # A bucket has no buffer to flush.
        descriptor = os.open(partial, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    partial.replace(path)


def write_text(path: epath.PathLike, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: epath.PathLike, tree: Mapping[str, Any]) -> None:
    """Writes indented JSON with sorted keys; NaN is refused because JSON has none."""
    write_text(path, json.dumps(tree, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: epath.PathLike) -> dict[str, Any]:
    """Reads one JSON object; an unreadable file is named."""
    try:
        return json.loads(epath.Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not JSON ({error}); it was cut short or edited: remove it and run the job that wrote it again."
        ) from None
