"""`srcsnn inspect`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from srcsnn.cli.console import say, say_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from srcsnn.rasters import LayerSummary, Raster

EXAMPLES = "Examples: srcsnn inspect run.h5 | srcsnn inspect before.h5 after.h5"


def inspect(
    raster: Annotated[str, typer.Argument(help="A raster file that sleep recorded.")],
    other: Annotated[str | None, typer.Argument(help="A second one, to compare.")] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Only this layer; repeat for more.")
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(metavar="STEP", min=1, help="Compare the file before this step and from it."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Summarise a raster file, a line for each layer, or compare two."""
    from contextlib import ExitStack
    from os.path import realpath

    from srcsnn.errors import ConfigError
    from srcsnn.rasters import open_raster, summarize

    if other is not None and at is not None:
        raise ConfigError("--at compares two parts of one file; give it one file")
    if other is not None and realpath(other) == realpath(raster):
        raise ConfigError(f"{raster}: the two files to compare are one; --at compares its parts")
    with ExitStack() as stack:
        paths = [path for path in (raster, other) if path is not None]
        files = [stack.enter_context(open_raster(path)) for path in paths]
        if at is None:
            _check_layers(files, layer or ())
            found = {
                str(opened.path): summarize(
                    opened, None if layer is None else [name for name in layer if name in opened]
                )
                for opened in files
            }
        else:
            before, after = (summarize(files[0], layer, part) for part in _cut(files[0], at))
            found = {f"before {at}": before, f"from {at}": after}
        if json:
            of = files if at is None else files * 2
            described = [_described(*pair) for pair in zip(of, found.values(), strict=True)]
            say_json(described if len(described) > 1 else described[0])
            return
        for opened in files:
            say(_headline(opened))
    _tell(found)


def _check_layers(files: "list[Raster]", names: "Iterable[str]") -> None:
    """Raises ConfigError for a name that no file has."""
    from srcsnn.errors import ConfigError

    for name in names:
        if not any(name in opened for opened in files):
            there = "; ".join(f"{opened.path} has {', '.join(opened)}" for opened in files)
            raise ConfigError(f"no layer {name!r}; {there}")


def _cut(raster: "Raster", at: int) -> tuple[slice, slice]:
    """The recorded steps before a step of the run, and those from it."""
    from srcsnn.errors import ConfigError

    if counted := [name for name, layer in raster.items() if layer.counts_only]:
        raise ConfigError(
            f"--at: {raster.path} has no spikes of {counted[0]}, only its counts over all steps; "
            "record spikes to compare parts"
        )
    before = int((raster.steps < at).sum())
    if before == len(raster.steps):
        raise ConfigError(
            f"--at: {raster.path} has no step from {at}; its last is {raster.steps[-1]}"
        )
    return slice(before), slice(before, None)


def _described(raster: "Raster", layers: "list[LayerSummary]") -> dict[str, Any]:
    """What JSON can hold; Any for that."""
    from dataclasses import asdict

    return {
        "path": str(raster.path),
        "status": raster.status,
        "steps_valid": raster.steps_valid,
        "steps_planned": raster.steps_planned,
        "every": raster.every,
        "dt_s": raster.dt_s,
        "layers": [asdict(layer) for layer in layers],
    }


def _headline(raster: "Raster") -> str:
    planned = -(-raster.steps_planned // raster.every)
    every = f", one of {raster.every}" if raster.every > 1 else ""
    return f"{raster.path}: {raster.status}, {raster.steps_valid} of {planned} steps{every}"


def _tell(found: "dict[str, list[LayerSummary]]") -> None:
    from srcsnn.tables import raster_comparison, raster_table

    compared = len(found) > 1
    say(raster_comparison(found) if compared else raster_table(next(iter(found.values()))))
    for name, layers in found.items():
        for layer in layers:
            for warning in layer.warnings:
                say(f"warning: {name}: {warning}" if compared else f"warning: {warning}")
