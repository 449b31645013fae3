"""`ecgjax plan` as a command, and what it says where something is wrong."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from configs import mae_ecg
from ecgjax.core import config as configs
from ecgjax.jobs import plan as plan_job
from ecgjax.plans import environment
from ecgjax.plans.prices import Contrast
from ecgjax.plans.records import Compiled, Memory, compiled_from_json
from ecgjax.runs import planned_data, planned_step, planning

GIB, MIB = 2**30, 2**20
TINY_INPUT = "configs/prepare.py:tiny"
SIZES = {"width": 16, "depth": 1, "heads": 2}

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason='libtpu is not installed: pip install "ecgjax[plan]"'
)


def tiny_flags():
    own = [f"--config.objective.{part}.{k}={v}" for part in ("encoder", "decoder") for k, v in SIZES.items()]
    own += ["--config.objective.encoder.patch=50", "--config.objective.encoder.patch_leads=1"]
    data = ["--config.data.crop=100", f"--input={TINY_INPUT}"]
    return ["plan", "--config=configs/mae_ecg.py:demo", *own, *data]


@pytest.fixture
def config():
    config = mae_ecg.get_config("demo")
    config.data.update({"batch_size": 16, "crop": 100})
    config.objective.encoder.update({**SIZES, "patch": 50, "patch_leads": 1})
    config.objective.decoder.update(SIZES)
    return config


def request_of(config, topology="v5e:2x2", cache=None):
    config = configs.plain(config)
    data, _ = planned_data.data_of(config, TINY_INPUT)
    return planned_step.Request(config, data, topology, "fast", cache)


def plan(config, **changes):
    options = {"topology": ["v5e:2x2"], "recipe": TINY_INPUT, "time_limit": 60.0, "cache": None}
    return planning.plan(config, **{**options, **changes})


@pytest.fixture
def libtpu_held():
    """Another process that has the lock file of libtpu, or has found that a third one has it."""
    load = "topologies.get_topology_desc('v5e:2x2', platform='tpu')"
    script = f"from jax.experimental import topologies\n{load}\nprint(flush=True)\ninput()"
    alone = {k: v for k, v in environment.TPU.items() if k != "ALLOW_MULTIPLE_LIBTPU_LOAD"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", script], env=os.environ | alone, **pipes) as holder:
        holder.stdout.readline()
        yield
        holder.kill()


@needs_libtpu
def test_a_real_step_is_compiled_for_a_slice_once(command, config, tmp_path, libtpu_held, monkeypatch):
    """From the command line to the numbers, while another process holds libtpu; the second time it is known."""
    out, cache = tmp_path / "plan.json", str(tmp_path / "cache")
    arguments = [
        *tiny_flags(),
        "--topology=v5litepod-4",
        "--examples_per_chip=4",
        "--fast",
        f"--json={out}",
        f"--cache={cache}",
    ]
    code, said = command(*arguments)
    assert code == 0, said
    assert "assumed: as configs/prepare.py:tiny would make them" in said
    assert "## v5e:2x2: 1 slice, 1 host, 4 chips, 4 devices; batch 16, 4 a chip" in said
    written = json.loads(out.read_text())
    assert written["failures"] == []
    compiled = written["cases"][0]["compiled"]
    assert written["cases"][0]["estimate"]["samples_per_s"] > 0
    assert compiled["error"] is None
    # Parameters and two moments of each, in float32, on every chip; the batch is shared.
    parameters = compiled["state_bytes"]["parameters"]
    assert 2 * parameters <= compiled["state_bytes"]["optimiser"] <= 2 * parameters + 64
    example = 12 * 100 * 4 + 12 * 4 + 2 * 4 + 4 + 1  # ECG, labels, subject, index, mask.
    assert compiled["state_bytes"]["batch"] == 4 * example
    # On a chip arrays come in tiles, so they take more than their values.
    assert sum(compiled["state_bytes"].values()) <= compiled["memory"]["arguments"]
    # All of the state is donated: what comes out beside it are a few metrics, a tile each.
    memory = compiled["memory"]
    assert memory["aliased"] >= parameters + compiled["state_bytes"]["optimiser"]
    assert memory["outputs"] - memory["aliased"] < 16 * 1024
    (reduction,) = compiled["program"]["collectives"]
    assert (reduction["kind"], reduction["group"], reduction["network"]) == ("all-reduce", 4, "ici")
    assert reduction["bytes"] == pytest.approx(parameters, rel=0.01)  # The gradient, and a few metrics.

    # Flags are a part of what is known; the command above had none.
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    (again,) = plan(config, examples_per_chip=[4], fast=True, cache=cache).cases
    assert again.compiled == compiled_from_json({**compiled, "cached": True})


@pytest.fixture
def children(monkeypatch):
    """The processes that plans start."""
    started = []

    class Noting(planned_step.subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(planned_step.subprocess, "Popen", Noting)
    return started


@needs_libtpu
@pytest.mark.parametrize(("fast", "ways"), [(False, r", or use --fast\."), (True, r"\.")])
def test_the_time_limit_ends_the_compiler(config, children, fast, ways):
    with pytest.raises(ValueError, match=rf"^v5e:2x2: not compiled within 1 s; raise --time_limit{ways}$"):
        plan(config, time_limit=1.0, fast=fast)
    assert [child.returncode for child in children] == [-9]


@needs_libtpu
def test_sigterm_ends_the_compiler_too(config, children):
    """It would go on for minutes, and hold gigabytes."""
    asked = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    asked.start()
    with pytest.raises(SystemExit, match="143"):
        plan(config)
    asked.join()
    assert [child.returncode for child in children] == [-9]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_search_that_fails_leaves_what_is_known(config, monkeypatch, capsys):
    """The first compilation fits, the second takes too long; the third topology has no facts."""
    known = compiled_from_json(
        {
            **{"topology": "v5e:2x2", "devices": 4, "batch_size": 16, "model_flops": 1, "effort": "fast"},
            **{"seconds": 1.0, "state_bytes": {}, "program": None, "cost_analysis": {}, "versions": {}},
            "memory": dict.fromkeys(
                ("arguments", "outputs", "aliased", "temporaries", "code", "peak", "available"), 1
            ),
        }
    )
    answers = iter([known, ValueError("too long"), known, ValueError("dead")])

    def compile_apart(request, **_):
        answer = next(answers)
        if isinstance(answer, ValueError):
            raise answer
        return answer

    monkeypatch.setattr(planning, "compile_apart", compile_apart)
    monkeypatch.setattr(environment, "check_libtpu", lambda: None)
    found = plan(config, topology=["v5e:2x2", "local:2", "v5e:2x4"], fast=True, largest_batch=True)
    assert [(case.topology.name, case.largest) for case in found.cases] == [
        ("v5e:2x2", None),
        ("local:2", None),
    ]
    said = capsys.readouterr().err
    failures = [
        "too long",
        "--largest_batch: nobody knows what local:2 can hold; give a TPU topology.",
        "dead",
    ]
    assert found.failures == failures
    assert all(line in said for line in failures)


def test_where_nothing_was_planned_the_last_reason_is_the_error(config, monkeypatch, capsys):
    def compile_apart(request, **_):
        raise ValueError(f"no {request.topology}")

    monkeypatch.setattr(planning, "compile_apart", compile_apart)
    with pytest.raises(ValueError, match=r"^nothing was planned; the last of 2 said: no local:2$"):
        plan(config, topology=["local:1", "local:2"])
    with pytest.raises(ValueError, match=r"^no local:2$"):
        plan(config, topology=["local:2"])
    assert capsys.readouterr().err.count("no local:2") == 1  # An error that is raised is not said as well.


def test_failures_stand_below_the_tables_and_in_the_exit_code(tmp_path, capsys):
    """As a step in a script: what was planned is written, and that something is lacking is known."""
    out = tmp_path / "some" / "plan.json"
    plan_job._check_writable(out)
    lacking, whole = planning.Planned([], ["v5e:2x4: dead"]), planning.Planned([], [])
    assert plan_job._tell(lacking, verbose=False, json=str(out)) == 1
    assert "Not planned: v5e:2x4: dead" in capsys.readouterr().out
    assert json.loads(out.read_text()) == {"cases": [], "failures": ["v5e:2x4: dead"]}
    assert plan_job._tell(whole, verbose=False, json=None) == 0
    with pytest.raises(ValueError, match=r"--json=.* is a directory; give a file"):
        plan_job._check_writable(tmp_path)


def searched(config, monkeypatch, *, full_takes=0):
    """The search on one v5e whose step takes 1 GiB and 10 MiB an example; code and next batch take 1 GiB more."""

    def compile_apart(request, **_):
        batch = request.config["data"]["batch_size"]
        asked.append((batch, request.effort))
        peak = GIB + 10 * MIB * batch + (full_takes if request.effort == "full" else 0)
        numbers = {"arguments": 1, "outputs": 1, "aliased": 1, "temporaries": 1, "code": GIB, "peak": peak}
        fits = peak <= int(15.75 * GIB)
        return Compiled(
            **{"topology": "v5e:1x1", "devices": 1, "batch_size": batch, "model_flops": 1, "seconds": 1.0},
            **{"effort": request.effort, "state_bytes": {"batch": 0}, "program": None, "cost_analysis": {}},
            memory=Memory(**numbers, available=int(15.75 * GIB)) if fits else None,
            versions={},
            error=None if fits else "does not fit",
            needed=None if fits else peak,
        )

    asked: list = []
    monkeypatch.setattr(planning, "compile_apart", compile_apart)
    monkeypatch.setattr(environment, "check_libtpu", lambda: None)
    (case,) = plan(config, topology=["v5e:1x1"], fast=not full_takes, largest_batch=True).cases
    return case.largest, asked


def test_a_batch_fits_with_its_code_and_the_next_batch(config, monkeypatch):
    """Of 15.75 GiB 13.75 are left to examples, 1,408 of them; without code and next batch 1,510 would compile."""
    found, asked = searched(config, monkeypatch)
    assert (found.batch, found.above) == (1408, 1416)
    assert {effort for _, effort in asked} == {"fast"}


def test_what_was_found_fast_is_confirmed_with_full_effort(config, monkeypatch):
    found, asked = searched(config, monkeypatch, full_takes=100 * MIB)
    assert (found.batch, found.above) == (1392, 1400)
    assert [x for x in asked if x[1] == "full"] == [
        (16, "full"),
        (1408, "full"),
        (1400, "full"),
        (1392, "full"),
    ]


def test_batches_that_are_searched_can_be_cut_into_parts_tiles_and_groups():
    """On 4 devices: eight examples a device; four parts, two of them microbatches; a microbatch in tiles of 48."""
    config = {"accumulate": 1, "grad_cache": 1, "objective": {"name": "masked", "encoder": {}}}
    assert planning._batch_step(config, 4) == 4 * 8
    config |= {"accumulate": 2, "grad_cache": 2}
    config["objective"] = {"tile": 48, "cmr": {"norm_group": 5}, "ecg": {"norm_group": None}}
    step = planning._batch_step(config, 4)
    assert step == 4 * 96 * 5
    assert step // 2 // 4 % 48 == 0
    assert step // 2 // 2 % 5 == 0


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ({"name": "masked"}, None),
        ({"name": "simclr", "projection": 64}, Contrast(64, views=2, parts=4)),
        ({"name": "simclr", "contrast": "info_nce"}, Contrast(128, parts=4)),
        ({"name": "cross_modal", "tile": 8}, Contrast(128, parts=4, tile=8)),
    ],
)
def test_what_a_loss_compares_is_read_with_the_defaults_of_its_objective(objective, expected):
    assert planning._contrast({"objective": objective, "accumulate": 4}) == expected


def test_without_libtpu_the_extra_is_named(config, monkeypatch):
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r'not installed: pip install "ecgjax\[plan\]".*local:8 plans without it'
    ):
        plan(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("topology", ["v5e:2x2", "v5e:3x3"], r"no slice of v5e has that shape\. Known: v5e and v6e of 1x1"),
        (
            "topology",
            ["v5e:8x8"],
            r"v5e:8x8: its 64 devices do not divide a batch of 16; give --examples_per_chip=N, or another",
        ),
        (
            "examples_per_chip",
            [3],
            r"tpu7x:2x2x1: its 8 devices do not divide a batch of 12; .* a multiple of 2",
        ),
        ("recipe", "configs/nope.py:x", r"--input=configs/nope\.py:x: no such file"),
        ("recipe", "configs/prepare.py:nope", r"configs/prepare\.py:nope: unknown; choose from synthetic"),
        ("recipe", "configs/report.py", r"--input\.\w+: no such key"),
        (
            "crop",
            2000,
            r"config\.data\.crop: 2000 samples are not within 1 to 1000 \(assumed: as configs/prepare",
        ),
        ("modalities", ("ekg",), r"config\.data\.modalities: asked for \['ekg'\], which the data lack"),
        ("directory", "/nonexistent", r"/nonexistent/manifest\.json does not exist"),
    ],
)
def test_what_is_wrong_is_said_before_any_compilation(config, monkeypatch, field, value, message):
    monkeypatch.setattr(planning, "compile_apart", None)
    options = {"topology": ["tpu7x:2x2x1"]} if field == "examples_per_chip" else {}
    if field in config.data:
        with config.ignore_type():
            config.data[field] = value
    else:
        options[field] = value
    with pytest.raises(ValueError, match=message):
        plan(config, **options)


def test_what_only_the_assembly_knows_comes_back_from_the_compiler(config):
    config.objective.encoder.heads = 3
    with pytest.raises(
        ValueError, match=r"config\.objective\.encoder: width 16 is not a multiple of heads 3"
    ):
        plan(config, topology=["local:2"])


@pytest.mark.parametrize(
    ("code", "said", "kind", "message"),
    [
        (-9, "", ValueError, "v5e:2x2: the compiler was killed, most likely for want of memory"),
        (
            -11,
            "noise\nFatal: libtpu\n",
            ValueError,
            "v5e:2x2: the compiler ended with code -11: Fatal: libtpu",
        ),
        (-6, "", ValueError, "v5e:2x2: the compiler ended with code -6: it said nothing"),
        (1, "Traceback (most recent call last):\nKeyError: 'x'", RuntimeError, "KeyError: 'x'"),
    ],
)
def test_a_compiler_that_dies_leaves_a_word(config, code, said, kind, message):
    error = planned_step._obituary(request_of(config), code, said)
    assert type(error) is kind
    assert message in str(error)


def test_prepared_data_are_taken_as_they_are(config, tiny_data):
    config.data.directory = str(tiny_data)
    data, words = planned_data.data_of(configs.plain(config), "configs/nope.py")
    assumed, _ = planned_data.data_of(configs.plain(mae_ecg.get_config("demo")), TINY_INPUT)
    assert words.startswith(f"data as in {tiny_data}")
    assert data.spec == assumed.spec
    assert [label["name"] for label in data.labels] == [label["name"] for label in assumed.labels]
    assert set(data.labels[0]) == set(assumed.labels[0])


def test_a_request_survives_its_file(config):
    request = request_of(config)
    assert (
        planned_step.request_from_json(json.loads(json.dumps(planned_step.request_to_json(request))))
        == request
    )
