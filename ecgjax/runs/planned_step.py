"""Compiles one request in a process of its own: libtpu wants its environment before jax starts, and may hang or die."""

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from ecgjax.core import files, flops, runtime, trees
from ecgjax.core.spec import InputSpec
from ecgjax.plans import compiling, environment, topologies
from ecgjax.plans.records import Compiled, compiled_from_json, to_json
from ecgjax.runs.assemble import Data, abstract_batch, abstract_key, assemble

_PROGRESS_S = 30.0


@dataclasses.dataclass(frozen=True)
class Request:
    """A step to compile; `cache` is a directory of reports, None for none."""

    config: Mapping[str, Any]
    data: Data
    topology: str
    effort: compiling.Effort
    cache: str | None


def request_to_json(request: Request) -> dict[str, Any]:
    """Plain JSON."""
    data = request.data
    tree = {"spec": data.spec.to_json(), "labels": list(data.labels), "examples": data.examples}
    return {**dataclasses.asdict(request), "data": tree}


def request_from_json(tree: Mapping[str, Any]) -> Request:
    """Reverses `request_to_json`."""
    data = tree["data"]
    spec = InputSpec.from_json(data["spec"])
    return Request(**{**tree, "data": Data(spec, tuple(data["labels"]), data["examples"])})


def compile_apart(request: Request, *, time_limit: float, say) -> Compiled:
    """Compiles in another process, which is killed after `time_limit` seconds; `say` tells how it goes.

    Raises ValueError with one line for what the user or the machine can mend, RuntimeError for bugs of our own.
    """
    topology = topologies.parse(request.topology)
    if topology.chip is not None:
        environment.check_libtpu()
    with tempfile.TemporaryDirectory(prefix="ecgjax_plan_") as directory:
        asked, answered = Path(directory, "request.json"), Path(directory, "result.json")
        files.write_json(asked, request_to_json(request))
        process = subprocess.Popen(
            [sys.executable, "-m", "ecgjax.runs.planned_step", os.fspath(asked), os.fspath(answered)],
            env=environment.of(topology, _with_packages(os.environ)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            said = _wait(process, request, time_limit, say)
        finally:  # Nothing stays behind, whatever stopped the waiting.
            process.kill()
            process.wait()
            signal.signal(signal.SIGTERM, before)
        if not answered.exists():
            raise _obituary(request, process.returncode, said)
        answer = files.read_json(answered)
    if "refused" in answer:
        raise ValueError(answer["refused"])
    return compiled_from_json(answer)


def compile_here(request: Request) -> Compiled:
    """Lowers the step of `request` and compiles it in this process, or finds the report of an equal one."""
    topology = topologies.parse(request.topology)
    run = assemble(request.config, request.data, devices=compiling.devices(topology))
    batch = abstract_batch(request.config, request.data, run)
    lowered = run.train_step.lower(run.state, batch, abstract_key(run))
    report = None
    if request.cache is not None:
        flags = " ".join(os.environ.get(name, "") for name in ("LIBTPU_INIT_ARGS", "XLA_FLAGS"))
        name = compiling.digest(lowered, topology, request.effort, flags=flags)
        report = Path(request.cache) / f"{name}.json"
        if report.exists():
            return dataclasses.replace(compiled_from_json(files.read_json(report)), cached=True)
    examples = sum(array.size * array.dtype.itemsize for array in batch.values())
    compiled = compiling.compile_lowered(
        lowered,
        topology,
        tuple(run.mesh.devices.flat),
        effort=request.effort,
        batch_size=request.config["data"]["batch_size"],
        model_flops=flops.model_flops(run.objective, batch),
        state_bytes={
            "parameters": compiling.bytes_on_a_device(run.state.params),
            "optimiser": compiling.bytes_on_a_device(run.state.opt_state),
            "statistics": compiling.bytes_on_a_device(run.state.extra),
            "batch": examples // run.mesh.size,
        },
        batch_norms=sum(path.endswith("/mean") for path in trees.flatten(run.state.extra)),
    )
    if report is not None:
        files.write_json(report, to_json(compiled))
    return compiled


def main(asked: str, answered: str) -> None:
    """Answers the request in the file `asked`; what is wrong with it is an answer too."""
    runtime.collect_rarely()
    try:
        answer = to_json(compile_here(request_from_json(files.read_json(asked))))
    except ValueError as error:
        answer = {"refused": str(error)}
    except jax.errors.JaxRuntimeError as error:  # libtpu's, before there is anything to compile.
        answer = {"refused": f"libtpu says: {str(error).splitlines()[0]}"}
    files.write_json(answered, answer)


def _wait(process: subprocess.Popen, request: Request, time_limit: float, say) -> str:
    name, began = request.topology, time.monotonic()
    while True:
        left = time_limit - (time.monotonic() - began)
        try:
            return process.communicate(timeout=max(min(left, _PROGRESS_S), 0))[0]
        except subprocess.TimeoutExpired:
            passed = time.monotonic() - began
            if passed >= time_limit:
                ways = (
                    "raise --time_limit" if request.effort == "fast" else "raise --time_limit, or use --fast"
                )
                raise ValueError(f"{name}: not compiled within {time_limit:.0f} s; {ways}.") from None
            say(f"{name}: compiling, {passed:.0f} s")


def _obituary(request: Request, code: int, said: str) -> Exception:
    """Why a process left without an answer."""
    name, way = request.topology, "free some" if request.effort == "fast" else "free some, or try --fast"
    if code == -signal.SIGKILL:
        return ValueError(
            f"{name}: the compiler was killed, most likely for want of memory on this machine (4 GB); {way}."
        )
    if "Traceback" in said:
        return RuntimeError(f"{name}: the compiling process failed:\n{said}")
    last = said.strip().splitlines()[-1:] or ["it said nothing"]
    return ValueError(f"{name}: the compiler ended with code {code}: {last[0]}")


def _with_packages(environ: Mapping[str, str]) -> dict[str, str]:
    """The child finds the modules that this process found."""
    return {**environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    main(*sys.argv[1:])
