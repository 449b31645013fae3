"""One run by the command line: its trace, its metrics, and how often it compiled."""

import json

import pytest
from etils import epath
from tiny_runs import masked

from ecgjax.core import chips
from ecgjax.core import config as configs
from ecgjax.data.manifest import read_manifest
from ecgjax.jobs import train as train_job
from ecgjax.jobs.assemble import Data, abstract_batch, assemble


@pytest.fixture(scope="module")
def run(command, tiny_data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("profiled") / "run"
    code, said = command("train", *masked(tiny_data, 6), "--profile=2:4", f"--workdir={workdir}")
    assert code == 0, said
    return workdir, said


def test_the_trace_lies_in_the_workdir_and_is_announced(run):
    workdir, said = run
    assert {p.suffix for p in (workdir / "profile").rglob("*") if p.is_file()} == {".pb", ".gz"}
    assert "profiling steps 3 to 4." in said
    assert f"tensorboard --logdir={workdir / 'profile'}" in said


def test_each_step_is_compiled_exactly_once(run):
    assert "compiled: train step 1 x, eval step 1 x, " in run[1]


def test_on_a_cpu_speed_is_per_device_and_nothing_else_is_claimed(run):
    workdir, said = run
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    steps = [r for r in records if "step_ms" in r]
    assert len(steps) == 6
    for record in steps:
        assert record["examples_per_s_per_chip"] == record["examples_per_s"]
        assert not {"mfu", "hbm_gib", "hbm_peak_gib"} & set(record)
    assert "no MFU: " in said


def test_a_bad_range_is_refused_before_any_work(masked_config, tmp_path):
    with pytest.raises(
        ValueError, match=r"--profile=4:9 ends beyond config\.steps = 8; choose STOP up to there"
    ):
        train_job.train(masked_config, epath.Path(tmp_path / "run"), profile="4:9")
    assert not (tmp_path / "run").exists()


def test_where_the_peak_is_known_mfu_is_of_the_whole_global_batch(masked_config, monkeypatch, capsys):
    monkeypatch.setattr(chips, "of_kind", lambda _: chips.TPUS["v5e"])
    gauges = []
    for size in (8, 16):
        masked_config.data.batch_size = size
        config = configs.plain(masked_config)
        data = Data.of(read_manifest(config["data"]["directory"]))
        run = assemble(config, data)
        gauges.append(train_job._gauge(run, abstract_batch(config, data, run.state)))
    assert [(g.chips, g.peak) for g in gauges] == [(8, 197e12)] * 2
    assert gauges[1].flops == 2 * gauges[0].flops > 0
    assert capsys.readouterr().err == ""


def test_a_run_beyond_the_range_says_that_nothing_is_profiled(tmp_path, capsys):
    with train_job._profile((2, 4), epath.Path(tmp_path), step=4) as profile:
        profile.at(4, {})
    assert "--profile=2:4: the run goes on from step 4; nothing is profiled." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
