"""One self-contained HTML page: what was run, tables, claims, figures; it loads nothing and opens anywhere."""

import base64
import dataclasses
import html
import io
import json
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from ecgjax.reports.tables import Table, to_html

_STYLE = """
:root{color-scheme:light}*{box-sizing:border-box}
body{margin:0 auto;max-width:68rem;padding:1.2rem 1rem 4rem;background:#fff;color:#1d2733;
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.7rem;line-height:1.25;margin:.6rem 0 .2rem}
h2{font-size:1.2rem;margin:2.4rem 0 .6rem;padding-top:.8rem;border-top:1px solid #dfe4ea}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p{max-width:46rem;margin:.5rem 0}.lead{color:#4d5a68}.note{color:#5b6774;font-size:.85rem}
.warning{background:#fff6e6;border-left:4px solid #d9822b;padding:.5rem .8rem;margin:.6rem 0;max-width:none}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.84rem;font-variant-numeric:tabular-nums;min-width:100%}
th,td{padding:.32rem .6rem;text-align:left;vertical-align:top;border-bottom:1px solid #e8ecf0;white-space:nowrap}
thead th{border-bottom:2px solid #b9c2cc;color:#4d5a68;font-weight:600;vertical-align:bottom}
tbody th{font-weight:600;position:sticky;left:0;background:#fff;white-space:normal;
overflow-wrap:break-word;min-width:9rem;max-width:17rem}
td small,th small{display:block;color:#6b7785;font-weight:400;font-size:.74rem}
td small{white-space:nowrap}td.note{white-space:normal;color:#a33a00}
tr.reference th,tr.reference td{background:#f6f8fa;color:#4d5a68}
.good{color:#1a7f37}.bad{color:#b3261e}.open{color:#7a5b00}
figure{margin:1rem 0}figure img{max-width:100%;height:auto;display:block}
figure.wide{overflow-x:auto}figcaption{color:#5b6774;font-size:.85rem;margin-top:.3rem}
details{margin:.5rem 0;border:1px solid #dfe4ea;border-radius:6px;padding:.4rem .8rem}
summary{cursor:pointer}pre{overflow-x:auto;font-size:.78rem;line-height:1.4;margin:.6rem 0}
@media print{body{max-width:none;padding:0;font-size:11pt}.scroll,figure.wide{overflow:visible}
table{font-size:7.5pt}th,td{padding:.15rem .3rem}figure,tr,details{break-inside:avoid}h2,h3{break-after:avoid}
tbody th{position:static}}
@media (max-width:600px){body{font-size:15px;padding:.6rem .7rem 3rem}h1{font-size:1.35rem}
th,td{padding:.28rem .45rem}
tbody th{min-width:7rem;max-width:9rem}figure.wide img{max-width:none;width:46rem}}
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A figure with its caption; `vector` keeps lines sharp, otherwise it is stored as pixels."""

    figure: Figure
    caption: str
    alt: str
    vector: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Animation:
    """A finished GIF with its caption."""

    gif: bytes
    caption: str
    alt: str


@dataclasses.dataclass(frozen=True, eq=False)
class Section:
    """A heading with text, tables and pictures, in this order; `warnings` stand out."""

    title: str
    text: Sequence[str] = ()
    warnings: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture | Animation] = ()
    details: Sequence[tuple[str, object]] = ()


def page(title: str, *, lead: str, sections: Sequence[Section]) -> str:
    """The whole page as text."""
    body = "".join(_section(section) for section in sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1><p class=lead>{html.escape(lead)}</p>{body}</body></html>\n"
    )


def data_uri(picture: Picture | Animation) -> str:
    """The picture as an SVG, PNG or GIF data URI; the same picture gives the same text."""
    if isinstance(picture, Animation):
        kind, content = "gif", picture.gif
    elif picture.vector:
        kind, content = "svg+xml", _svg(picture.figure)
    else:
        kind, content = "png", png(picture.figure)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def png(figure: Figure) -> bytes:
    """The figure as pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "ecgjax"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _section(section: Section) -> str:
    parts = [f"<section><h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p>{html.escape(text)}</p>" for text in section.text]
    parts += [f'<p class="warning">{html.escape(text)}</p>' for text in section.warnings]
    parts += [to_html(table, heading=table.title != section.title) for table in section.tables]
    for picture in section.pictures:
        parts.append(
            f'<figure class="wide"><img src="{data_uri(picture)}" alt="{html.escape(picture.alt)}">'
            f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
        )
    for name, tree in section.details:
        text = tree if isinstance(tree, str) else json.dumps(tree, indent=2, sort_keys=True, default=str)
        parts.append(
            f"<details><summary>{html.escape(name)}</summary><pre>{html.escape(text)}</pre></details>"
        )
    return "".join(parts) + "</section>"
