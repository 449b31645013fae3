"""gke.sh and xpk.sh: what kubectl and xpk are given, and that the API would take it."""

import copy
import shlex

import pytest
import yaml
from jobset import problems
from scripts import commands

RUN = {
    "NAME": "mmcl",
    "IMAGE": "registry/of/ours:1",
    "ACCELERATOR": "tpu-v5-lite-podslice",
    "TOPOLOGY": "4x8",
    "CONFIG": "configs/ecg_cmr.py:paper",
    "DATA": "gs://bucket/a study/data",
    "WORKDIR": "gs://bucket/runs/mmcl",
}
ODD = '--config.note=a "b" \\c: #d'


@pytest.fixture
def manifest(fakes):
    """The manifest that kubectl is given."""
    fakes.add("kubectl", reads=True)

    def apply(verb, *flags, **variables):
        said = fakes.run("gke.sh", verb, *flags, **{**RUN, **variables})
        assert said.returncode == 0, said.stderr
        call = fakes.calls("kubectl")[-1]
        assert call["argv"] == ["kubectl", "apply", "--filename=-"]
        return yaml.safe_load(call["stdin"])

    return apply


def job_of(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]


def pod_of(manifest):
    return job_of(manifest)["template"]["spec"]


@pytest.mark.parametrize("verb", ["train", "evaluate"])
@pytest.mark.parametrize(
    "variables", [{}, {"SPOT": "yes", "QUEUE": "tpus", "HOST_NETWORK": "yes"}], ids=["plain", "all"]
)
def test_the_api_takes_the_manifest(manifest, verb, variables):
    assert problems(manifest(verb, ODD, **variables)) == []


