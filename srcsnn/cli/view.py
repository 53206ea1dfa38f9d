"""`srcsnn view`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcsnn.cli.console import Overwrite, say

if TYPE_CHECKING:
    from srcsnn.rasters import Raster

EXAMPLES = "Examples: srcsnn view run.h5 | srcsnn view run.h5 --serve"


def view(
    raster: Annotated[str, typer.Argument(help="A raster file that sleep recorded.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page. Default: beside the file, as .html."),
    ] = None,
    budget: Annotated[
        float,
        typer.Option(metavar="MB", min=0, max=1e6, help="Spikes in the page; of the rest, counts."),
    ] = 25.0,
    window: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIRST:LAST", help="Steps whose spikes go into the page; repeat for more."
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page and any spikes of the file instead.")
    ] = False,
    port: Annotated[int, typer.Option(help="For --serve; 0 is any.", min=0, max=65535)] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Make a page that shows a raster file in any browser, without a network."""
    from srcsnn.errors import ConfigError
    from srcsnn.files import check_distinct, check_target, replacing
    from srcsnn.rasters import open_raster
    from srcsnn.rasters.viewer import serve as run
    from srcsnn.rasters.viewer import write_page

    if serve:
        if output or window:
            raise ConfigError("--serve writes no page; leave --output and --window out")
        with open_raster(raster) as opened:
            run(opened, port, lambda address: say(f"{opened.path}: {address} (Ctrl-C ends it)"))
        return
    with open_raster(raster) as opened:
        page = opened.path.with_suffix(".html") if output is None else output
        check_distinct({"the page": page}, read={"the raster to read": raster})
        check_target(page, overwrite=overwrite, error=ConfigError)
        windows = None if window is None else [_part(text, opened) for text in window]
        with replacing(page) as place, place.open("xb") as file:
            made = write_page(opened, file, int(budget * 1e6), windows)
        say(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
        if all(each.counts_only for each in opened.values()):
            say("only counts were recorded, so that the page shows channels, not spikes")
        elif made.steps < made.of:
            say(
                f"spikes of {made.steps} of {made.of} steps are in the page, of the rest counts; "
                "for more: --budget, --window, or --serve"
            )


def _part(text: str, raster: "Raster") -> slice:
    """Recorded steps between two steps of the run."""
    import numpy as np

    from srcsnn.errors import ConfigError

    try:
        first, last = (int(number) for number in text.split(":"))
    except ValueError as cause:
        raise ConfigError(f"--window {text}: right would be two steps, such as 100:200") from cause
    start, stop = (int(at) for at in np.searchsorted(raster.steps, [first, last]))
    if first < 0 or start >= stop:
        raise ConfigError(
            f"--window {text}: holds no recorded step; they go from 0 to {raster.steps[-1]}"
        )
    return slice(start, stop)
