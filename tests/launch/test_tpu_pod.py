"""tpu_pod.sh against a cloud of directories, where the commands for the workers really run."""

import contextlib
import json
import os
import pathlib
import signal
import sys
import time

import pytest
from scripts import commands

SLICE = {"PROJECT": "study", "ZONE": "here-a", "NAME": "pod", "TYPE": "v5litepod-8", "RUNTIME": "v2-alpha"}
RUN = {"CONFIG": "configs/ecg_cmr.py:paper", "DATA": "gs://bucket/a study", "WORKDIR": "gs://bucket/run"}
TRAIN = [
    *("-m", "ecgjax", "train", "--distributed=tpu", "--config=configs/ecg_cmr.py:paper"),
    *("--config.data.directory=../data", "--workdir=gs://bucket/run"),
]
CLOUD = pathlib.Path(__file__).parent / "cloud.py"

# What `python3.13 -m venv` leaves as .venv/bin/python, and that program itself: one run follows one line of `script`.
PYTHON = """#!/usr/bin/env bash
case "$1 $2" in
  "-c "*) exit 0 ;;
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && exit ;;
  "-m pip") echo "$*" >>"$FAKE_CLOUD/pip"; [ "$(wc -l <"$FAKE_CLOUD/pip")" -gt "${FAKE_FAILURES:-0}" ]; exit ;;
esac
printf '%s\\0' "$@" >>"$HOME/arguments"; echo >>"$HOME/arguments"
echo "said by $(basename "$HOME")"
[ "$(basename "$HOME")" = worker0 ] || exec /bin/sleep 300
cp "$HOME/arguments" "$FAKE_CLOUD/arguments.$(date +%s%N)"
act=$(head -n 1 "$FAKE_CLOUD/script"); sed -i 1d "$FAKE_CLOUD/script"
slice=$(dirname "$HOME")
case $act in
  preempt) echo SUSPENDED >"$slice/request"; echo PREEMPTED >"$slice/machine"; exec /bin/sleep 300 ;;
  hang) exec /bin/sleep 300 ;;
  *) exit "$act" ;;
esac
"""


@pytest.fixture
def cloud(fakes, tmp_path):
    """Runs the script where gcloud, Python and the passing of time are made up; gives what was asked of gcloud."""
    directory = tmp_path / "cloud"
    directory.mkdir()
    fakes.write("gcloud", f'#!/usr/bin/env bash\nexec {sys.executable} -S -E {CLOUD} "$@"\n')
    fakes.write("sleep", "#!/usr/bin/env bash\nexec /bin/sleep 0.1\n")
    for version in ("python3.11", "python3.13"):
        fakes.write(version, PYTHON)

    def run(*arguments, script=(), **variables):
        (directory / "script").write_text("".join(f"{act}\n" for act in script))
        said = fakes.run("tpu_pod.sh", *arguments, FAKE_CLOUD=directory, **{**SLICE, **RUN, **variables})
        return said, asked(directory)

    run.directory = directory
    yield run
    for path in directory.glob("*/worker*/ecgjax/pid-*"):
        end(int(path.read_text()))


def both_run(directory):
    """Whether both workers' programs run and worker 0 has taken its line, which nobody may write over before."""
    return (
        len(list(directory.glob("pod/worker*/ecgjax/log-*"))) == 2 and not (directory / "script").read_text()
    )


def end(group):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def asked(directory):
    log = directory / "calls.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def changes(calls):
    """Verbs that change something, of all that gcloud was asked."""
    return [c[3] if c[3] != "ssh" else "run" for c in calls if c[0] == "compute" and changing(c)]


def changing(call):
    if call[3] == "ssh":
        return any("setsid" in x for x in call)
    return call[3] in ("create", "delete", "scp")


def test_dry_prints_every_command_for_a_new_slice_and_asks_nothing(cloud):
    said, calls = cloud("--dry", "train", "--config.note=a b", SERVICE_ACCOUNT="reader", NETWORK="net")
    assert said.returncode == 0, said.stderr
    create, archive, copy, install, _, start = commands(said.stdout)
    assert create[:5] == ["gcloud", "compute", "tpus", "queued-resources", "create"]
    assert {
        *("pod", "--node-id=pod", "--accelerator-type=v5litepod-8", "--runtime-version=v2-alpha", "--spot"),
        *("--project=study", "--zone=here-a", "--service-account=reader", "--network=net"),
    } < set(create)
    assert archive[:2] == ["git", "archive"]
    assert copy[5].startswith(archive[3].removeprefix("--output="))
    assert {"--worker=all"} < set(copy) & set(install) & set(start)
    assert calls == []


def test_the_slice_is_created_installed_and_trained_on_across_interruption_and_preemption(cloud):
    said, calls = cloud("train", "--config.note=a 'b' $c", script=[75, "preempt", 76, 0])
    assert said.returncode == 0, said.stderr
    assert changes(calls) == [
        *("create", "scp", "run", "run"),  # Code 75: the same command goes on where it was.
        *("delete", "create", "scp", "run", "run"),  # Preempted: all anew; then code 76.
    ]
    assert "pod: done. It is still rented" in said.stderr
    # Every start had the same arguments, on a slice that lived on as on a new one.
    seen = [path.read_text().splitlines()[-1] for path in sorted(cloud.directory.glob("arguments.*"))]
    assert [line.split("\0")[:-1] for line in seen] == [[*TRAIN, "--config.note=a 'b' $c"]] * 4
    other = cloud.directory / "pod" / "worker1" / "arguments"
    assert other.read_text().splitlines()[-1] == seen[-1]
    data = [c for c in calls if c[0] == "storage"]
    assert data[0] == ["storage", "rsync", "--recursive", "gs://bucket/a study", "../data"]
    assert len(data) == 4  # Two workers of two slices.


