"""launch/slurm.sbatch with real processes: two tasks train, the cluster takes the nodes away, the job goes on."""

import os
import sys

import pytest
from scripts import Fakes
from tiny_runs import masked

from ecgjax.train import checkpoint

STEPS = 60

# Starts two tasks, as srun does; where `preempt` lies beside it, SIGTERM reaches both once a checkpoint is there.
SRUN = """#!{python}
import os, pathlib, signal, subprocess, sys, time
here, arguments = pathlib.Path({directory!r}), sys.argv[1:]
command = arguments[next(i for i, x in enumerate(arguments) if not x.startswith("-")):]
step = {{"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2"}}
tasks = [
    subprocess.Popen(command, env={{**os.environ, **step, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}})
    for i in range(2)
]
if (here / "preempt").exists():
    (here / "preempt").unlink()
    workdir = next(x.partition("=")[2] for x in command if x.startswith("--workdir="))
    while not any(p.name not in ("0", "") and p.name.isdigit() for p in pathlib.Path(workdir).glob("checkpoints/*")):
        time.sleep(0.01)
        assert all(task.poll() is None for task in tasks)
    for task in tasks:
        task.send_signal(signal.SIGTERM)
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.mark.slow
def test_a_job_of_two_tasks_goes_on_after_the_nodes_were_taken_away(tiny_data, tmp_path):
    fakes = Fakes(tmp_path / "programs")
    fakes.directory.mkdir()
    fakes.write("srun", SRUN.format(python=sys.executable, directory=str(fakes.directory)))
    fakes.add("scontrol")
    (fakes.directory / "preempt").touch()
    workdir = tmp_path / "run"
    config, *flags = masked(tiny_data, STEPS)
    variables = {
        "ECGJAX_ROLE": "train",
        "CONFIG": config.partition("=")[2],
        "DATA": tiny_data,
        "WORKDIR": workdir,
        "LOGS": tmp_path,
        "PYTHON": sys.executable,
        "SLURM_JOB_ID": 41000 + os.getpid() % 10000,  # Jax derives a port from it.
        "SLURM_NTASKS": 2,
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": 1,
    }
    said = fakes.run("slurm.sbatch", *flags, "--config.mesh.data=2", timeout=300, **variables)
    assert said.returncode == 0, said.stderr
    assert "exit code 75: queued again" in said.stderr, said.stderr
    assert len(fakes.calls("scontrol")) == 1
    assert 0 < checkpoint.steps(workdir)[-1] < STEPS
    assert not (workdir / "TRAINED").exists()
    said = fakes.run("slurm.sbatch", *flags, "--config.mesh.data=2", timeout=300, **variables)
    assert said.returncode == 0, said.stderr
    assert "resumed at step" in said.stderr
    assert "2 x cpu on 2 process(es)" in said.stderr
    assert (workdir / "TRAINED").exists()
    assert len(fakes.calls("scontrol")) == 1
