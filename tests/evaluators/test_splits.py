import numpy as np
import pytest

from ecgjax.core.spec import CmrSpec, EcgSpec, InputSpec
from ecgjax.data.cohorts.base import Target
from ecgjax.data.manifest import Manifest, SplitSummary, TargetColumn, write_manifest
from ecgjax.data.schema import make_schema, quantise
from ecgjax.data.shards import write_shard
from ecgjax.evaluators.embed import embed
from ecgjax.evaluators.splits import open_splits
from ecgjax.formats.recording import LEADS

EXAMPLES, LENGTH = 7, 60


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data directory with one shard, and the arrays that went into it."""
    directory = tmp_path_factory.mktemp("data")
    targets = (Target("LVEF", "regression", "%"), Target("MI", "binary"))
    schema = make_schema(ecg=(12, LENGTH), cmr=(4, 4, 3), targets=2)
    generator = np.random.default_rng(0)
    examples = []
    for i in range(EXAMPLES):
        ecg, step = quantise(generator.normal(size=(12, LENGTH)).astype(np.float32))
        examples.append(
            {
                "ecg": ecg,
                "ecg_step": step,
                "ecg_offset": generator.normal(size=12).astype(np.float32),
                "ecg_scale": generator.uniform(0.5, 2, size=12).astype(np.float32),
                "cmr": generator.random((4, 4, 3)).astype(np.float16),
                "label": np.array([50 + i, np.nan], np.float32),
                "subject": np.array([i // 2] * 8, np.uint8),
                "record": np.array([i] * 8, np.uint8),
            }
        )
    shard = write_shard(directory / "test-00000-of-00001.array_record", [schema.encode(x) for x in examples])
    spec = InputSpec(EcgSpec(LEADS, 100.0, LENGTH, "1", {}), CmrSpec(("ES", "mid", "ED"), 4, 4, 1.8, "1", {}))
    manifest = Manifest(
        cohort="tiny",
        input_spec=spec,
        schema=schema,
        targets=tuple(TargetColumn(t, None, None, None, 0) for t in targets),
        splits={"test": SplitSummary(EXAMPLES, 4, (shard,))},
        config={},
        fingerprint="f",
        rejects={},
        withdrawn=0,
        code_version="0",
    )
    write_manifest(manifest, directory)
    return directory, examples


def test_splits_read_identities_labels_and_signals_in_mv(prepared):
    directory, examples = prepared
    splits = open_splits(directory, batch_size=4)
    table = splits.examples("test")
    assert list(table.record) == [f"{i:02x}" * 8 for i in range(EXAMPLES)]
    assert list(table.subject) == [f"{i // 2:02x}" * 8 for i in range(EXAMPLES)]
    np.testing.assert_array_equal(table.label[:, 0], 50 + np.arange(EXAMPLES))
    x = examples[5]
    want = x["ecg"] * x["ecg_step"] * x["ecg_scale"][:, None] + x["ecg_offset"][:, None]
    np.testing.assert_allclose(splits.signals_mv("test")[5], want, rtol=1e-5)
    assert splits.rate_hz == 100
    assert [t.name for t in splits.targets] == ["LVEF", "MI"]


def test_embedding_averages_evenly_spaced_crops(prepared):
    directory, examples = prepared
    splits = open_splits(directory, batch_size=4, crop=20, crops=3)
    got = embed(lambda batch: {"mean": batch["ecg"].mean(axis=2)}, splits, "test", keys=["mean"])["mean"]
    for i, x in enumerate(examples):
        # Crops at 0, 20 and 40 cover the whole record.
        np.testing.assert_allclose(got[i], (x["ecg"] * x["ecg_step"]).mean(axis=1), atol=1e-5)
