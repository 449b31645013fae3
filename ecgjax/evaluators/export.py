"""Embeddings as files that other programs read: Parquet and npz, with everything needed to interpret them."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

import ecgjax
from ecgjax.core.files import write_bytes
from ecgjax.data.cohorts.base import Target
from ecgjax.evaluators.base import Predict, Splits
from ecgjax.evaluators.embed import embed

METADATA_KEY = "ecgjax"
"""Key of the Parquet schema's metadata, and name of the npz's text array: JSON in both."""


def collect(
    predict: Predict, splits: Splits, *, keys: Sequence[str], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """The table of the splits in `names`, one after the other: identifiers, split, labels, one [n d] array a key."""
    parts = []
    for split in names:
        examples = splits.examples(split)
        columns = {
            "subject": examples.subject,
            "record": examples.record,
            "split": np.full(len(examples.subject), split, "U16"),
            "label": examples.label.astype(np.float32),
            **embed(predict, splits, split, keys=keys),
        }
        parts.append(columns)
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for key in keys:
        if table[key].ndim != 2:
            raise ValueError(f"{key} has shape {table[key].shape}; only vectors [n d] are exported.")
    return table


def write(
    directory: epath.PathLike,
    table: Mapping[str, np.ndarray],
    *,
    targets: Sequence[Target],
    input_spec: Mapping[str, Any],
    checkpoint: str,
    step: int,
    config: Mapping[str, Any],
    crops: int = 1,
) -> tuple[epath.Path, epath.Path]:
    """Writes `embeddings.parquet` and `embeddings.npz` into `directory`; a missing label is null, or NaN in npz.

    Columns: subject and record (keyed hashes, hex), split, `label/<target>`, and each prediction key as a
    fixed-size list of float32. The npz has the same arrays and needs no pickle.
    """
    metadata = {
        "ecgjax_version": ecgjax.__version__,
        "checkpoint": checkpoint,
        "step": step,
        "input_spec": dict(input_spec),
        "config": dict(config),
        "crops": crops,
        "targets": [{"name": t.name, "kind": t.kind, "unit": t.unit, "control": t.control} for t in targets],
    }
    text = json.dumps(metadata, sort_keys=True)
    directory = epath.Path(directory)
    parquet, npz = directory / "embeddings.parquet", directory / "embeddings.npz"
    write_bytes(parquet, _parquet(table, targets, text))
    buffer = io.BytesIO()
    np.savez(
        buffer, **table, label_name=np.array([t.name for t in targets], "U"), **{METADATA_KEY: np.array(text)}
    )
    write_bytes(npz, buffer.getvalue())
    return parquet, npz


def _parquet(table: Mapping[str, np.ndarray], targets: Sequence[Target], metadata: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    columns: dict[str, pa.Array] = {}
    for name, values in table.items():
        if name == "label":
            for target, column in zip(targets, values.T, strict=True):
                columns[f"label/{target.name}"] = pa.array(column, mask=np.isnan(column))
        elif values.ndim == 2:
            flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        else:
            columns[name] = pa.array(values.tolist(), pa.string())
    built = pa.table(columns).replace_schema_metadata({METADATA_KEY: metadata})
    sink = io.BytesIO()
    pa.parquet.write_table(built, sink, compression="zstd")
    return sink.getvalue()
