"""A finished report: its tables as text and Markdown, and the page that has everything."""

import dataclasses

from etils import epath

from ecgjax.core.files import write_text
from ecgjax.reports.claims import Verdict
from ecgjax.reports.tables import Table, to_markdown, to_text


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """A finished report; `verdicts` are for a caller that must act on them, `appendix` is Markdown after the tables."""

    tables: tuple[Table, ...]
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]
    html: str
    conclusion: str = ""
    appendix: str = ""

    @property
    def text(self) -> str:
        """All tables, the conclusion and warnings, for a terminal."""
        conclusion = [self.conclusion] if self.conclusion else []
        warnings = [f"warning: {line}" for line in self.warnings]
        return "\n".join([*map(to_text, self.tables), *conclusion, *warnings])

    @property
    def markdown(self) -> str:
        """The conclusion, all tables and the appendix, for a README."""
        parts = [self.conclusion, *map(to_markdown, self.tables), self.appendix]
        return "\n".join(part for part in parts if part)

    def write(self, path: epath.PathLike) -> None:
        """Writes the page, whole or not at all."""
        write_text(path, self.html)
