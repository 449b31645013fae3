"""Which processes run this program together, by flags or by what the platform says of itself."""

import dataclasses
from collections.abc import Mapping

METHODS = ("auto", "off", "tpu", "slurm", "gke", "flags")
"""Values of `--distributed`."""

_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_GKE_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Arguments of `jax.distributed.initialize`; what is None, jax asks the platform for."""

    detection: str  # A cluster_detection_method of jax, or "deactivate" where everything is given.
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    local_devices: tuple[int, ...] | None = None


def find(
    method: str,
    environment: Mapping[str, str],
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    local_devices: tuple[int, ...] | None = None,
    on_tpu: bool = False,
) -> Cluster | None:
    """The processes to join; None for a program of one process.

    Looks at flags and environment variables only: a laptop asks no metadata server and waits for nothing. `auto`
    takes the flags where they are given, else a SLURM step of several tasks, else the hosts of a Cloud TPU
    (`on_tpu`: this machine has chips), else one process. Half a setting, or two that contradict, is an error.
    """
    if method not in METHODS:
        raise ValueError(f"--distributed={method}: unknown; choose from {', '.join(METHODS)}.")
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    named = [f"--{name}" for name, value in given.items() if value is not None]
    if method == "flags" or (method == "auto" and named):
        return _from_flags(coordinator, processes, process, local_devices)
    if named:
        raise ValueError(
            f"--distributed={method} contradicts {', '.join(named)}; leave these out, or say --distributed=flags."
        )
    tasks = slurm_tasks(environment)
    if method == "off":
        if tasks > 1 and "SLURM_STEP_NODELIST" in environment:
            raise ValueError(
                f"--distributed=off, but srun started {tasks} of this: each would train alone, into one workdir. "
                f"Say srun --ntasks=1, or leave --distributed=off out."
            )
        return None
    if method == "slurm" or (method == "auto" and tasks > 1):
        return _from_slurm(environment, tasks, local_devices)
    if local_devices is not None:
        raise ValueError("--local_devices says something where --distributed is flags or slurm only.")
    hosts = tpu_hosts(environment)
    if method == "gke" or (method == "auto" and on_tpu and hosts > 1):
        if not hosts:
            raise ValueError(
                f"--distributed=gke, but none of {', '.join(_GKE_HOSTS)} is set, as it is in the pods of a TPU node "
                f"pool; run it there, or give --coordinator, --processes and --process."
            )
        return Cluster("gketpu")
    if method == "tpu" and not on_tpu:
        raise ValueError(
            "--distributed=tpu, but this machine has no TPU chip, or no libtpu (pip install ecgjax[tpu]); "
            "say --distributed=off to train on what is here."
        )
    if method == "tpu" or (on_tpu and not hosts and "TPU_SKIP_MDS_QUERY" not in environment):
        return Cluster("gcetpu")
    return None


def slurm_tasks(environment: Mapping[str, str]) -> int:
    """How many tasks the SLURM job has; 0 outside of one."""
    if "SLURM_JOB_ID" not in environment:
        return 0
    text = environment.get("SLURM_NTASKS", "1")
    if not text.isdigit():
        raise ValueError(f"SLURM_NTASKS is {text!r}, no number; say --distributed=off to run one process.")
    return int(text)


def tpu_hosts(environment: Mapping[str, str]) -> int:
    """How many hosts GKE says a TPU job has, over all slices; 0 where it says nothing."""
    found = [environment[name] for name in _GKE_HOSTS if environment.get(name)]
    return len(found[0].split(",")) * int(environment.get("MEGASCALE_NUM_SLICES") or 1) if found else 0


def check_alone(verb: str, environment: Mapping[str, str]) -> None:
    """Raises where the platform started several of a job that is one process."""
    hosts = tpu_hosts(environment)
    tasks = slurm_tasks(environment) if "SLURM_STEP_NODELIST" in environment else 0
    if max(hosts, tasks) > 1:
        way = "srun --ntasks=1" if tasks > 1 else "a job of one host"
        raise ValueError(
            f"{verb} is one process, and {max(hosts, tasks)} were started; start one, as by {way}."
        )


def check_gpus(environment: Mapping[str, str], *, backend: str, wanted: str | None) -> None:
    """Raises where SLURM gave GPUs and jax, which says no word of it, would compute on the cores.

    `backend` is what jax found, `wanted` the platforms that it was told to look for, as in JAX_PLATFORMS.
    """
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    if gpus.isdigit() and int(gpus) > 0 and backend == "cpu" and wanted != "cpu":
        raise ValueError(
            f"SLURM gave {gpus} GPU(s) of {environment.get('SLURMD_NODENAME', 'this node')}, but jax found none: look "
            f"whether nvidia-smi sees them and ecgjax[gpu] is installed, leave the node out (sbatch --exclude), or set "
            f"JAX_PLATFORMS=cpu to compute on the cores."
        )


def _from_flags(
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    local_devices: tuple[int, ...] | None,
) -> Cluster:
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    if missing := [name for name, value in given.items() if value is None]:
        raise ValueError(
            f"{', '.join(missing)} not given; several processes need --coordinator=HOST:PORT of process 0, "
            f"--processes=N and --process=I, each its own."
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(
            f"--coordinator={coordinator}: expected HOST:PORT, an address of process 0 and a free port."
        )
    if not 0 <= process < processes:
        raise ValueError(
            f"--process={process} of --processes={processes}: processes count from 0 to {processes - 1}."
            if processes > 0
            else f"--processes={processes}: it must be at least 1."
        )
    return Cluster("deactivate", coordinator, processes, process, local_devices)


def _from_slurm(
    environment: Mapping[str, str], tasks: int, local_devices: tuple[int, ...] | None
) -> Cluster | None:
    if missing := [name for name in _SLURM if name not in environment]:
        inside = "SLURM_JOB_ID" in environment
        raise ValueError(
            f"{', '.join(missing)} not set, though this is a SLURM job of {tasks} tasks; put srun before the command, "
            f"or say --distributed=off for one process."
            if inside
            else f"--distributed=slurm, but {', '.join(missing)} not set; start it by srun, or leave the flag out."
        )
    process = environment["SLURM_PROCID"]
    if not process.isdigit() or int(process) >= tasks:
        raise ValueError(
            f"SLURM_PROCID is {process} of SLURM_NTASKS = {tasks}; start the command by srun, or say --distributed=off."
        )
    if tasks == 1:
        return None
    return Cluster("slurm", None, tasks, int(process), local_devices or _task_devices(environment))


def _task_devices(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """All GPUs of the node where each node runs one task: left alone, jax would take one GPU a task."""
    per_node = environment.get("SLURM_STEP_TASKS_PER_NODE", environment.get("SLURM_NTASKS_PER_NODE", ""))
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    if per_node.partition("(")[0] != "1" or not gpus.isdigit():
        return None
    return tuple(range(int(gpus)))
