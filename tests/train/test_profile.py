import jax
import jax.numpy as jnp
import pytest
from etils import epath

from ecgjax.train.profile import Profile, parse_range


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20", r"--profile is '20'; give START:STOP, two step numbers"),
        ("a:b", r"--profile is 'a:b'; give START:STOP"),
        ("-1:3", r"--profile is '-1:3'; give START:STOP"),
        ("5:5", r"--profile=5:5 ends before it starts"),
        ("7:5", r"--profile=7:5 ends before it starts"),
        ("5:11", r"--profile=5:11 ends beyond config\.steps = 10"),
    ],
)
def test_a_bad_range_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_range(text, steps=10)


def test_a_range_may_reach_the_last_step():
    assert parse_range("0:10", steps=10) == (0, 10)


def traced(directory, steps, start=2, stop=4):
    with Profile(directory, start=start, stop=stop) as profile:
        for step in steps:
            profile.at(step, jnp.zeros(()))
    return sorted(path.suffix for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("steps", [range(6), range(3)], ids=["whole", "interrupted inside"])
def test_a_trace_is_written_once_whole_or_where_the_run_ends(tmp_path, capsys, steps):
    assert traced(tmp_path, steps) == [".gz", ".pb"]
    said = capsys.readouterr().err
    assert "profiling steps 3 to 4" in said
    assert f"tensorboard --logdir={tmp_path}" in said


def test_a_trace_reaches_a_bucket(gs):
    with Profile(gs, start=0, stop=1) as profile:
        profile.at(0, jnp.zeros(()))
    runs = epath.Path(gs) / "plugins" / "profile"
    assert {path.suffix for run in runs.iterdir() for path in run.iterdir()} == {".gz", ".pb"}


def test_each_of_several_processes_writes_where_no_other_does(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert traced(tmp_path, range(6)) == [".gz", ".pb"]
    assert [path.name for path in tmp_path.iterdir()] == ["process-1"]


@pytest.mark.parametrize("steps", [range(2), range(4, 9)], ids=["not reached", "resumed beyond"])
def test_outside_the_range_nothing_is_traced(tmp_path, steps):
    assert traced(tmp_path, steps) == []


def test_no_range_traces_nothing(tmp_path):
    with Profile() as profile:
        profile.at(0, jnp.zeros(()))
    assert not list(tmp_path.iterdir())
