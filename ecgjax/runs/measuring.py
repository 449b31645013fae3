"""What a run measures of itself: chips and FLOPs, traces, compilations."""

from collections.abc import Mapping

from etils import epath

from ecgjax.core import chips, flops, runtime
from ecgjax.runs.assemble import Abstract, Assembly
from ecgjax.train.gauge import Gauge, count_chips
from ecgjax.train.profile import Profile


def gauge(run: Assembly, batch: Abstract) -> Gauge:
    """What measures the chips of a run; says why where there will be no MFU."""
    devices = run.mesh.devices.flatten().tolist()
    chip = chips.of_kind(devices[0].device_kind)
    if chip is None:
        runtime.say(
            f"no MFU: nobody has entered the peak of {devices[0].device_kind!r} in ecgjax/core/chips.py."
        )
        return Gauge(chips=count_chips(devices))
    return Gauge(chips=count_chips(devices), flops=flops.model_flops(run.objective, batch), peak=chip.flops)


def profile(traced: tuple[int, int] | None, workdir: epath.Path, *, step: int) -> Profile:
    """What traces the steps that `--profile` asked for; says so where they are past."""
    if traced is None:
        return Profile()
    start, stop = traced
    if step >= stop:
        runtime.say(f"--profile={start}:{stop}: the run goes on from step {step}; nothing is profiled.")
    return Profile(workdir / "profile", start=start, stop=stop)


def compiled(compilations: Mapping[str, int]) -> str:
    """How often each step was compiled in this process; the loop evaluates schedules and keys beside them."""
    steps = {name: compilations[name] for name in ("train_step", "eval_step")}
    others = sum(compilations.values()) - sum(steps.values())
    said = [f"{name.replace('_', ' ')} {count} x" for name, count in steps.items()]
    return ", ".join([*said, f"{others} small programs beside them"])
