"""What a part of a report's spec may hold."""

from collections.abc import Collection, Mapping
from typing import Any


def check_keys(
    spec: Mapping[str, Any], path: str, known: Collection[str], *, needed: Collection[str] = ()
) -> None:
    """Raises ValueError at `path` where a key is unknown, or one that is needed is missing."""
    if unknown := set(spec) - set(known):
        raise ValueError(f"{path}: unknown {sorted(unknown)}; choose from {', '.join(sorted(known))}.")
    if absent := set(needed) - set(spec):
        raise ValueError(f"{path}: {sorted(absent)} missing.")
