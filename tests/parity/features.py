"""The tables of tests/parity/README.md: where we differ on purpose, and every feature with what proves ours.

    python tests/parity/features.py            prints them
    python tests/parity/features.py --write    puts them between the marks in README.md beside this file

`test_features` holds them to the tests that exist, and the page to them.
"""

import ast
import dataclasses
import pathlib
import sys
import tomllib
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = pathlib.Path(__file__).with_name("README.md")
STATUS = {"W": "works", "P": "partly", "B": "broken"}
ROWS = 60
"""Features of the published system; the table has each once."""


@dataclasses.dataclass(frozen=True)
class Feature:
    """One row: `there` is its status in the published code, `here` what ours does, `tests` what proves it."""

    row: int
    area: str
    feature: str
    there: str
    here: str
    tests: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Deviation:
    """What the `published` code does, what we do by default, by which option the `other`, and what pins it."""

    published: str
    here: str
    other: str
    test: str


def features() -> list[Feature]:
    """Rows in order, from features.toml."""
    return [Feature(**{**row, "tests": tuple(row["tests"])}) for row in _read()["feature"]]


def deviations() -> list[Deviation]:
    """Rows in order, from features.toml."""
    return [Deviation(**row) for row in _read()["deviation"]]


def tables() -> dict[str, str]:
    """Both in Markdown, by the name in their marks; a test stands as `directory/test_file::test`."""
    rows = []
    for row in features():
        there = ", ".join(STATUS[letter] for letter in row.there)
        tests = "<br>".join(f"`{test}`" for test in row.tests)
        rows.append((str(row.row), row.area, row.feature, there, row.here, tests))
    pinned = [(row.published, row.here, row.other, f"`{row.test}`") for row in deviations()]
    return {
        "deviations": _table(("published code", "default here", "the other by", "pinned by"), pinned),
        "features": _table(("#", "area", "feature", "there", "here", "proved by"), rows),
    }


def marks(name: str) -> tuple[str, str]:
    """The lines between which a table stands."""
    return f"<!-- {name}: python tests/parity/features.py --write -->\n", f"<!-- end of {name} -->\n"


def between_marks(page: str, name: str) -> str:
    """What the page holds as the table of this name."""
    begin, end = marks(name)
    return page.split(begin)[1].split(end)[0]


def missing_tests() -> list[str]:
    """Tests that a table names and that do not exist."""
    named = [test for row in features() for test in row.tests] + [row.test for row in deviations()]
    return [test for test in named if not _exists(test)]


def main() -> None:
    """Prints the tables, or writes them into the page."""
    text = PAGE.read_text()
    for name, table in tables().items():
        if "--write" not in sys.argv:
            sys.stdout.write(f"{table}\n")
            continue
        begin, end = marks(name)
        before, rest = text.split(begin)
        text = f"{before}{begin}{table}{end}{rest.split(end)[1]}"
    if "--write" in sys.argv:
        PAGE.write_text(text)


def _read() -> dict:
    return tomllib.loads(pathlib.Path(__file__).with_name("features.toml").read_text())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(line)} |\n" for line in (header, *rows)]
    return "".join([lines[0], f"|{'---|' * len(header)}\n", *lines[1:]])


def _exists(test: str) -> bool:
    path, _, name = test.partition("::")
    path = ROOT / "tests" / f"{path}.py"
    if not path.is_file():
        return False
    return any(
        isinstance(node, ast.FunctionDef) and node.name == name for node in ast.parse(path.read_text()).body
    )


if __name__ == "__main__":
    main()
