"""`srcsnn export-raster`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from srcsnn.cli.console import Overwrite, progress, say

EXAMPLES = (
    "Examples: srcsnn export-raster run.h5 -o run.nwb "
    "| srcsnn export-raster run.h5 -o fc1.npz --layer fc1"
)


def export_raster(
    raster: Annotated[str, typer.Argument(help="A raster file that sleep recorded.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o",
            help="The file to write: .nwb, .sonata.h5, or .npz for SciPy. An .npz holds one layer; "
            "of several layers, OUT.npz becomes OUT.LAYER.npz for each.",
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(help="The format, if the suffix does not say it: nwb, sonata or csr."),
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Only this layer; repeat for more.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:  # fmt: skip
    """Write a raster file for other tools: NWB, SONATA, or sparse matrices for SciPy."""
    from srcsnn.errors import ConfigError
    from srcsnn.files import check_distinct, check_target
    from srcsnn.rasters import open_raster
    from srcsnn.rasters.exporters import plan_exports

    with open_raster(raster) as opened:
        exports = plan_exports(opened, output, to, layer)
        for export in exports:
            check_distinct({"the file to write": export.path}, read={"the raster to read": raster})
            check_target(export.path, overwrite=overwrite, error=ConfigError)
        for export in exports:
            megabytes = export.bytes / 1e6
            size = f"{export.spikes:,} spikes, about {megabytes:,.1f} MB: {export.path}"
            print(size, file=sys.stderr)
            with progress(f"writing {export.path}"):
                export.write()
            say(f"written: {export.path}")
