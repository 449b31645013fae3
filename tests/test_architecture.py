"""Rules of the tree that neither ruff nor import-linter knows; each names every offender."""

import ast
import functools
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

from ecgjax.__main__ import VERBS

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "ecgjax").rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
LAUNCH = sorted(path for path in (ROOT / "launch").rglob("*") if path.is_file())
NUMPY_ALONE = ("formats", "signals", "metrics", "reports")


@functools.cache
def tree(path):
    return ast.parse(path.read_text())


def roots(path) -> set[str]:
    """Top-level packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.split(".")[0] for name in found}


def calls(path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def name_of(path):
    return str(path.relative_to(ROOT))


def test_there_is_something_to_check():
    assert len(MODULES) > 200
    assert len(CONFIGS) > 10
    assert len(LAUNCH) > 10


def test_configs_are_plain_python():
    allowed = {"ml_collections", "configs", "math"}
    assert [(name_of(path), roots(path) - allowed) for path in CONFIGS if roots(path) - allowed] == []


def test_no_module_unpickles_or_needs_torch():
    forbidden = {"torch", "pickle", "cloudpickle", "joblib", "dill"}
    assert [(name_of(path), roots(path) & forbidden) for path in MODULES if roots(path) & forbidden] == []
    allowing = [
        f"{name_of(path)}:{call.lineno}"
        for path in MODULES
        for call in calls(path)
        for keyword in call.keywords
        if keyword.arg == "allow_pickle" and getattr(keyword.value, "value", None) is not False
    ]
    assert allowing == []


def test_no_default_hides_at_the_point_of_use_of_a_config():
    hidden = [
        f"{name_of(path)}:{call.lineno}"
        for path in MODULES
        for call in calls(path)
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "get"
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id in ("config", "cfg")
    ]
    assert hidden == []


def test_numpy_packages_never_import_jax():
    paths = [path for path in MODULES if path.relative_to(ROOT / "ecgjax").parts[0] in NUMPY_ALONE]
    assert {path.relative_to(ROOT / "ecgjax").parts[0] for path in paths} == set(NUMPY_ALONE)
    assert [name_of(path) for path in paths if roots(path) & {"jax", "flax", "optax"}] == []


def test_only_the_functional_layer_and_the_models_know_nnx():
    knowing = [path for path in MODULES if "flax" in roots(path)]
    allowed = [p for p in knowing if p.parent.name in ("models", "objectives") or p.name == "functional.py"]
    assert [name_of(path) for path in knowing if path not in allowed] == []


def test_workers_that_build_shards_do_not_import_jax():
    # Every worker process would pay seconds and hundreds of megabytes for it.
    code = "import sys, ecgjax.data.build; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_nothing_names_a_machine():
    named = [
        f"{name_of(path)}: /{directory}/"
        for path in [*MODULES, *CONFIGS, *LAUNCH]
        for directory in ("work", "root", "home", "Users")
        if f"/{directory}/" in path.read_text()
    ]
    assert named == []


def texts() -> Iterator[tuple[str, str]]:
    """Every string of the package and the configs, docstrings too, and the launchers line by line, with its place."""
    for path in [*MODULES, *CONFIGS]:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{name_of(path)}:{node.lineno}", node.value
    for path in LAUNCH:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            yield f"{name_of(path)}:{number}", line


def declared_flags() -> set[str]:
    """Names of the flags that the verbs declare."""
    return {
        call.args[0].value
        for path in [*(ROOT / "ecgjax" / "jobs").glob("*.py"), ROOT / "ecgjax" / "core" / "flags.py"]
        for call in calls(path)
        if isinstance(call.func, ast.Attribute) and call.func.attr.startswith("DEFINE")
    }


def test_files_that_a_message_names_exist():
    path = re.compile(
        r"(?<![\w/.{-])((?:ecgjax|configs|launch|tests)/[\w./]*\w\.(?:py|sh|sbatch|toml|md|yaml))"
    )
    gone = [
        f"{where}: {name}"
        for where, text in texts()
        for name in path.findall(text)
        if not (ROOT / name).exists() and pathlib.Path(name).stem not in ("x", "NAME")  # Placeholders.
    ]
    assert gone == []


def names_something(dotted: str) -> bool:
    """Whether a dotted name below ecgjax leads to a module, or to what a package's `__init__` knows."""
    place = ROOT / "ecgjax"
    for part in dotted.strip(".").split("."):
        if (place / f"{part}.py").exists():
            return True  # What follows is within the module.
        if not (place / part).is_dir():
            return re.search(rf"\b{part}\b", (place / "__init__.py").read_text()) is not None
        place /= part
    return True


def test_modules_that_a_message_names_exist():
    module = re.compile(r"(?<![\w./])ecgjax((?:\.\w+)+)(?!\.gz)")
    gone = [
        f"{where}: ecgjax{dotted}"
        for where, text in texts()
        for dotted in module.findall(text)
        if not names_something(dotted) and ".tar" not in dotted
    ]
    assert gone == []
    assert not names_something(".jobs.setup")
    assert names_something(".evaluators.EVALUATORS")


def test_verbs_that_a_message_names_exist():
    verb = re.compile(r"(?:`|-m )ecgjax (\w+)")
    unknown = [
        f"{where}: {name}" for where, text in texts() for name in verb.findall(text) if name not in VERBS
    ]
    assert unknown == []


def test_flags_that_a_message_of_the_package_names_exist():
    flag = re.compile(r"(?<![\w-])--(\w+)")
    known = declared_flags() | {"help", "version", "nodry_run"}
    others = {"exclude", "ntasks", "logdir"}  # Of sbatch and TensorBoard.
    unknown = [
        f"{where}: --{name}"
        for where, text in texts()
        if where.startswith(("ecgjax/", "configs/"))
        for name in flag.findall(text)
        if name not in known | others and not name.startswith("xla_")
    ]
    assert unknown == []
