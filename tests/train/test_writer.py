import json

from etils import epath

from ecgjax.train.writer import MetricWriter


def steps(workdir):
    return [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def write(workdir, start, numbers):
    writer = MetricWriter(workdir, start_step=start)
    for step in numbers:
        writer.write(step, {"loss": float(step)})
    writer.close()


def test_scalars_are_kept_with_their_step_and_time(tmp_path):
    write(tmp_path, 0, [1])
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (record["step"], record["loss"]) == (1, 1.0)
    assert record["time"] > 1.6e9
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_resumed_run_drops_what_lies_beyond_its_checkpoint(tmp_path):
    write(tmp_path, 0, [0, 1, 2, 3, 4, 5])
    write(tmp_path, 3, [4, 5, 6])
    assert steps(tmp_path) == [0, 1, 2, 3, 4, 5, 6]


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path):
    write(tmp_path, 0, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    write(tmp_path, 2, [3])
    assert steps(tmp_path) == [1, 2, 3]


def test_a_run_that_starts_anew_starts_an_empty_log(tmp_path):
    write(tmp_path, 0, [0, 1])
    write(tmp_path, 0, [0])
    assert steps(tmp_path) == [0]


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
    writer = MetricWriter(tmp_path)
    writer.write(1, {"loss": 0.0})
    assert steps(tmp_path) == [1]
    writer.close()


def test_a_bucket_has_every_line_and_the_board_once_uploaded(gs):
    workdir = epath.Path(gs)
    writer = MetricWriter(workdir)
    writer.write(1, {"loss": 0.0})
    assert not (workdir / "metrics.jsonl").exists()  # Until a minute has passed, or a checkpoint comes.
    writer.upload()
    assert steps(workdir) == [1]
    writer.write(2, {"loss": 0.0})
    writer.close()
    assert steps(workdir) == [1, 2]
    (events,) = (workdir / "tensorboard").iterdir()
    assert len(events.read_bytes()) > 50


def test_a_bucket_is_brought_up_to_date_every_minute(gs, monkeypatch):
    monkeypatch.setattr("ecgjax.train.writer.UPLOAD_EVERY_S", 0.0)
    writer = MetricWriter(gs)
    writer.write(1, {"loss": 0.0})
    assert steps(epath.Path(gs)) == [1]
    writer.close()


def test_a_run_resumed_from_a_bucket_goes_on_with_its_log(gs):
    workdir = epath.Path(gs)
    write(workdir, 0, [0, 1, 2, 3])
    write(workdir, 2, [3, 4])
    assert steps(workdir) == [0, 1, 2, 3, 4]
    assert len(list((workdir / "tensorboard").iterdir())) == 2
