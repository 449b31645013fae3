"""bench.sh over benchmarks of a made-up checkout."""

import shutil

import pytest
from scripts import LAUNCH, commands


@pytest.fixture
def bench(fakes, tmp_path):
    checkout = tmp_path / "checkout"
    (checkout / "launch").mkdir(parents=True)
    (checkout / "tests" / "benchmarks").mkdir(parents=True)
    for name in ("bench.sh", "commands.sh"):
        shutil.copy(LAUNCH / name, checkout / "launch" / name)
    # An environment that is there already.
    (checkout / "launch" / "install.sh").write_text("ecgjax_install() { :; }\n")
    for name in ("blockwise", "restore", "_shared"):
        (checkout / "tests" / "benchmarks" / f"{name}.py").write_text(f'"""What {name} shows."""\n')
    fakes.add("python", ("a table\n", 0), ("another\n", 0))
    return lambda *arguments: fakes.run(checkout / "launch" / "bench.sh", *arguments)


def test_list_says_what_each_shows(bench):
    assert bench("--list").stdout == "blockwise: What blockwise shows.\nrestore: What restore shows.\n"


def test_all_run_one_after_the_other(bench, fakes):
    said = bench()
    assert said.stdout == "a table\nanother\n"
    assert [call["argv"][1] for call in fakes.calls("python")] == [
        "tests/benchmarks/blockwise.py",
        "tests/benchmarks/restore.py",
    ]


def test_dry_runs_nothing(bench, fakes):
    said = bench("--dry", "restore")
    assert commands(said.stdout) == [["env", "PYTHONPATH=.", "python", "tests/benchmarks/restore.py"]]
    assert not fakes.calls()


def test_an_unknown_benchmark_is_one_line(bench):
    said = bench("nope")
    assert (said.returncode, said.stderr) == (2, "bench.sh: no benchmark nope; see --list\n")
