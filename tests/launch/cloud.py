"""Stands in for gcloud: slices are directories, workers are directories in them, and ssh runs there.

A file `request` or `machine` of a slice holds its state. `script` in the cloud's directory says what a run of the
program does, one line a run of worker 0: an exit code, `preempt`, or `hang`.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

CLOUD = pathlib.Path(os.environ["FAKE_CLOUD"])
WORKERS = 2


def main(argv):
    with open(CLOUD / "calls.jsonl", "a") as file:
        file.write(json.dumps(argv) + "\n")
    if argv[0] == "storage":
        return 0
    noun, verb, *rest = argv[2:]
    names = [x for x in rest if not x.startswith("--")]
    options = dict(x[2:].partition("=")[::2] for x in rest if x.startswith("--"))
    return globals()[f"{noun}_{verb}".replace("-", "_")](*names, **{"options": options})


def state_of(node, kind):
    if (CLOUD / "offline").exists():
        sys.exit("ERROR: (gcloud) there is no network")
    path = CLOUD / node / kind
    if not path.exists():
        sys.exit("ERROR: (gcloud) NOT_FOUND: Resource was not found")
    now, *later = path.read_text().split()
    if later:
        path.write_text(" ".join(later))
    print(now)
    return 0


def queued_resources_describe(node, options):
    return state_of(node, "request")


def tpu_vm_describe(node, options):
    return state_of(node, "machine")


def queued_resources_create(node, options):
    (CLOUD / node).mkdir()
    (CLOUD / node / "request").write_text(os.environ.get("FAKE_REQUEST", "WAITING_FOR_RESOURCES ACTIVE"))
    (CLOUD / node / "machine").write_text("READY")
    for worker in range(WORKERS):
        (CLOUD / node / f"worker{worker}").mkdir()
    return 0


def queued_resources_delete(node, options):
    shutil.rmtree(CLOUD / node)
    return 0


def workers(node, options):
    chosen = range(WORKERS) if options["worker"] == "all" else [int(options["worker"])]
    return [CLOUD / node / f"worker{worker}" for worker in chosen]


def tpu_vm_scp(source, target, options):
    node, _, name = target.partition(":")
    for home in workers(node, options):
        shutil.copy(source, home / name)
    return 0


def tpu_vm_ssh(node, options):
    codes = []
    for home in workers(node, options):
        environment = {**os.environ, "HOME": str(home)}
        codes.append(
            subprocess.run(
                ["bash", "-c", options["command"]], cwd=home, env=environment, check=False
            ).returncode
        )
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