def test_an_error_of_the_installed_commit_ends_it_with_the_end_of_the_log(cloud):
    said, calls = cloud("train", script=[1])
    assert said.returncode == 1
    assert "said by worker0" in said.stderr + said.stdout
    assert "pod: ended with code 1, see above; mend it and run this again" in said.stderr
    assert changes(calls) == ["create", "scp", "run"]
    worker = cloud.directory / "pod" / "worker1" / "ecgjax"
    assert (worker / "ecgjax" / "train" / "loop.py").exists()
    assert (worker / "launch" / "install.sh").exists()
    assert "--editable .[tpu]" in (cloud.directory / "pip").read_text()


def test_what_ended_with_an_error_is_started_again_where_it_is_asked_for_again_with_the_current_commit(cloud):
    cloud("train", script=[1])
    said, calls = cloud("train", script=[2])
    assert "pod: had ended with code 1, see above; asked for again" in said.stderr
    assert changes(calls) == ["create", "scp", "run", "run"]
    for worker in cloud.directory.glob("pod/worker*"):
        (worker / "ecgjax" / "installed").write_text("an earlier commit\n")
    said, calls = cloud("train", script=[0])
    assert said.returncode == 0, said.stderr
    assert changes(calls)[4:] == ["scp", "run"]


def test_an_installation_that_failed_on_some_workers_is_made_again_before_any_starts(cloud):
    said, calls = cloud("train", script=[0], FAKE_FAILURES=1)
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("pod: could not install or start, see above") == 1
    assert changes(calls) == ["create", "scp", "scp", "run"]


def test_an_installation_that_fails_again_and_again_ends_it(cloud):
    said, calls = cloud("train", FAKE_FAILURES=99)
    assert said.returncode == 1
    assert "pod: three times in a row; mend it and run this again" in said.stderr
    assert changes(calls) == ["create", "scp", "scp", "scp"]


def test_interruptions_without_end_are_given_up(cloud):
    said, calls = cloud("train", script=[75] * 9, MAX_RESTARTS=1)
    assert said.returncode == 1
    assert "restarted 1 times, which is MAX_RESTARTS" in said.stderr
    assert changes(calls).count("run") == 2


def test_a_run_that_goes_on_is_watched_and_never_started_twice(cloud, fakes):
    cloud("up", FAKE_REQUEST="ACTIVE")
    fakes.write("sleep", "#!/usr/bin/env bash\nkill -TERM $PPID\n")  # Ends it at the first wait.
    for script in (["hang"], []):  # A second start would find no line and fail.
        said, calls = cloud("train", script=script)
        assert said.returncode == -signal.SIGTERM
        deadline = time.monotonic() + 20
        while not both_run(cloud.directory):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert changes(calls).count("run") == 1
    pids = list(cloud.directory.glob("pod/worker*/ecgjax/pid-*"))
    assert len(pids) == 2
    assert all(pathlib.Path(f"/proc/{path.read_text().strip()}").exists() for path in pids)
    said, calls = cloud("train", "--config.seed=2")  # Another command while the first runs.
    assert said.returncode == 1
    assert "another command runs there" in said.stderr
    assert changes(calls).count("run") == 1


def test_a_slice_that_nobody_can_see_is_not_replaced(cloud, fakes):
    cloud("up", FAKE_REQUEST="ACTIVE")
    (cloud.directory / "offline").touch()
    fakes.write("sleep", "#!/usr/bin/env bash\nkill -TERM $PPID\n")
    said, calls = cloud("train", script=[0])
    assert "there is no network" in said.stderr
    assert changes(calls) == ["create"]


def test_a_request_that_failed_ends_with_its_description(cloud):
    said, _ = cloud("up", FAKE_REQUEST="FAILED")
    assert said.returncode == 1
    assert "pod: the request failed, see above" in said.stderr


def test_the_evaluation_runs_on_a_slice_of_its_own_and_down_deletes_both(cloud):
    cloud("up")
    said, _ = cloud("evaluate", script=[0])
    assert said.returncode == 0, said.stderr
    assert (cloud.directory / "pod-evaluate").exists()
    seen = next(iter(cloud.directory.glob("arguments.*"))).read_text()
    wanted = ["-m", "ecgjax", "evaluate", "--workdir=gs://bucket/run", "--data=../data", "--follow"]
    assert seen.split("\0")[:6] == wanted
    said, _ = cloud("down")
    assert said.returncode == 0, said.stderr
    assert not list(cloud.directory.glob("pod*"))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PROJECT": ""}, "tpu_pod.sh: set PROJECT: the Google Cloud project"),
        ({"TYPE": ""}, "tpu_pod.sh: set TYPE: the accelerator type"),
        ({"CONFIG": ""}, "tpu_pod.sh: set CONFIG: the training config"),
        ({"WORKDIR": "runs/x"}, "tpu_pod.sh: WORKDIR is 'runs/x'; give a gs:// directory"),
        ({"POLL": "often"}, "tpu_pod.sh: POLL is 'often'; give a number from 1"),
    ],
    ids=lambda x: "" if isinstance(x, str) else next(iter(x)),
)
def test_a_wrong_variable_is_one_line(cloud, variables, message):
    said, calls = cloud("train", **variables)
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert said.stderr.startswith(message)
    assert calls == []
