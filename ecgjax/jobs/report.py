"""Tables, claims and figures of many workdirs: printed, and written as one self-contained HTML page.

  python -m ecgjax report --config=configs/report.py:synthetic --root=RUNS --output=report.html

The config lists rows (name, one workdir a seed, evaluator, input), claims of the form A < B, and what to draw; a
result that is missing is shown as missing. `--data=DATA` adds pictures of the first test examples.

  python -m ecgjax report --config=configs/report.py:crt --root=RUNS --markdown=card.md

A config with `runs` reports cross-validations of a response to treatment, with a verdict and a model card.
"""

from absl import flags

from ecgjax.core.flags import define_config


def define() -> None:
    """Declares the flags of this job."""
    define_config("Report")
    flags.DEFINE_string("root", ".", "Directory that the paths in the config are relative to.")
    flags.DEFINE_string("output", None, "HTML file to write; default: ROOT/report.html.")
    flags.DEFINE_string("data", None, "Data directory whose first test examples to show.")
    flags.DEFINE_string("markdown", None, "Also write the tables as Markdown to this file.")


def run(args: flags.FlagValues) -> int:
    """Reports; returns the exit code."""
    if args.config is None:
        raise ValueError("report needs --config=FILE; see `python -m ecgjax report --help`.")
    if "runs" in args.config and args.data:
        raise ValueError(
            "--data: a report of cross-validations names its data in the config, as config.data."
        )
    from etils import epath

    from ecgjax.core import config as configs
    from ecgjax.core import runtime
    from ecgjax.core.files import write_text

    runtime.start()
    root = epath.Path(args.root)
    if not root.is_dir():
        raise ValueError(f"--root={root} is no directory; name the one that holds the runs.")
    spec = configs.plain(args.config)
    if "runs" in spec:
        from ecgjax.response.report.build import build

        built = build(spec, root=root)
    else:
        from ecgjax.reports import probe_report

        gallery = probe_report.read_gallery(args.data) if args.data else None
        built = probe_report.build(spec, root=root, gallery=gallery)
    output = epath.Path(args.output or root / "report.html")
    built.write(output)
    if args.markdown:
        write_text(args.markdown, built.markdown)
    print(built.text)
    runtime.say(f"report: {output}")
    return 0
