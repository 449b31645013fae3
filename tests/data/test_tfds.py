import json
import os
import pathlib
import subprocess
import sys

import pytest

from ecgjax.data.manifest import read_manifest

# In a process of its own, because only there is it certain who imported what.
_SCRIPT = """
import json, sys
import numpy as np
from ecgjax.data.manifest import read_manifest
from ecgjax.data.shards import read_split
from ecgjax.data.tfds import build_tfds

prepared, data_dir = sys.argv[1:]
path = build_tfds(prepared, data_dir)
import grain
import tensorflow_datasets as tfds

manifest = read_manifest(prepared)
builder = tfds.builder_from_directory(path)
report = {"path": str(path), "lengths": {}, "equal": 0}
for split in manifest.splits:
    stored = read_split(prepared, manifest, split)
    source = builder.as_data_source(split)
    report["lengths"][split] = len(source)
    for i in range(len(source)):
        example = source[i]
        assert set(example) == set(stored)
        for name, value in stored.items():
            np.testing.assert_array_equal(np.asarray(example[name], value.dtype), value[i], err_msg=name)
            report["equal"] += 1
import ecgjax.data.tfds.ecg_cmr
named = tfds.data_source(f"ecg_cmr/{path.parent.name}", split="train[:50%]", data_dir=data_dir)
report["half"] = len(named)
shuffled = grain.MapDataset.source(builder.as_data_source("train")).seed(0).shuffle()
report["grain"] = sorted(shuffled[i]["record"].tobytes().hex() for i in range(len(shuffled)))
report["stored"] = sorted(row.tobytes().hex() for row in read_split(prepared, manifest, "train")["record"])
kept = json.loads(builder.info.metadata["manifest"])
report["manifest"] = kept == manifest.to_json()
report["tensorflow"] = "tensorflow" in sys.modules
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report(prepared, tmp_path_factory):
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    command = [sys.executable, "-c", _SCRIPT, str(prepared), str(tmp_path_factory.mktemp("tfds"))]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_every_array_of_every_example_is_that_of_the_shards(prepared, report):
    manifest = read_manifest(prepared)
    assert report["lengths"] == {"train": 30, "val": 3, "test": 3}
    assert report["equal"] == 36 * len(manifest.schema.fields)


def test_tensorflow_is_never_imported(report):
    assert report["tensorflow"] is False


def test_the_standard_name_and_slices_work(report):
    assert report["half"] == 15


def test_grain_shuffles_the_source(report):
    assert report["grain"] == report["stored"]


def test_the_manifest_travels_along(prepared, report):
    assert report["manifest"] is True
    name = f"tiny_{read_manifest(prepared).fingerprint[:8]}"
    assert report["path"].endswith(f"ecg_cmr/{name}/1.0.0")
