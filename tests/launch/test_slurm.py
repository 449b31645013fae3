"""slurm.sbatch: what it submits, what each job runs, and that an interrupted one queues itself again."""

import shutil

import pytest
from scripts import LAUNCH, commands

RUN = {"CONFIG": "configs/ecg_cmr.py:paper", "DATA": "/data/of a study", "WORKDIR": "/runs/mmcl"}
TRAIN = [
    *("-m", "ecgjax", "train", "--distributed=slurm", "--config=configs/ecg_cmr.py:paper"),
    *("--config.data.directory=/data/of a study", "--workdir=/runs/mmcl"),
]


def test_dry_prints_both_jobs_and_what_they_run_and_runs_nothing(fakes):
    for name in ("sbatch", "srun", "scontrol"):
        fakes.add(name)
    variables = {"NODES": 4, "GPUS_PER_NODE": 8, "PARTITION": "gpu", "ACCOUNT": "lab"}
    said = fakes.run("slurm.sbatch", "--dry", "--config.note=a 'b' $c", **RUN, **variables)
    assert said.returncode == 0, said.stderr
    _, submit, train, submit_evaluation, evaluate = commands(said.stdout)
    assert {
        *("--nodes=4", "--gpus-per-node=8", "--ntasks-per-node=1", "--signal=TERM@120", "--requeue"),
        *("--partition=gpu", "--account=lab", "--job-name=ecgjax-train", "DATA=/data/of a study"),
    } < set(submit)
    assert submit[-2:] == ["launch/slurm.sbatch", "--config.note=a 'b' $c"]
    assert train[0] == "srun"
    assert train[-len(TRAIN) - 1 :] == [*TRAIN, "--config.note=a 'b' $c"]
    assert "--output=logs/%x-%j-%t.log" in train
    assert {
        *("--dependency=afterok:JOB", "--kill-on-invalid-dep=yes", "--nodes=1", "--partition=gpu"),
    } < set(submit_evaluation)
    assert evaluate[-4:] == ["ecgjax", "evaluate", "--workdir=/runs/mmcl", "--steps=last"]
    assert not fakes.calls()


def test_submitting_starts_training_and_an_evaluation_that_waits_for_it(fakes, tmp_path):
    fakes.add("sbatch", ("4711;cluster\n", 0), ("4712\n", 0))
    said = fakes.run("slurm.sbatch", **RUN, LOGS=tmp_path / "logs")
    assert said.returncode == 0, said.stderr
    train, evaluate = fakes.calls("sbatch")
    assert train["environment"]["ECGJAX_ROLE"] == "train"
    assert evaluate["environment"]["ECGJAX_ROLE"] == "evaluate"
    assert "--dependency=afterok:4711" in evaluate["argv"]
    assert "training is job 4711" in said.stderr


def test_a_following_evaluation_starts_beside_training(fakes, tmp_path):
    fakes.add("sbatch", ("1\n", 0), ("2\n", 0))
    fakes.run("slurm.sbatch", **RUN, EVALUATE="follow", LOGS=tmp_path)
    assert "--dependency=after:1" in fakes.calls("sbatch")[1]["argv"]


@pytest.fixture
def job(fakes, tmp_path):
    """A SLURM job: runs a copy of the script, as slurmd does, from where it was submitted."""
    copy = tmp_path / "slurm_script"
    shutil.copy(LAUNCH / "slurm.sbatch", copy)
    fakes.add("scontrol")

    def run(*arguments, **variables):
        slurm = {"SLURM_JOB_ID": 4711, "SLURM_SUBMIT_DIR": LAUNCH.parent, "SLURM_NTASKS": 4}
        return fakes.run(copy, *arguments, **RUN, **{**slurm, **variables})

    return run


@pytest.mark.parametrize("code", [75, 76, 143])
def test_an_interrupted_job_queues_itself_again_and_the_same_command_goes_on(fakes, job, code):
    fakes.add("srun", ("", code), ("", 0))
    first = job("--config.seed=1", ECGJAX_ROLE="train")
    assert first.returncode == 0, first.stderr
    assert fakes.calls("scontrol")[0]["argv"] == ["scontrol", "requeue", "4711"]
    second = job("--config.seed=1", ECGJAX_ROLE="train", SLURM_RESTART_COUNT=1)
    assert second.returncode == 0
    before, after = fakes.calls("srun")
    assert before["argv"] == after["argv"]
    assert before["argv"][-1] == "--config.seed=1"
    assert before["environment"]["SLURM_NTASKS"] == "4"
    assert len(fakes.calls("scontrol")) == 1


def test_an_evaluation_that_follows_a_run_of_many_stretches_has_as_many(fakes, job):
    fakes.add("srun", ("", 143))
    assert job(ECGJAX_ROLE="evaluate", EVALUATE="follow").returncode == 0
    assert fakes.calls("scontrol")[0]["argv"] == ["scontrol", "requeue", "4711"]


@pytest.mark.parametrize("role", ["train", "evaluate"])
def test_a_job_that_is_cancelled_stays_away(fakes, job, role):
    """scancel ends the shell of the job as well as its tasks, which save; --signal, before the time is up, does not."""
    fakes.write("srun", "#!/usr/bin/env bash\nkill -TERM $PPID\nexit 75\n")
    said = job(ECGJAX_ROLE=role)
    assert said.returncode == 75
    assert "SLURM ends this job; submit it again to go on" in said.stderr
    assert not fakes.calls("scontrol")


@pytest.mark.parametrize(("code", "count"), [(1, 0), (2, 0), (137, 0), (75, 100)])
def test_an_error_or_one_interruption_too_many_ends_the_job_with_its_code(fakes, job, code, count):
    fakes.add("srun", ("", code))
    said = job(ECGJAX_ROLE="train", SLURM_RESTART_COUNT=count)
    assert said.returncode == code
    assert not fakes.calls("scontrol")


def test_sbatch_of_the_file_itself_trains(fakes, job):
    fakes.add("srun")
    assert job().returncode == 0
    assert "train" in fakes.calls("srun")[0]["argv"]


def test_the_evaluation_is_one_task(fakes, job):
    fakes.add("srun")
    job(ECGJAX_ROLE="evaluate", EVALUATE="follow")
    argv = fakes.calls("srun")[0]["argv"]
    assert {"--ntasks=1", "--cpus-per-task=8"} < set(argv)  # srun takes the latter from no sbatch.
    assert argv[-3:] == ["--workdir=/runs/mmcl", "--follow", "--timeout=86400"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"CONFIG": ""}, "slurm.sbatch: set CONFIG: the training config"),
        ({"DATA": ""}, "slurm.sbatch: set DATA: the data directory"),
        ({"WORKDIR": ""}, "slurm.sbatch: set WORKDIR: the directory of the run"),
        ({"NODES": "two"}, "slurm.sbatch: NODES is 'two'; give a number from 1"),
        ({"EVALUATE": "never"}, "slurm.sbatch: EVALUATE is 'never'; choose after, follow or no"),
    ],
    ids=lambda x: "" if isinstance(x, str) else next(iter(x)),
)
def test_a_wrong_variable_is_one_line(fakes, variables, message):
    fakes.add("sbatch")
    said = fakes.run("slurm.sbatch", **{**RUN, **variables})
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert said.stderr.startswith(message)
    assert not fakes.calls()
