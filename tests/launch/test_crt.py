"""What launch/crt.sh refuses before it installs or prepares anything."""

import subprocess

import pytest
from scripts import LAUNCH


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cohort"], "--cohort needs a value"),
        (["--cohort", "nowhere.csv"], "nowhere.csv does not exist"),
        (["--cohort", "here.csv", "--mitbih", "nowhere"], "nowhere does not exist"),  # The first is found.
        (["--vit", "/nowhere/run"], "/nowhere/run does not exist"),
        (["--config.cohort.response=super", "--cohrt", "here.csv"], "unknown argument --cohrt"),
        (["--config.cohort.response", "super"], "unknown argument --config.cohort.response"),
    ],
)
def test_a_wrong_argument_is_said_with_the_usage(tmp_path, arguments, message):
    (tmp_path / "here.csv").touch()
    said = subprocess.run(
        ["bash", str(LAUNCH / "crt.sh"), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert said.stderr.endswith(f"crt.sh: {message}\n")
    assert "Usage: bash launch/crt.sh" in said.stderr
