"""Tables, claims and figures of many workdirs: printed, and written as one self-contained HTML page.

  python -m ecgjax report --config=configs/report.py:synthetic --root=RUNS --output=report.html

The config lists rows (name, one workdir a seed, evaluator, input), claims of the form A < B, and what to draw; a
result that is missing is shown as missing. `--data=DATA` adds pictures of the first test examples.
"""

from absl import flags
from etils import epath
from ml_collections import config_flags

from ecgjax.core import config as configs
from ecgjax.core import runtime
from ecgjax.core.files import write_text
from ecgjax.reports import report

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Report config: FILE or FILE:ARG.", lock_config=True
)
_ROOT = flags.DEFINE_string("root", ".", "Directory that the paths in the config are relative to.")
_OUTPUT = flags.DEFINE_string("output", None, "HTML file to write; default: ROOT/report.html.")
_DATA = flags.DEFINE_string("data", None, "Data directory whose first test examples to show.")
_MARKDOWN = flags.DEFINE_string("markdown", None, "Also write the tables as Markdown to this file.")


def run() -> int:
    """Reports; returns the exit code."""
    if _CONFIG.value is None:
        raise ValueError("report needs --config=FILE; see `python -m ecgjax report --help`.")
    root = epath.Path(_ROOT.value)
    gallery = report.read_gallery(_DATA.value) if _DATA.value else None
    built = report.build(configs.plain(_CONFIG.value), root=root, gallery=gallery)
    output = epath.Path(_OUTPUT.value or root / "report.html")
    built.write(output)
    if _MARKDOWN.value:
        write_text(_MARKDOWN.value, built.markdown)
    print(built.text)
    runtime.say(f"report: {output}")
    return 0
