"""One run by the command line: its trace, its metrics, and how often it compiled."""

import json

import pytest
from tiny_runs import masked


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


def test_a_bad_range_is_one_line_and_leaves_nothing(command, tiny_data, tmp_path):
    code, said = command("train", *masked(tiny_data, 6), "--profile=4:9", f"--workdir={tmp_path / 'run'}")
    assert code == 1
    assert said.strip().splitlines() == [
        "ecgjax train: --profile=4:9 ends beyond config.steps = 6; choose STOP up to there."
    ]
    assert not (tmp_path / "run" / "config.json").exists()
