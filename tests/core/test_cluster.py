"""Who runs a program together: by flags, by the platform's variables, and what is refused."""

import pytest

from ecgjax.core.cluster import Cluster, check_alone, check_gpus, find, tpu_hosts

STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
GKE = {"TPU_WORKER_HOSTNAMES": "a,b,c,d", "TPU_WORKER_ID": "3"}
FLAGS = {"coordinator": "10.0.0.1:1234", "processes": 4, "process": 3}


@pytest.mark.parametrize(
    ("method", "environment", "options", "found"),
    [
        ("auto", {}, {}, None),
        ("off", {}, {}, None),
        ("off", {}, {"on_tpu": True}, None),
        ("auto", STEP, FLAGS, Cluster("deactivate", "10.0.0.1:1234", 4, 3)),
        ("flags", {}, FLAGS, Cluster("deactivate", "10.0.0.1:1234", 4, 3)),
        (
            "flags",
            {},
            {**FLAGS, "coordinator": "[::1]:99", "local_devices": (0, 1)},
            Cluster("deactivate", "[::1]:99", 4, 3, (0, 1)),
        ),
        ("auto", STEP, {}, Cluster("slurm", None, 2, 1)),
        ("slurm", STEP, {}, Cluster("slurm", None, 2, 1)),
        ("auto", {**STEP, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, {}, None),
        ("auto", {"SLURM_JOB_ID": "7"}, {}, None),
        ("off", {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, {}, None),
        (
            "auto",
            {**STEP, "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_GPUS_ON_NODE": "4"},
            {},
            Cluster("slurm", None, 2, 1, (0, 1, 2, 3)),
        ),
        (
            "auto",
            {**STEP, "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_GPUS_ON_NODE": "2"},
            {},
            Cluster("slurm", None, 2, 1),
        ),
        ("auto", GKE, {"on_tpu": True}, Cluster("gketpu")),
        ("auto", GKE, {}, None),
        ("auto", {"TPU_WORKER_HOSTNAMES": "localhost"}, {"on_tpu": True}, None),
        ("gke", GKE, {"on_tpu": True}, Cluster("gketpu")),
        ("auto", {}, {"on_tpu": True}, Cluster("gcetpu")),
        ("auto", {"TPU_SKIP_MDS_QUERY": "1"}, {"on_tpu": True}, None),
        ("tpu", {}, {"on_tpu": True}, Cluster("gcetpu")),
    ],
)
def test_who_is_found(method, environment, options, found):
    assert find(method, environment, **options) == found


@pytest.mark.parametrize(
    ("method", "environment", "options", "message"),
    [
        ("always", {}, {}, "--distributed=always: unknown; choose from auto, off"),
        ("flags", {}, {}, "--coordinator, --processes, --process not given"),
        ("auto", {}, {"processes": 2, "process": 0}, "--coordinator not given"),
        ("auto", {}, {**FLAGS, "process": None}, "--process not given"),
        ("auto", {}, {**FLAGS, "process": 4}, "--process=4 of --processes=4: processes count from 0 to 3"),
        ("auto", {}, {**FLAGS, "process": -1}, "--process=-1 of --processes=4"),
        ("auto", {}, {**FLAGS, "processes": 0, "process": 0}, "--processes=0: it must be at least 1"),
        ("auto", {}, {**FLAGS, "coordinator": "10.0.0.1"}, "--coordinator=10.0.0.1: expected HOST:PORT"),
        ("auto", {}, {**FLAGS, "coordinator": "a:0"}, "--coordinator=a:0: expected HOST:PORT"),
        ("off", {}, FLAGS, "--distributed=off contradicts --coordinator, --processes, --process"),
        ("slurm", STEP, {"process": 0}, "--distributed=slurm contradicts --process"),
        ("off", STEP, {}, "--distributed=off, but srun started 2 of this"),
        ("slurm", {}, {}, "--distributed=slurm, but SLURM_JOB_ID, .* not set; start it by srun"),
        (
            "auto",
            {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
            {},
            "SLURM_STEP_NODELIST not set, though this is a SLURM job of 2 tasks; put srun before",
        ),
        ("auto", {**STEP, "SLURM_NTASKS": "2(x3)"}, {}, "SLURM_NTASKS is '2\\(x3\\)', no number"),
        ("auto", {**STEP, "SLURM_PROCID": "2"}, {}, "SLURM_PROCID is 2 of SLURM_NTASKS = 2"),
        ("gke", {}, {"on_tpu": True}, "--distributed=gke, but none of TPU_PROCESS_ADDRESSES"),
        ("tpu", {}, {}, "--distributed=tpu, but this machine has no TPU chip"),
        ("auto", {}, {"local_devices": (0,)}, "--local_devices says something where"),
    ],
)
def test_half_a_setting_or_two_that_contradict_are_refused(method, environment, options, message):
    with pytest.raises(ValueError, match=message):
        find(method, environment, **options)


def test_hosts_of_all_slices_are_counted():
    assert tpu_hosts({**GKE, "MEGASCALE_NUM_SLICES": "2"}) == 8


@pytest.mark.parametrize("environment", [STEP, GKE])
def test_a_job_of_one_process_is_refused_where_several_were_started(environment):
    with pytest.raises(ValueError, match=r"evaluate is one process, and [24] were started"):
        check_alone("evaluate", environment)


@pytest.mark.parametrize(
    "environment",
    [{}, {**STEP, "SLURM_NTASKS": "1"}, {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}],
    ids=["laptop", "srun of one", "batch script"],
)
def test_a_job_of_one_process_runs_where_one_was_started(environment):
    check_alone("evaluate", environment)


GPUS = {"SLURM_GPUS_ON_NODE": "4", "SLURMD_NODENAME": "node7"}


def test_a_node_whose_gpus_do_not_answer_is_no_place_to_train():
    with pytest.raises(
        ValueError, match=r"SLURM gave 4 GPU\(s\) of node7, but jax found none.*JAX_PLATFORMS=cpu"
    ):
        check_gpus(GPUS, backend="cpu", wanted=None)


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        (GPUS, {"backend": "gpu", "wanted": None}),
        (GPUS, {"backend": "cpu", "wanted": "cpu"}),
        ({"SLURM_JOB_ID": "7"}, {"backend": "cpu", "wanted": None}),
        ({}, {"backend": "cpu", "wanted": None}),
    ],
    ids=["found", "cores on purpose", "none asked for", "laptop"],
)
def test_elsewhere_what_jax_found_is_what_was_meant(environment, options):
    check_gpus(environment, **options)
