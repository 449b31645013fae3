"""Rules of the tree that neither ruff nor import-linter knows."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "ecgjax").rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def imported(path):
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def roots(path):
    return {name.split(".")[0] for name in imported(path)}


def calls(path):
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def name_of(path):
    return str(path.relative_to(ROOT))


def test_there_is_something_to_check():
    assert len(MODULES) > 60
    assert len(CONFIGS) > 4


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_one_idea_in_under_400_lines(path):
    assert len(path.read_text().splitlines()) < 400


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_configs_are_plain_python(path):
    assert roots(path) <= {"ml_collections", "configs", "math"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_unpickles_or_needs_torch(path):
    assert not roots(path) & {"torch", "pickle", "cloudpickle", "joblib", "dill"}
    for call in calls(path):
        assert not [
            k
            for k in call.keywords
            if k.arg == "allow_pickle" and getattr(k.value, "value", None) is not False
        ]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_default_hides_at_the_point_of_use_of_a_config(path):
    for call in calls(path):
        function = call.func
        if (
            isinstance(function, ast.Attribute)
            and function.attr == "get"
            and isinstance(function.value, ast.Name)
        ):
            assert function.value.id not in ("config", "cfg"), f"line {call.lineno}"


@pytest.mark.parametrize("floor", ["formats", "signals", "metrics", "reports"])
def test_numpy_packages_never_import_jax(floor):
    for path in (ROOT / "ecgjax" / floor).rglob("*.py"):
        assert not roots(path) & {"jax", "flax", "optax"}, path


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_functional_layer_and_the_models_know_nnx(path):
    allowed = path.parent.name in ("models", "objectives") or path.name == "functional.py"
    assert allowed or "flax" not in roots(path)


def test_workers_that_build_shards_do_not_import_jax():
    # Every worker process would pay seconds and hundreds of megabytes for it.
    code = "import sys, ecgjax.data.build; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_nothing_names_a_machine():
    launch = [path for path in (ROOT / "launch").rglob("*") if path.is_file()]
    assert len(launch) > 10
    for path in [*MODULES, *CONFIGS, *launch]:
        text = path.read_text()
        for directory in ("work", "root", "home", "Users"):
            assert f"/{directory}/" not in text, path
