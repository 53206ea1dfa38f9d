"""`srcsnn repair`."""

from pathlib import Path
from typing import Annotated

import typer

from srcsnn.cli.console import Overwrite, say

EXAMPLES = "Example: srcsnn repair run.h5.part"


def repair(
    raster: Annotated[
        Path, typer.Argument(help="What a killed run has left, or a damaged raster file.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write. Default: run.h5 of run.h5.part."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Save all whole steps of an interrupted or damaged raster file in a valid one."""
    from srcsnn.errors import ConfigError
    from srcsnn.files import check_distinct, check_target
    from srcsnn.rasters.checks import check_there
    from srcsnn.rasters.salvage import repair as run

    check_there(raster)
    if output is None and raster.suffix != ".part":
        raise ConfigError(f"{raster} does not end in .part; name the file to write with --output")
    target = raster.with_suffix("") if output is None else output
    check_distinct({"the file to write": target}, read={"the raster to read": str(raster)})
    check_target(target, overwrite=overwrite, error=ConfigError)
    saved = run(raster, target)
    if saved is None:
        say(f"{raster}: is valid and was closed; there is nothing to repair")
        return
    lost = f"; {saved.lost:,} were lost" if saved.lost else ""
    say(f"{target}: {saved.rows:,} steps saved{lost}, {saved.status}; {raster} is as it was")
