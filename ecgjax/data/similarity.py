"""How alike training subjects are: a square matrix in a file, read by rows."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

_DTYPES = ("float16", "float32", "float64")


@dataclasses.dataclass(frozen=True)
class SimilarityRows:
    """Rows of a .npy [n n] over the `examples` of a split, in the order of the split; symmetric is up to its maker.

    The file stays on disk, and every process maps it anew, so that none holds or ships the matrix.
    """

    path: str
    examples: int

    def __post_init__(self):
        matrix = self._open()
        shape = (self.examples, self.examples)
        if matrix.shape != shape or matrix.dtype.name not in _DTYPES:
            raise ValueError(
                f"config.data.similarity: {self.path} holds {matrix.dtype.name} {matrix.shape}; it must be {shape}, a "
                f"row and a column for every training example in its order, as {', '.join(_DTYPES)}."
            )

    def __call__(self, positions: Int[np.ndarray, "b"]) -> Float[np.ndarray, "b n"]:
        """The rows of these examples, in the precision of the file."""
        rows = np.asarray(self._open()[positions])
        if not np.isfinite(rows).all():
            row = int(positions[np.flatnonzero(~np.isfinite(rows).all(axis=1))[0]])
            raise ValueError(
                f"config.data.similarity: row {row} of {self.path} holds a value that is not finite; give every pair "
                f"a number, 0 where nothing is known."
            )
        return rows

    def _open(self) -> np.ndarray:
        try:
            return np.lib.format.open_memmap(self.path, mode="r")  # Refuses pickled objects.
        except (OSError, ValueError) as error:
            raise ValueError(
                f"config.data.similarity: {self.path} cannot be read as a .npy: {error}; save it with numpy.save."
            ) from None
