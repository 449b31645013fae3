"""`prepare --like=WORKDIR`: the ECG settings of a data set as a run that shall read it was trained on."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from ecgjax.core import config as configs
from ecgjax.core.spec import PER_LEAD, InputSpec

_DERIVED = ("unit",)
"""What an InputSpec says of itself and no preparation config gives: it follows from the conditioning."""


def run_spec(workdir: epath.PathLike) -> InputSpec:
    """The inputs that the newest checkpoint of `workdir` was trained on; raises where there is none, or no ECG."""
    from ecgjax.train import checkpoint  # With Orbax, which preparing can do without.

    spec = InputSpec.from_json(checkpoint.read_meta(workdir, checkpoint.choose_step(workdir))["input_spec"])
    if spec.ecg is None:
        raise ValueError(f"--like={workdir}: the run reads no ECG; name a run that does.")
    return spec


def with_settings(
    section: Mapping[str, Any], spec: InputSpec, workdir: epath.PathLike, given: Mapping[str, Any]
) -> dict[str, Any]:
    """`section`, the `ecg` of a preparation config, with the settings of a run.

    An encoder of beats of single leads decides what every lead must look like: rate, band, conditioning, and the image
    with its mean and deviation. Leads, window and beats stay those of the recipe, and so do the seconds of its length.
    An encoder of whole recordings decides everything: leads and length too. `given` are the values that the user gave,
    by dotted path below `config.ecg`; one that contradicts the run is refused.
    """
    whole = spec.ecg.window == "start"
    of_run = _settings(spec, whole=whole)
    for path, value in given.items():
        found, name = _at(of_run, path)
        if found and configs.plain(value) != name:
            raise ValueError(
                f"config.ecg.{path} is {value}, but {workdir} was trained with {name}; leave it out, or prepare "
                f"without --like."
            )
    made = {**section, **of_run}
    if not whole and "length" not in given and section["window"] == "start":
        made["length"] = round(section["length"] * of_run["rate_hz"] / section["rate_hz"])
    return made


def _settings(spec: InputSpec, *, whole: bool) -> dict[str, Any]:
    """The fields that the run decides, those at their default too: none of them may be another."""
    fields = {"band_hz": None, "window": "start", "beats": 0, "image": None, **spec.to_json()["ecg"]}
    names = fields if whole else PER_LEAD
    return {name: fields[name] for name in names if name not in _DERIVED}


def _at(tree: Mapping[str, Any], path: str) -> tuple[bool, Any]:
    """Whether the run decides what lies at a dotted path, and its value there; None below a section that it lacks."""
    head, _, rest = path.partition(".")
    if head not in tree:
        return False, None
    value: Any = tree[head]
    for name in rest.split(".") if rest else ():
        value = value.get(name) if isinstance(value, Mapping) else None
    return True, value
