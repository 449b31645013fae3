"""Folder pages: the house as drawn is the house as built, links lead somewhere, and what pages name exists."""

import fnmatch
import importlib
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("[!.]*/**/README.md")), ROOT / ".github" / "CONTRIBUTING.md"]
HOUSES = [ROOT / "README.md", ROOT / "ecgjax" / "README.md"]


def name_of(path):
    return str(path.relative_to(ROOT))


def drawn(page, heading):
    """The lines of the first code block under a heading."""
    below = page.read_text().split(f"# {heading}\n")[1]
    return re.search(r"```\n(.*?)```", below, re.DOTALL)[1].splitlines()


def test_every_folder_that_needs_one_has_a_page():
    folders = {name_of(page.parent) for page in PAGES}
    assert folders >= {"ecgjax", "configs", "launch", "tests", "ecgjax/plans", "tests/parity", ".github"}


@pytest.mark.parametrize("page", HOUSES, ids=name_of)
def test_the_house_as_drawn_is_the_contract_of_import_linter(page):
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    floors = [re.split(r"\s{2,}", line)[0] for line in drawn(page, "The house")]
    assert floors == contract["layers"]


def test_the_tree_names_every_package_and_no_module_that_is_not_there():
    lines = drawn(ROOT / "ecgjax" / "README.md", "What lies where")
    packages: dict[str, set[str]] = {}
    for line in lines:
        package, _, names = line.partition(" ")
        last = package or last
        packages.setdefault(last, set()).update(re.split(r"[\s;]+", names.strip()))
    on_disk = {path.name for path in (ROOT / "ecgjax").iterdir() if (path / "__init__.py").exists()}
    assert set(packages) == on_disk
    absent = []
    for package, names in packages.items():
        there = {
            path.stem if path.suffix else f"{path.name}/" for path in (ROOT / "ecgjax" / package).iterdir()
        }
        absent += [f"{package}: {name}" for name in names if not fnmatch.filter(there, name)]
    assert absent == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    gone = [link for link in links if not (page.parent / link).exists()]
    paths = re.findall(
        r"(?<![\w/.=-])((?:ecgjax|configs|launch|tests)/[\w./]*\.(?:py|sh|sbatch|toml|md))", text
    )
    gone += [path for path in paths if not (ROOT / path).exists()]
    assert gone == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_recipes_that_a_page_names_exist(page):
    for name, argument in re.findall(r"configs/(\w+)\.py:([\w,]+)", page.read_text()):
        importlib.import_module(f"configs.{name}").get_config(argument)