def test_training_has_a_pod_for_every_host_of_every_slice(manifest):
    found = manifest("train", ODD, SLICES=2, SPOT="yes", GRACE=90)
    assert found["spec"]["replicatedJobs"][0]["replicas"] == 2
    job, pod = job_of(found), pod_of(found)
    assert job["parallelism"] == job["completions"] == 8  # 32 chips, 4 of a host.
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x8",
        "cloud.google.com/gke-spot": "true",
    }
    assert pod["terminationGracePeriodSeconds"] == 90
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert container["command"] == [
        *("python", "-m", "ecgjax", "train", "--distributed=gke", "--config=configs/ecg_cmr.py:paper"),
        *("--config.data.directory=/data", "--workdir=gs://bucket/runs/mmcl", "--config.mesh.slices=2", ODD),
    ]


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_an_interruption_restarts_the_set_and_an_error_fails_it(manifest, verb):
    found = manifest(verb, MAX_RESTARTS=7)
    disruption, errors = job_of(found)["podFailurePolicy"]["rules"]
    assert disruption["action"] == "Count"  # First: a node that goes away may leave any exit code.
    assert disruption["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    # A pod whose code is not listed is counted: one is too many for its Job, and the set restarts.
    assert (errors["action"], errors["onExitCodes"]["operator"]) == ("FailJob", "In")
    assert errors["onExitCodes"]["containerName"] == pod_of(found)["containers"][0]["name"]
    assert {1, 2} <= set(errors["onExitCodes"]["values"])
    assert not {75, 76, 137, 143} & set(errors["onExitCodes"]["values"])
    assert job_of(found)["backoffLimit"] == 0
    assert pod_of(found)["restartPolicy"] == "Never"  # The API takes a podFailurePolicy with this alone.
    policy = found["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 7
    assert [(r["action"], r["onJobFailureReasons"]) for r in policy["rules"]] == [
        ("FailJobSet", ["PodFailurePolicy"])
    ]


def test_data_are_mounted_from_their_bucket_and_never_written(manifest):
    pod = pod_of(manifest("train"))
    (volume,) = pod["volumes"]
    assert volume["csi"]["readOnly"] is True
    assert volume["csi"]["volumeAttributes"]["bucketName"] == "bucket"
    assert volume["csi"]["volumeAttributes"]["mountOptions"] == "implicit-dirs,only-dir=a study/data"
    (mount,) = pod["containers"][0]["volumeMounts"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/data", True)


def test_the_evaluation_is_one_pod_of_one_host(manifest):
    found = manifest("evaluate", "--crops=2", EVALUATE_TOPOLOGY="1x1")
    assert found["metadata"]["name"] == "mmcl-evaluate"
    assert job_of(found)["parallelism"] == job_of(found)["completions"] == 1
    (container,) = pod_of(found)["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": 1}
    assert pod_of(found)["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "1x1"
    assert container["command"][3:] == [
        *("evaluate", "--workdir=gs://bucket/runs/mmcl", "--data=/data"),
        *("--follow", "--timeout=86400", "--crops=2"),
    ]


def test_the_checker_finds_what_the_api_refuses(manifest):
    good = manifest("train")

    def spoilt(change):
        bad = copy.deepcopy(good)
        change(bad)
        return problems(bad)

    assert spoilt(lambda m: m["metadata"].update(name="Not_a_label")) == [
        ".metadata.name: 'Not_a_label' is refused"
    ]
    assert spoilt(lambda m: job_of(m).update(parallelism="8"))[0].endswith("parallelism: '8' is refused")
    assert spoilt(lambda m: job_of(m).update(paralelism=8))[0].endswith("paralelism: unknown")
    assert spoilt(lambda m: pod_of(m).pop("containers"))[0].endswith("containers: missing")
    assert spoilt(lambda m: pod_of(m).update(nodeSelector={"a": True}))[0].endswith("is refused")


def test_dry_prints_the_command_and_the_manifest_and_runs_nothing(fakes):
    fakes.add("kubectl")
    said = fakes.run("gke.sh", "--dry", "train", **RUN)
    first, _, text = said.stdout.partition("\n")
    assert first == "kubectl apply --filename=-"
    assert problems(yaml.safe_load(text)) == []
    assert not fakes.calls()


def test_status_and_down_ask_for_both_jobs(fakes):
    fakes.add("kubectl")
    fakes.run("gke.sh", "status", NAME="mmcl", NAMESPACE="study", KUBECTL="kubectl --context=ours")
    fakes.run("gke.sh", "down", NAME="mmcl")
    sets, pods, down = (call["argv"] for call in fakes.calls("kubectl"))
    assert sets[:4] == ["kubectl", "--context=ours", "get", "jobset"]
    assert sets[-2:] == down[-2:] == ["mmcl", "mmcl-evaluate"]
    assert "--namespace=study" in pods
    assert down[1:3] == ["delete", "jobset"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"IMAGE": ""}, "gke.sh: set IMAGE: see the top of launch/gke.sh"),
        ({"NAME": "My_Run"}, "gke.sh: NAME is 'My_Run'; give at most 35 small letters, digits and -"),
        ({"NAME": "a" * 36}, f"gke.sh: NAME is '{'a' * 36}'; give at most 35"),
        ({"CONFIG": ""}, "gke.sh: set CONFIG: the training config"),
        ({"WORKDIR": "/runs"}, "gke.sh: WORKDIR is '/runs'; give gs://BUCKET/DIRECTORY"),
        ({"DATA": "gs://bucket"}, "gke.sh: DATA is 'gs://bucket'; give gs://BUCKET/DIRECTORY"),
        ({"TOPOLOGY": "16"}, "gke.sh: TOPOLOGY is '16'; give a topology such as 4x4 or 2x2x4"),
        ({"EVALUATE_TOPOLOGY": "4x4"}, "gke.sh: EVALUATE_TOPOLOGY is 4x4, more than the 4 chips of one host"),
    ],
    ids=lambda x: "" if isinstance(x, str) else next(iter(x)),
)
def test_a_wrong_variable_is_one_line_and_nothing_is_applied(fakes, variables, message):
    fakes.add("kubectl")
    said = fakes.run("gke.sh", "train", **{**RUN, **variables})
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert said.stderr.startswith(message)
    assert not fakes.calls()


XPK = {
    **{k: RUN[k] for k in ("NAME", "IMAGE", "CONFIG", "WORKDIR")},
    **{
        "PROJECT": "study",
        "ZONE": "here-a",
        "CLUSTER": "tpus",
        "TYPE": "v5litepod-256",
        "DATA": "/data/a study",
    },
}


def test_xpk_is_given_a_command_that_a_shell_reads_back(fakes):
    fakes.add("xpk")
    assert fakes.run("xpk.sh", "train", ODD, **XPK, SLICES=2, STORAGE="ours").returncode == 0
    (call,) = fakes.calls("xpk")
    assert call["argv"][:3] == ["xpk", "workload", "create"]
    assert {
        *(
            "--cluster=tpus",
            "--workload=mmcl",
            "--tpu-type=v5litepod-256",
            "--num-slices=2",
            "--storage=ours",
        ),
        *("--restart-on-exit-codes=75,76", "--max-restarts=100", "--docker-image=registry/of/ours:1"),
        *("--project=study", "--zone=here-a", "--termination-grace-period-seconds=120"),
    } < set(call["argv"])
    assert shlex.split(call["argv"][-1].removeprefix("--command=")) == [
        *(
            "exec",
            "python",
            "-m",
            "ecgjax",
            "train",
            "--distributed=gke",
            "--config=configs/ecg_cmr.py:paper",
        ),
        *("--config.data.directory=/data/a study", "--workdir=gs://bucket/runs/mmcl"),
        *("--config.mesh.slices=2", ODD),
    ]


def test_xpk_evaluates_in_a_workload_of_its_own_and_dry_runs_nothing(fakes):
    fakes.add("xpk")
    said = fakes.run("xpk.sh", "--dry", "evaluate", **XPK)
    assert {"--workload=mmcl-evaluate", "--num-slices=1", "--tpu-type=v5litepod-4"} < set(
        commands(said.stdout)[0]
    )
    assert not fakes.calls()
    said = fakes.run("xpk.sh", "train", **{**XPK, "DATA": ""})
    assert (said.returncode, said.stderr) == (2, "xpk.sh: set DATA: see the top of launch/xpk.sh\n")
