"""The part of the public JobSet, Job and Pod API that the manifests use, and a checker of it.

Written from the reference of jobset.x-k8s.io/v1alpha2, batch/v1 and core/v1: what is required, of which type, with
which values. A field that is not listed is refused, as the server does for one it does not know.
"""

import re

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
"""DNS label, as JobSet asks for (RFC 1035)."""


def one_of(*values):
    return lambda value: value in values


def list_of(schema):
    return [schema]


def integer(minimum):
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def map_of_text(value):
    return isinstance(value, dict) and all(isinstance(x, str) for pair in value.items() for x in pair)


def dns_label(value):
    return isinstance(value, str) and len(value) <= 63 and NAME.fullmatch(value) is not None


RULE = {
    "action!": one_of("FailJob", "Ignore", "Count", "FailIndex"),
    "onExitCodes": {
        "containerName": dns_label,
        "operator!": one_of("In", "NotIn"),
        "values!": list_of(integer(1)),  # 0 is refused with In.
    },
    "onPodConditions": list_of({"type!": str, "status": one_of("True", "False", "Unknown")}),
}

CONTAINER = {
    "name!": dns_label,
    "image!": str,
    "command": list_of(str),
    "ports": list_of({"containerPort!": integer(1)}),
    "resources": {"limits": lambda value: all(integer(1)(count) for count in value.values())},
    "securityContext": {"capabilities": {"add": list_of(str)}},
    "volumeMounts": list_of({"name!": dns_label, "mountPath!": str, "readOnly": bool}),
}

POD = {
    "restartPolicy!": one_of("Never", "OnFailure"),
    "terminationGracePeriodSeconds": integer(0),
    "serviceAccountName": str,
    "hostNetwork": bool,
    "dnsPolicy": one_of("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "nodeSelector": map_of_text,
    "containers!": list_of(CONTAINER),
    "volumes": list_of(
        {"name!": dns_label, "csi": {"driver!": str, "readOnly": bool, "volumeAttributes": map_of_text}}
    ),
}

JOB = {
    "parallelism": integer(0),
    "completions": integer(0),
    "completionMode": one_of("Indexed", "NonIndexed"),
    "backoffLimit": integer(0),
    "podFailurePolicy": {"rules!": list_of(RULE)},
    "template!": {"metadata": {"annotations": map_of_text, "labels": map_of_text}, "spec!": POD},
}

JOBSET = {
    "apiVersion!": one_of("jobset.x-k8s.io/v1alpha2"),
    "kind!": one_of("JobSet"),
    "metadata!": {
        "name!": dns_label,
        "namespace": dns_label,
        "labels": map_of_text,
        "annotations": map_of_text,
    },
    "spec!": {
        "failurePolicy": {
            "maxRestarts": integer(0),
            "rules": list_of(
                {
                    "name!": re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?").fullmatch,
                    "action!": one_of("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"),
                    "onJobFailureReasons": list_of(
                        one_of(
                            *("BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes"),
                            *("MaxFailedIndexesExceeded", "PodFailurePolicy"),
                        )
                    ),
                    "targetReplicatedJobs": list_of(str),
                }
            ),
        },
        "replicatedJobs!": list_of({"name!": dns_label, "replicas": integer(0), "template!": {"spec!": JOB}}),
    },
}


def problems(value, schema=JOBSET, path=""):
    """What the server would refuse, each with its path."""
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            return [f"{path}: {value!r} is no list"]
        return [p for i, item in enumerate(value) for p in problems(item, schema[0], f"{path}[{i}]")]
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{path}: {value!r} is no mapping"]
        known = {name.rstrip("!"): inner for name, inner in schema.items()}
        missing = [name[:-1] for name in schema if name.endswith("!") and name[:-1] not in value]
        found = [f"{path}.{name}: missing" for name in missing]
        found += [f"{path}.{name}: unknown" for name in value if name not in known]
        return found + [
            p for k, v in value.items() if k in known for p in problems(v, known[k], f"{path}.{k}")
        ]
    good = isinstance(value, schema) if isinstance(schema, type) else schema(value)
    return [] if good else [f"{path}: {value!r} is refused"]
