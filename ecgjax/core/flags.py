"""Flags that several verbs have in common. Without jax: `--help` and a wrong flag answer at once."""

from absl import flags
from ml_collections import config_flags

from ecgjax.core import cluster

STALL_MINUTES = 10.0
"""Default of --stall_minutes, and of whoever trains without flags."""


def define_config(kind: str) -> None:
    """Declares `--config`, a Python file with `get_config`; keys that it lacks cannot be set."""
    config_flags.DEFINE_config_file(
        "config", help_string=f"{kind} config: FILE or FILE:ARG.", lock_config=True
    )


def define_compile_cache() -> None:
    """Declares the flag of verbs that compile."""
    flags.DEFINE_string(
        "compile_cache",
        None,
        "Directory of compiled programs, to share between runs; default: in the workdir.",
    )


def define_distributed() -> None:
    """Declares the flags of verbs that may run on several processes."""
    flags.DEFINE_enum(
        "distributed",
        "auto",
        cluster.METHODS,
        "Who runs this together. auto: by --coordinator where given, else the tasks of a SLURM step, the hosts of a "
        "Cloud TPU or of a GKE TPU job, else one process.",
    )
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where the platform does not say it.")
    flags.DEFINE_integer("processes", None, "With --coordinator: how many processes.")
    flags.DEFINE_integer("process", None, "With --coordinator: the number of this one, from 0.")
    flags.DEFINE_list("local_devices", None, "GPUs of this process, as 0,1; default: all, or by SLURM task.")
    flags.DEFINE_integer("join_timeout", 300, "Seconds that processes wait for each other at the start.", 1)
    flags.DEFINE_integer("peer_timeout", 30, "Seconds of silence after which a process counts as gone.", 5)
