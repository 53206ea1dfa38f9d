"""The `srcsnn` command: parse, call, print, exit code, nothing else.

Exit codes: 0 done, 1 failed, 2 wrong use. Nothing heavy is imported before it is needed, so that
`--help` is there at once: each command imports the library inside its function.
"""

import io
import sys
from collections.abc import Sequence
from importlib.metadata import version

import typer

from srcsnn.cli import (
    demo,
    evaluate,
    export,
    export_raster,
    info,
    inspect,
    plot,
    repair,
    sleep,
    train,
    tune,
    validate,
    verify,
    view,
)
from srcsnn.cli.console import interruptible, report_errors

__all__ = ["app", "main"]

app = typer.Typer(
    name="srcsnn",
    help="Sleep for convolutional networks: a trained checkpoint sleeps as a spiking network, to "
    "classify distorted images better.",
    epilog="Start with: srcsnn demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
COMMANDS = (
    demo.demo, train.train, verify.verify, info.info, sleep.sleep, tune.tune, evaluate.evaluate,
    inspect.inspect, plot.plot, view.view, validate.validate, repair.repair,
    export_raster.export_raster, export.export,
)  # fmt: skip


def _paragraphs(docstring: str) -> str:
    """With the lines of a paragraph joined, which typer would break where the source does."""
    return "\n\n".join(" ".join(each.split()) for each in docstring.split("\n\n"))


for command in COMMANDS:
    examples = sys.modules[command.__module__].EXAMPLES
    app.command(help=_paragraphs(command.__doc__ or ""), epilog=examples)(interruptible(command))


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"srcsnn {version('srcsnn')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: bool = typer.Option(
        False, "--version", help="Show the version.", is_eager=True, callback=_show_version
    ),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    # Read and taken out by `main`, so that it works behind the command too, and covers errors of
    # parsing; here for `--help`.
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may have no letters for a sparkline
            stream.reconfigure(errors="replace")
    with report_errors(debug="--debug" in words):
        app([word for word in words if word != "--debug"], prog_name="srcsnn")
