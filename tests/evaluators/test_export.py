import json

import numpy as np
import pyarrow.parquet
import pytest
from heart_world import TARGETS, World, separable

from ecgjax.evaluators import export

META = {
    "input_spec": {"ecg": {"rate_hz": 100.0}, "cmr": None},
    "checkpoint": "c0ffee",
    "step": 400,
    "config": {"seed": 3},
}
KEYS = ("ecg/embedding", "cmr/projection")


@pytest.fixture(scope="module")
def written(tmp_path_factory, world):
    directory = tmp_path_factory.mktemp("run") / "export"
    table = export.collect(separable, world.splits(), keys=KEYS, names=("train", "val", "test"))
    return table, *export.write(directory, table, targets=TARGETS, **META)


def test_parquet_reads_back_with_types_missing_labels_and_metadata(written, world):
    _, parquet, _ = written
    table = pyarrow.parquet.read_table(parquet)
    assert str(table.schema.field("ecg/embedding").type) == "fixed_size_list<element: float>[4]"
    columns = table.to_pydict()
    assert columns["split"] == ["train"] * 240 + ["val"] * 60 + ["test"] * 130
    np.testing.assert_array_equal(columns["subject"][-130:], world.table["test"].subject)
    np.testing.assert_array_equal(np.array(columns["ecg/embedding"][-130:], np.float32), world.latent["test"])
    truth = world.table["test"].label[:, 2]
    assert [x is None for x in columns["label/DCM"][-130:]] == list(np.isnan(truth))
    known = [x for x in columns["label/DCM"][-130:] if x is not None]
    np.testing.assert_array_equal(known, truth[~np.isnan(truth)])
    metadata = json.loads(table.schema.metadata[b"ecgjax"])
    assert {key: metadata[key] for key in META} == META
    assert metadata["ecgjax_version"]
    assert metadata["targets"][3] == {"name": "AF", "kind": "binary", "unit": "", "control": True}


def test_npz_reads_back_without_pickle(written):
    table, _, npz = written
    with np.load(npz, allow_pickle=False) as file:
        arrays = dict(file)
    metadata = json.loads(str(arrays["ecgjax"]))
    for name, value in table.items():
        np.testing.assert_array_equal(arrays[name], value)
    assert list(arrays["label_name"]) == [target.name for target in TARGETS]
    assert metadata["checkpoint"] == "c0ffee"


def test_what_is_no_vector_is_refused():
    with pytest.raises(ValueError, match=r"reconstruction has shape \(130, 2, 20\)"):
        export.collect(separable, World().splits(), keys=("reconstruction",), names=("test",))
