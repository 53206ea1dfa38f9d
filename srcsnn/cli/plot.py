"""`srcsnn plot`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcsnn.cli.console import Overwrite, say

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from srcsnn.rasters import Raster

EXAMPLES = (
    "Examples: srcsnn plot run.h5 -o night.png | srcsnn plot run.h5 --maps -o maps.png | "
    "srcsnn plot run.h5 --weights model.pt slept.pt -o weights.png"
)


def plot(
    raster: Annotated[str, typer.Argument(help="A raster file that sleep recorded.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The figure: a .png, .svg or .pdf.")
    ],
    layer: Annotated[
        list[str] | None, typer.Option(help="Only this layer; repeat for more.")
    ] = None,
    maps: Annotated[
        bool, typer.Option("--maps", help="Firing rates in the maps of each channel instead.")
    ] = False,
    weights: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="BEFORE AFTER",
            help="What sleep did to the weights of these layers instead: two checkpoints.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw a raster file: spikes, population rate and histogram of rates of each layer."""
    from srcsnn.drawing import check_figures
    from srcsnn.errors import ConfigError
    from srcsnn.figures import weight_figure
    from srcsnn.files import check_distinct, check_target
    from srcsnn.rasters import open_raster
    from srcsnn.rasters.figures import map_figure, raster_figure

    if maps and weights:
        raise ConfigError("--maps and --weights are two figures; ask for one")
    for read in (raster, *(weights or ())):
        check_distinct({"the figure": output}, read={"a file to read": read})
    check_figures(output)
    check_target(output, overwrite=overwrite, error=ConfigError)
    with open_raster(raster) as opened:
        if weights:
            before, after = (_weights(opened, layer, path) for path in weights)
            _check_shapes(before, after, weights)
            weight_figure(before, after, output)
        else:
            (map_figure if maps else raster_figure)(opened, output, layer)
    say(f"figure: {output}")


def _weights(
    raster: "Raster", layers: list[str] | None, path: str
) -> "dict[str, npt.NDArray[np.float64]]":
    """Weights in a checkpoint of the recorded layers that have some, by layer."""
    import numpy as np

    from srcsnn.checkpoints import load_checkpoint
    from srcsnn.errors import CheckpointError, ConfigError

    state = load_checkpoint(path).state_dict
    chosen = [raster[name] for name in (raster if layers is None else layers)]
    names = [layer.name for layer in chosen if layer.kind in ("conv", "linear")]
    if not names:
        raise ConfigError(f"{raster.path}: none of these layers has weights; name others")
    missing = [f"{name}.weight" for name in names if f"{name}.weight" not in state]
    if missing:
        raise CheckpointError(f"{path}: has no {', '.join(missing)}; is it of another network?")
    weights = {name: np.asarray(state[f"{name}.weight"].double()) for name in names}
    bad = [f"{name}.weight" for name, values in weights.items() if not np.isfinite(values).all()]
    if bad:
        raise CheckpointError(f"{path}: {', '.join(bad)}: has values that are not finite numbers")
    return weights


def _check_shapes(
    before: "dict[str, npt.NDArray[np.float64]]",
    after: "dict[str, npt.NDArray[np.float64]]",
    paths: tuple[str, str],
) -> None:
    from srcsnn.errors import CheckpointError

    for name, old in before.items():
        if old.shape != after[name].shape:
            raise CheckpointError(
                f"{name}.weight is {old.shape} in {paths[0]}, {after[name].shape} in {paths[1]}; "
                "give two states of one network"
            )
