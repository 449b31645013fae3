import errno
import os

import pytest
from etils import epath

from ecgjax.core import files


def test_json_comes_back_as_written(tmp_path):
    files.write_json(tmp_path / "deep" / "a.json", {"b": [1, None, "é"], "a": 0.1})
    assert files.read_json(tmp_path / "deep" / "a.json") == {"b": [1, None, "é"], "a": 0.1}


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    monkeypatch.setattr(os, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        files.write_json(path, {"new": 2})
    assert files.read_json(path) == {"old": 1}


def test_a_write_leaves_no_temporary_file(tmp_path):
    files.write_text(tmp_path / "a.txt", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_nan_is_refused_because_json_has_none(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_half_a_file_is_named_with_the_way_out(tmp_path):
    (tmp_path / "a.json").write_text('{"x": [1,')
    with pytest.raises(ValueError, match=r"a\.json is not JSON.*cut short.*run the job that wrote it again"):
        files.read_json(tmp_path / "a.json")


class Flaky:
    """Raises each error once, then returns."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def __call__(self):
        if self.errors:
            raise self.errors.pop(0)
        return "done"


PASSING = [
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ENOSPC, "No space left on device"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    RuntimeError("503 Server Error: Service Unavailable for url: https://storage"),
    ValueError("UNAVAILABLE: Error reading object: HTTP response code: 503"),
    ValueError("RESOURCE_EXHAUSTED: Failed writing: [OS error 28: ENOSPC No space left on device]"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: str(error)[:30])
def test_what_may_pass_is_said_and_tried_again(error, capsys):
    assert files.retried(Flaky(error, error), "writing x", "x", waits_s=(0.0, 0.0)) == "done"
    assert capsys.readouterr().err.count("writing x failed") == 2


LASTING = [
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    PermissionError(errno.EACCES, "Permission denied"),
    ValueError("DATA_LOSS: Error reading: manifest has 503 bytes"),
    ValueError("NOT_FOUND: 404 Client Error"),
    KeyError("503"),
]


@pytest.mark.parametrize("error", LASTING, ids=lambda error: str(error)[:30])
def test_what_will_not_pass_is_raised_at_once(error):
    flaky = Flaky(error)
    with pytest.raises(type(error)) as raised:
        files.retried(flaky, "writing x", "x", waits_s=(0.0, 0.0))
    assert raised.value is error


def test_the_waits_grow_and_the_last_failure_says_what_to_do(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(files.time, "sleep", waits.append)
    flaky = Flaky(*[OSError(errno.EIO, "Input/output error")] * 9)
    with pytest.raises(
        files.StorageError, match=r"reading x: .*Input/output error.*run the same command once"
    ):
        files.retried(flaky, "reading x", tmp_path)
    assert waits == sorted(set(waits))
    assert len(flaky.errors) == 9 - len(waits) - 1


def test_a_full_disk_names_the_path_the_room_and_the_way_out_and_leaves_no_half(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WAITS_S", (0.0,))

    def full(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "deep" / "a.json"
    with monkeypatch.context() as patch:
        patch.setattr(type(epath.Path(path)), "write_bytes", full)
        message = r"a\.json \([0-9,]+ bytes free\)\. What was saved before is whole: free space.*--workdir elsewhere"
        with pytest.raises(files.StorageError, match=message):
            files.write_json(path, {})
    assert not list(path.parent.iterdir())
