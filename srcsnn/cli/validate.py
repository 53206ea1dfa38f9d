"""`srcsnn validate`."""

from typing import Annotated

import typer

from srcsnn.cli.console import say

EXAMPLES = "Example: srcsnn validate run.h5"


def validate(
    raster: Annotated[str, typer.Argument(help="A raster file, or the .part of one.")],
    json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Check a raster file against the written format, its contents too; list all that is wrong."""
    from dataclasses import asdict
    from json import dumps

    from srcsnn.rasters.validation import validate as run

    found = run(raster)
    if json:
        print(dumps({"path": raster} | asdict(found), indent=2))
    elif not found.violations:
        version = ".".join(map(str, found.version))
        say(f"{raster}: valid, format {version}, {found.layers} layers, {found.rows} steps")
    else:
        for violation in found.violations:
            say(f"{raster}: {violation}")
    if found.violations:
        raise typer.Exit(1)
