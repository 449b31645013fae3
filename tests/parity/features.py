"""The table of README section "Parity": each feature of the published system, and the test that proves ours.

    python tests/parity/features.py            prints it
    python tests/parity/features.py --write    puts it between the marks in README.md

`test_features` holds it to the tests that exist, and the README to it.
"""

import ast
import dataclasses
import pathlib
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
MARKS = ("<!-- parity table: python tests/parity/features.py --write -->\n", "<!-- end of parity table -->\n")
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


def features() -> list[Feature]:
    """Rows in order, from features.toml."""
    table = tomllib.loads((pathlib.Path(__file__).with_name("features.toml")).read_text())
    return [Feature(**{**row, "tests": tuple(row["tests"])}) for row in table["feature"]]


def markdown(rows: list[Feature]) -> str:
    """The table; a test stands as `directory/test_file::test`."""
    lines = ["| # | area | feature | there | here | proved by |", "|---|---|---|---|---|---|"]
    for row in rows:
        there = ", ".join(STATUS[letter] for letter in row.there)
        tests = "<br>".join(f"`{test}`" for test in row.tests)
        lines.append(f"| {row.row} | {row.area} | {row.feature} | {there} | {row.here} | {tests} |")
    return "\n".join(lines) + "\n"


def missing_tests(rows: list[Feature]) -> list[str]:
    """Tests that the table names and that do not exist."""
    return [test for row in rows for test in row.tests if not _exists(test)]


def _exists(test: str) -> bool:
    path, _, name = test.partition("::")
    path = ROOT / "tests" / f"{path}.py"
    if not path.is_file():
        return False
    return any(
        isinstance(node, ast.FunctionDef) and node.name == name for node in ast.parse(path.read_text()).body
    )


def between_marks(readme: str) -> str:
    """What the README holds as the table."""
    return readme.split(MARKS[0])[1].split(MARKS[1])[0]


def main() -> None:
    """Prints the table, or writes it into the README."""
    table = markdown(features())
    if "--write" not in sys.argv:
        sys.stdout.write(table)
        return
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(MARKS[0])
    readme.write_text(f"{before}{MARKS[0]}{table}{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    main()
