"""Compiles the training step of a config for TPU slices, without a TPU; prints what it needs and how fast it may be.

  python -m ecgjax plan --config=configs/mae_ecg.py:paper --topology=v5e:4x4
  python -m ecgjax plan --config=configs/ecg_cmr.py:paper --topology=v5e:4x4,v5e:16x16 --examples_per_chip=32 --fast
  python -m ecgjax plan --config=configs/mae_ecg.py:paper --topology=v5e:4x4 --largest_batch --json=PLAN.json

The step is the one that `ecgjax train` would run with this config on that slice. A compilation takes one to four
minutes, of a large model on a busy machine longer (--time_limit), and up to 4 GB on this machine; a step that was
planned before is looked up (--cache). `--fast` compiles with little effort: FLOPs and collectives hold, memory comes
out higher (9 % were seen), and nothing can be said of time on the chip's units. All times are the compiler's model, not
measured. A step that does not fit is an answer and ends with exit code 0; where a compilation failed the others are
told, what failed stands below them, and the exit code is 1.

Topologies: v5e:4x4 counts chips; 2xv5e:16x16 is two slices; v5litepod-16, v5p-512 (cores) and the like are known as
products; local:8 is eight devices of this machine (CPU or GPU). Data need not exist: without config.data.directory
their shapes are those of --input. Needs libtpu: pip install "ecgjax[plan]".
"""

import os
from pathlib import Path

from absl import flags

from ecgjax.core.flags import define_config


def define() -> None:
    """Declares the flags of this job."""
    define_config("Training")
    flags.DEFINE_list(
        "topology", None, "Slices to compile for, such as v5e:4x4,v5p:4x4x8,2xv5e:16x16 or local:8."
    )
    flags.DEFINE_list(
        "examples_per_chip",
        [],
        "Batches to plan instead of config.data.batch_size, such as 32,64; times the chips.",
    )
    flags.DEFINE_bool(
        "fast", False, "Compile with little effort: memory and collectives, no times of the compiler."
    )
    flags.DEFINE_bool(
        "largest_batch", False, "Search the largest batch that fits, by a few fast compilations."
    )
    flags.DEFINE_string(
        "input",
        "configs/prepare.py:paper",
        "Recipe of `prepare` whose shapes to assume without a data directory.",
    )
    flags.DEFINE_bool("verbose", False, "List every collective by the operation that asked for it.")
    flags.DEFINE_string("json", None, "File to write everything to that is known.")
    flags.DEFINE_float("time_limit", 600.0, "Seconds after which a compilation is given up.", lower_bound=1.0)
    flags.DEFINE_string(
        "cache", None, "Directory of reports; default: ecgjax/plan in the user's cache; '' for none."
    )


def run(args: flags.FlagValues) -> int:
    """Plans; returns the exit code."""
    if args.config is None or not args.topology:
        raise ValueError("plan needs --config=FILE and --topology=NAMES; see `python -m ecgjax plan --help`.")
    examples_per_chip = [_positive(x, "--examples_per_chip") for x in args.examples_per_chip]
    if args.json is not None:
        _check_writable(Path(args.json))
    import jax

    from ecgjax.core import runtime
    from ecgjax.runs import planning

    jax.config.update("jax_platforms", "cpu")  # The chips of this machine, if any, are not for this process.
    runtime.start()
    found = planning.plan(
        args.config,
        topology=args.topology,
        examples_per_chip=examples_per_chip,
        recipe=args.input,
        fast=args.fast,
        largest_batch=args.largest_batch,
        time_limit=args.time_limit,
        cache=_cache() if args.cache is None else args.cache or None,
    )
    return _tell(found, verbose=args.verbose, json=args.json)


def _tell(found, *, verbose: bool, json: str | None) -> int:
    """Prints and writes what was `Planned`; the exit code says whether anything is lacking."""
    print(found.text(verbose=verbose), flush=True)
    if json is not None:
        found.write_json(json)
    return 1 if found.failures else 0


def _check_writable(path: Path) -> None:
    """Raises before the hours that a plan may take, not after them."""
    if path.is_dir():
        raise ValueError(f"--json={path} is a directory; give a file.")
    path.parent.mkdir(parents=True, exist_ok=True)


def _positive(text: str, flag: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{flag}={text}: expected numbers above 0, such as 32,64.")
    return int(text)


def _cache() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return os.fspath(Path(base) / "ecgjax" / "plan")
