"""Results of an evaluator on disk: JSON with arrays beside it, in which null stands for NaN."""

import io
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from ecgjax.core.files import read_json, write_bytes, write_json


def results_path(workdir: epath.PathLike, evaluator: str, step: int) -> epath.Path:
    """Where the JSON of one evaluator and step lies; it exists exactly when the results are complete."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", evaluator):
        raise ValueError(
            f"evaluator name {evaluator!r} is no file name; use letters, digits, '_', '-' and '.'."
        )
    return _directory(workdir, evaluator) / f"{step}.json"


def write_results(path: epath.Path, tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays first and JSON last, so that the JSON file means complete; NaN becomes null."""
    for name, array in arrays.items():
        if array.dtype.kind not in "biufU":
            raise ValueError(f"array {name!r} has dtype {array.dtype}; give numbers or fixed-width text.")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path.with_suffix(".npz"), buffer.getvalue())
    write_json(path, _without_nan(tree))


def read_results(
    workdir: epath.PathLike, evaluator: str, step: int | str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """JSON and arrays of one evaluator at a step, or at the "last"; null in rows and scalars is NaN again.

    FileNotFoundError names what is missing.
    """
    number = last_step(workdir, evaluator) if step == "last" else step
    path = _directory(workdir, evaluator) / (f"{number}.json" if number is not None else "*.json")
    arrays = path.with_suffix(".npz")
    for file in (path, arrays):
        if number is None or not file.exists():
            raise FileNotFoundError(str(file))
    tree = read_json(path)
    tree |= {"rows": [with_nan(row) for row in tree["rows"]], "scalars": with_nan(tree["scalars"])}
    with np.load(io.BytesIO(arrays.read_bytes()), allow_pickle=False) as file:
        return tree, dict(file)


def last_step(workdir: epath.PathLike, evaluator: str) -> int | None:
    """The last step with complete results; None where there is none."""
    directory = _directory(workdir, evaluator)
    if not directory.exists():
        return None
    steps = [int(path.stem) for path in directory.iterdir() if path.suffix == ".json" and path.stem.isdigit()]
    return max(steps, default=None)


def missing_below(root: epath.PathLike, error: FileNotFoundError) -> str:
    """The file that `read_results` did not find, as a path below `root`."""
    return str(error).removeprefix(f"{root}/")


def with_nan(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A row or scalars as they were before NaN, which JSON lacks, became null."""
    return {name: math.nan if value is None else value for name, value in fields.items()}


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_nan(value) for value in tree]
    if isinstance(tree, np.generic):
        tree = tree.item()
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _directory(workdir: epath.PathLike, evaluator: str) -> epath.Path:
    return epath.Path(workdir) / "results" / evaluator
