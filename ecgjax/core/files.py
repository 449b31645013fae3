"""Small files, local or gs://, written whole or not at all; errors of storage that may pass are tried again."""

import contextlib
import errno
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from etils import epath

T = TypeVar("T")

WAITS_S = (1.0, 5.0, 25.0)
"""Seconds between the tries of what failed."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
_PASSING = _FULL | {
    *(errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.EPIPE, errno.ETIMEDOUT),
    errno.ENOTEMPTY,  # Somebody writes into what is being removed.
    *(errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH),
}
_FULL_TEXT = re.compile(r"No space left on device|[Qq]uota exceeded|\bENOSPC\b|\bEDQUOT\b")
# As TensorStore, fsspec and epath put it, none of which keeps the number.
_PASSING_TEXT = re.compile(
    r"\bUNAVAILABLE\b|\bDEADLINE_EXCEEDED\b|Input/output error|Stale file handle|Connection (reset|refused|aborted)"
    r"|\b(HTTP|status|response|code)\W+(code\W+)?(429|5\d\d)\b|\b(429|5\d\d) (Server Error|Too Many Requests|"
    r"Internal Server Error|Bad Gateway|Service Unavailable|Gateway Timeout)"
)


class StorageError(ValueError):
    """Disk, network or bucket failed again and again; says where, and what to do."""


def retried(
    action: Callable[[], T], what: str, path: epath.PathLike, *, waits_s: Sequence[float] | None = None
) -> T:
    """Returns `action()`; an error that may pass is said and tried again after each of `waits_s`, then is final.

    A full disk counts among them: somebody may clear it, and a save under way may delete an older one.
    """
    for wait in (*(WAITS_S if waits_s is None else waits_s), None):
        try:
            return action()
        except Exception as error:
            if not may_pass(error):
                raise
            if wait is None:
                raise storage_error(what, error, path) from error
            complain(f"{what} failed ({first_line(error)}); trying again in {wait:g} s.")
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def storage_error(what: str, error: BaseException, path: epath.PathLike) -> StorageError:
    """What a person needs to know of an error that no further try will mend."""
    return StorageError(f"{what}: {_way_out(error, path)}")


def complain(message: str) -> None:
    """One line of this process, whether it leads or not: its storage is its own."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def may_pass(error: BaseException) -> bool:
    """Whether it is of storage and may be gone in a minute; a missing file or half a one stays as it is."""
    if isinstance(error, StorageError):
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _PASSING
    return is_full(error) or _PASSING_TEXT.search(str(error)) is not None


def is_full(error: BaseException) -> bool:
    """Whether no space was left."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return _FULL_TEXT.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    """An error in one short line."""
    if is_full(error):  # TensorStore says so behind three paths.
        return "no space left on device"
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _way_out(error: BaseException, path: epath.PathLike) -> str:
    if not is_full(error):
        return f"{path} failed again and again ({first_line(error)}); run the same command once the storage is well."
    return (
        f"no space is left for {path}{_free(path)}. What was saved before is whole: free space and run the same "
        f"command, or choose a --workdir elsewhere."
    )


def _free(path: epath.PathLike) -> str:
    if "://" in os.fspath(path):
        return ""
    path = epath.Path(path).resolve()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return f" ({shutil.disk_usage(existing).free:,} bytes free)"


def absolute(path: epath.PathLike) -> epath.Path:
    """A path that means the same from every working directory; a bucket's already does."""
    return epath.Path(path).resolve() if "://" not in os.fspath(path) else epath.Path(path)


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Writes to a neighbour, then renames: a reader never sees half a file, nor does a power cut leave one."""
    path = epath.Path(path)
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        if "://" not in os.fspath(path):  # A bucket has no buffer to flush.
            descriptor = os.open(partial, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        partial.replace(path)

    try:
        retried(write, f"writing {path}", path)
    except Exception:
        with contextlib.suppress(OSError):  # The error that matters is the first.
            partial.unlink(missing_ok=True)
        raise


def write_text(path: epath.PathLike, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: epath.PathLike, tree: Mapping[str, Any]) -> None:
    """Writes indented JSON with sorted keys; NaN is refused because JSON has none."""
    write_text(path, json.dumps(tree, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_text(path: epath.PathLike) -> str:
    """The whole file, in UTF-8."""
    return retried(lambda: epath.Path(path).read_text(), f"reading {path}", path)


def read_json(path: epath.PathLike) -> dict[str, Any]:
    """Reads one JSON object; an unreadable file is named."""
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not JSON ({error}); it was cut short or edited: remove it and run the job that wrote it again."
        ) from None
