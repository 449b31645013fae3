"""What a cross-validation has finished stays in its workdir: the same command goes on, another config is refused."""

import dataclasses
import hashlib
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from ecgjax.core import config as configs
from ecgjax.core.files import read_json, write_bytes, write_json
from ecgjax.response.crossvalidation.contenders import Contender, Scores

_ARRAYS = ("score", "probability", "inner", "decision")


class Interrupted(Exception):
    """A signal asked to leave; what is finished is on disk."""


@dataclasses.dataclass(frozen=True, eq=False)
class Kept:
    """A contender whose answers are kept, a file a fold, and read where they are there already.

    A file is known by everything that the answer depends on beside the workdir's config: patients, truths, inner
    folds and seed. `leave` says before each fold whether to stop; `done` hears of every fold.
    """

    contender: Contender
    workdir: epath.Path
    leave: Callable[[], bool]
    done: Callable[[], None]

    @property
    def name(self) -> str:
        """The contender's own."""
        return self.contender.name

    def fit_predict(
        self,
        train: Int[np.ndarray, " a"],
        truth: Float[np.ndarray, " a"],
        test: Int[np.ndarray, " b"],
        *,
        inner: Int[np.ndarray, " a"],
        seed: int,
    ) -> Scores:
        """The contender's answer, or the one that it gave before."""
        if self.leave():
            raise Interrupted
        path = self.workdir / "folds" / self.name / f"{_digest(train, truth, test, inner, seed)}.npz"
        if path.exists():
            scores = _read(path)
        else:
            scores = self.contender.fit_predict(train, truth, test, inner=inner, seed=seed)
            _write(path, scores)
        self.done()
        return scores


def open_workdir(workdir: epath.Path, belongs: Mapping[str, Any]) -> None:
    """Creates the workdir, or checks that it belongs to this config, data and source run."""
    saved = workdir / "crossvalidation.json"
    if saved.exists():
        if changed := configs.differences(read_json(saved), belongs):
            lines = "\n  ".join(changed)
            raise ValueError(
                f"{workdir} belongs to another cross-validation:\n  {lines}\nGo on with what it was started with, or "
                f"choose another --workdir."
            )
        return
    strangers = (
        sorted(p.name for p in workdir.iterdir() if p.name != "compile_cache") if workdir.exists() else []
    )
    if strangers:
        raise ValueError(
            f"{workdir} is not empty and holds no crossvalidation.json ({', '.join(strangers[:5])}); choose another "
            f"directory."
        )
    write_json(saved, configs.plain(belongs))


def _digest(*parts: np.ndarray | int) -> str:
    sha = hashlib.sha256()
    for part in parts:
        array = np.asarray(part, np.float64)
        sha.update(f"{array.shape}".encode() + array.tobytes())
    return sha.hexdigest()[:16]


def _write(path: epath.Path, scores: Scores) -> None:
    arrays = {name: values for name in _ARRAYS if (values := getattr(scores, name)) is not None}
    chosen = {f"chosen|{name}": np.float64(value) for name, value in scores.chosen.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **chosen)
    write_bytes(path, buffer.getvalue())


def _read(path: epath.Path) -> Scores:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = dict(file)
        fields = {name: arrays.get(name) for name in _ARRAYS}
        chosen = {
            name.partition("|")[2]: float(value)
            for name, value in arrays.items()
            if name.startswith("chosen|")
        }
        return Scores(**fields, chosen=chosen)
    except Exception as error:  # numpy and zipfile tell damage in many ways.
        raise ValueError(
            f"{path} cannot be read ({error}); remove it, and the same command makes it again."
        ) from error
