import json
import shutil

import pytest

from ecgjax.data.manifest import NAME, Manifest, fingerprint, read_manifest, write_manifest


def _changed(prepared, tmp_path, change):
    tree = json.loads((prepared / NAME).read_text())
    change(tree)
    (tmp_path / NAME).write_text(json.dumps(tree))
    return tmp_path


def test_a_manifest_survives_the_disk(prepared, tmp_path):
    manifest = read_manifest(prepared)
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == [NAME]  # No temporary file is left.
    assert Manifest.from_json(manifest.to_json()).input_spec == manifest.input_spec


def test_a_foreign_version_names_both_versions(prepared, tmp_path):
    directory = _changed(prepared, tmp_path, lambda tree: tree.update(version=99))
    with pytest.raises(ValueError, match=r"manifest.json: .* version 99, this ecgjax reads version 1"):
        read_manifest(directory)


def test_a_missing_key_and_broken_json_are_told(prepared, tmp_path):
    directory = _changed(prepared, tmp_path, lambda tree: tree.pop("splits"))
    with pytest.raises(ValueError, match="no manifest of ecgjax: KeyError\\('splits'\\)"):
        read_manifest(directory)
    text = (prepared / NAME).read_text()
    (tmp_path / NAME).write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"manifest\.json: "):
        read_manifest(tmp_path)
    (tmp_path / NAME).write_text("[1]")
    with pytest.raises(ValueError, match="expected a JSON object, found list"):
        read_manifest(tmp_path)


def test_a_directory_without_a_manifest_names_the_way_out(tmp_path):
    with pytest.raises(ValueError, match=r"run it \(again\), or correct config.data.directory"):
        read_manifest(tmp_path)


def test_an_empty_or_unknown_split_is_refused(prepared, tmp_path):
    manifest = read_manifest(prepared)
    with pytest.raises(
        ValueError, match=r"split 'trian' of cohort tiny has no examples; it holds \{'train': 30"
    ):
        manifest.split("trian")

    def empty_val(tree):
        tree["splits"]["val"] = {"examples": 0, "subjects": 0, "shards": []}

    with pytest.raises(ValueError, match="split 'val' of cohort tiny has no examples"):
        read_manifest(_changed(prepared, tmp_path, empty_val)).split("val")


def test_fingerprint_ignores_order_and_sees_values():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1, "b": [1, 2]}) != fingerprint({"a": 1, "b": [2, 1]})


def test_a_read_only_copy_elsewhere_opens(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "moved", ignore=shutil.ignore_patterns("build", "private"))
    assert read_manifest(tmp_path / "moved") == read_manifest(prepared)
