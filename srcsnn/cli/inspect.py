"""`srcsnn inspect`."""

from typing import Annotated

import typer

from srcsnn.cli.console import say

EXAMPLES = "Example: srcsnn inspect run.h5"


def inspect(
    raster: Annotated[str, typer.Argument(help="A raster file that sleep recorded.")],
    json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Summarise a raster file, a line for each layer."""
    from dataclasses import asdict
    from json import dumps

    from srcsnn.rasters import open_raster, summarize
    from srcsnn.tables import raster_table

    with open_raster(raster) as opened:
        layers = summarize(opened)
        if json:
            print(dumps({"path": str(opened.path), "status": opened.status,
                         "steps_valid": opened.steps_valid, "steps_planned": opened.steps_planned,
                         "layers": [asdict(layer) for layer in layers]}, indent=2))  # fmt: skip
            return
        say(f"{opened.path}: {opened.status}, {opened.steps_valid} of {opened.steps_planned} steps")
        say(raster_table(layers))
        for layer in layers:
            for warning in layer.warnings:
                say(f"warning: {warning}")
