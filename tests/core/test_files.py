import os

import pytest

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
