"""Pictures of a raster file: every layer over time, and where in its maps it fires.

Spikes are drawn as density images, never one object for each, so that a picture of 10^8 spikes is
as small as one of ten. Scales that can be compared are the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from srcsnn.drawing import COLOURS, LEAST, bare, halo, new_figure, shades, write_figure
from srcsnn.errors import RasterError
from srcsnn.rasters.density import density
from srcsnn.rasters.layer import LayerRaster
from srcsnn.rasters.reader import Raster

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

__all__ = ["map_figure", "raster_figure"]

LARGEST_FIGURE = 40
"""Layers in a figure."""

LARGEST_MAPS = 96
"""Channels of a layer in `map_figure`; of more, the busiest are shown."""

_HEIGHT, _WIDTH = 200, 640  # cells of a density image, about a pixel or two of the panel each
_BINS = 40
_WIDTH_IN, _HEIGHT_IN = 9.6, 10.0  # of a sheet of maps, in inches, at most
_TITLE = 125  # small letters in the line above a panel, of which a bold one takes the room of 1.5
_ACROSS = 8  # maps beside each other, at least, so that none is huge


def raster_figure(raster: Raster, path: str | Path, layers: Sequence[str] | None = None) -> None:
    """For each layer its raster, population rate on the same time axis, and histogram of rates.

    Args:
        raster: An open file.
        path: Where to write the figure; the suffix says the format (.png, .svg, .pdf).
        layers: Names; without it, all.

    Raises:
        ConfigError: If there is no such layer.
        RasterError: If the file is damaged.
        SrcsnnError: If the figure cannot be written.
    """
    chosen = _chosen(raster, layers)
    figure = new_figure(11, 0.5 + 2.9 * len(chosen))
    grid = figure.add_gridspec(
        2 * len(chosen), 3, height_ratios=[3, 1] * len(chosen), width_ratios=[12, 0.18, 3.4]
    )
    for index, layer in enumerate(chosen):
        _draw_layer(figure, grid, 2 * index, layer, raster.every)
    figure.suptitle(_caption(raster), fontsize=9, color="#555555", parse_math=False)
    write_figure(figure, path)


def map_figure(raster: Raster, path: str | Path, layers: Sequence[str] | None = None) -> None:
    """Firing rates where the neurons are: a map for each channel, one colour scale a layer.

    Args:
        raster: An open file.
        path: Where to write the figure; the suffix says the format (.png, .svg, .pdf).
        layers: Names; without it, all.

    Raises:
        ConfigError: If there is no such layer.
        RasterError: If the file is damaged.
        SrcsnnError: If the figure cannot be written.
    """
    chosen = _chosen(raster, layers)
    sheets = [_sheet(layer.rates()) for layer in chosen]
    wanted = [_WIDTH_IN * sheet.shape[0] / sheet.shape[1] for sheet, _ in sheets]
    heights = [0.6 + min(_HEIGHT_IN, max(0.6, height)) for height in wanted]
    figure = new_figure(11, 0.5 + sum(heights))
    grid = figure.add_gridspec(len(chosen), 1, height_ratios=heights)
    for index, (layer, (sheet, corners)) in enumerate(zip(chosen, sheets, strict=True)):
        panel = figure.add_subplot(grid[index])
        # Pixels are square where they are places, unless that would be a thread.
        square = len(layer.shape) > 2 and wanted[index] <= _HEIGHT_IN
        top = float(np.nanmax(sheet)) or 1.0
        image = panel.imshow(sheet, cmap=shades(), vmin=LEAST, vmax=top)
        panel.set_aspect("equal" if square else "auto")
        for channel, (y, x) in corners.items() if len(layer.shape) > 2 else ():
            panel.annotate(
                str(channel), (x - 0.5, y - 0.5), xytext=(1, -1), textcoords="offset points",
                va="top", fontsize=6, color="#0072B2", path_effects=halo(),
            )  # fmt: skip
        bare(panel, "top", "right", "bottom", "left")
        panel.set(xticks=[], yticks=[])
        _title(panel, layer, _channels_named(layer, len(corners)))
        figure.colorbar(image, ax=panel, pad=0.01, fraction=0.02, label="rate / step")
    figure.suptitle(_caption(raster), fontsize=9, color="#555555", parse_math=False)
    write_figure(figure, path)


def _chosen(raster: Raster, layers: Sequence[str] | None) -> list[LayerRaster]:
    """The layers to draw, in network order."""
    names = set(raster if layers is None else (raster[name].name for name in layers))
    if len(names) > LARGEST_FIGURE:
        raise RasterError(
            f"{raster.path}: {len(names)} layers are too many for a picture of at most "
            f"{LARGEST_FIGURE}; name some"
        )
    return [raster[name] for name in raster if name in names]


def _draw_layer(
    figure: "Figure", grid: "GridSpec", row: int, layer: LayerRaster, every: int
) -> None:
    raster = figure.add_subplot(grid[row, 0])
    colours = figure.add_subplot(grid[row, 1])
    population = figure.add_subplot(grid[row + 1, 0], sharex=raster)
    histogram = figure.add_subplot(grid[row : row + 2, 2])
    seen = density(layer, _HEIGHT, _WIDTH)
    fired = seen.rates[seen.rates > 0]
    channels = layer.shape[0] if len(layer.shape) > 1 else 1
    rows = channels if channels > 1 else layer.neurons
    image = raster.imshow(
        seen.rates, cmap=shades(), vmin=LEAST,
        vmax=np.quantile(fired, 0.99) if fired.size else 1,  # a few cells must not pale the rest
        aspect="auto", interpolation="nearest", extent=(0, layer.recorded * every, rows, 0),
    )  # fmt: skip
    raster.tick_params(labelbottom=False)
    raster.set_ylabel("channel" if channels > 1 else "neuron")
    raster.locator_params(integer=True)
    steps = seen.steps_per_column * every
    counted = "only counts recorded: a row is a channel or more; " if layer.counts_only else ""
    note = counted + (
        f"{layer.neurons:,} of {layer.neurons:,} neurons shown, {seen.neurons_per_row} a row, "
        f"{steps} step{'s' if steps > 1 else ''} a column{'' if fired.size else '; no spikes'}"
    )
    _title(raster, layer, note)
    bar = figure.colorbar(image, cax=colours, extend="max")
    bar.set_label("rate / step", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    _draw_population(population, layer, seen.steps_per_column, every)
    _draw_histogram(histogram, layer.neuron_counts().ravel(), layer.recorded)


def _draw_population(panel: "Axes", layer: LayerRaster, bin: int, every: int) -> None:
    counts = layer.population_counts()
    edges = np.arange(0, len(counts), bin)
    sizes = np.diff(np.append(edges, len(counts)))
    rates = np.add.reduceat(counts, edges) / sizes / layer.neurons
    panel.stairs(rates, np.append(edges, len(counts)) * every, fill=True, color=COLOURS[2])
    panel.set_ylim(0, rates.max() * 1.05 or 1)
    panel.set_ylabel("rate")
    panel.set_xlabel("step")
    bare(panel)


def _draw_histogram(panel: "Axes", spikes: npt.NDArray[np.int64], steps: int) -> None:
    """Neurons by firing rate; those that never fired stand apart, left of the axis."""
    width = max(1, -(-int(spikes.max()) // _BINS))  # a bin has whole numbers of spikes
    edges = np.arange(0.5, max(1, spikes.max()) + width, width)
    counts, _ = np.histogram(spikes, edges)
    top = edges[-1] / steps
    panel.stairs(counts, edges / steps, fill=True, color=COLOURS[2])
    silent = int((spikes == 0).sum())
    panel.bar(-0.09 * top, silent, 0.06 * top, color="#999999", hatch="////", edgecolor="white")
    panel.set_yscale("symlog", linthresh=1)
    panel.set_ylim(0, 2 * max(silent, counts.max(), 1))
    panel.set_xlim(-0.16 * top, 1.02 * top)
    ticks = [tick for tick in panel.get_xticks() if 0 <= tick <= top]
    names = ["silent", *(f"{tick:g}" for tick in ticks)]
    panel.set_xticks([-0.09 * top, *ticks], names, fontsize=8)
    panel.get_xticklabels()[0].set(rotation=90, va="top")
    panel.axvline(-0.03 * top, color="#999999", linewidth=0.8, linestyle=":")
    panel.set_title(f"{silent / spikes.size:.1%} silent".replace("%", " %"), fontsize=9)
    panel.set_ylabel("neurons")
    panel.set_xlabel("spikes / step")
    bare(panel)


def _sheet(
    rates: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], dict[int, tuple[int, int]]]:
    """The maps of a layer on one sheet, and where each shown channel has its upper left corner."""
    if rates.size == len(rates):  # a neuron a channel, and no maps
        return _strip(rates.ravel()), {}
    if rates.ndim == 2:  # a channel is a row of pixels
        rates = rates[:, None]
    if rates.ndim == 4:  # the slices of a volume beside each other
        rates = rates.transpose(0, 2, 1, 3).reshape(rates.shape[0], rates.shape[2], -1)
    busiest = np.argsort(-rates.sum(axis=(1, 2)), kind="stable")[:LARGEST_MAPS]
    shown = np.sort(busiest)
    height, width = rates.shape[1:]
    across = max(_ACROSS, round(np.sqrt(len(shown) * 4 * height / width))) if height > 1 else 1
    down = -(-len(shown) // across)
    gap = 1 + min(height, width) // 16 if height > 1 else 0
    sheet = np.full((down * (height + gap) - gap, across * (width + gap) - gap), np.nan)
    corners = {}
    for place, channel in enumerate(shown):
        y, x = place // across * (height + gap), place % across * (width + gap)
        sheet[y : y + height, x : x + width] = rates[channel]
        corners[int(channel)] = (y, x)
    return sheet, corners


def _strip(rates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Neurons without a place, in rows."""
    width = max(_ACROSS, int(np.ceil(np.sqrt(12 * rates.size))))
    rows = np.full(-(-rates.size // width) * width, np.nan)
    rows[: rates.size] = rates
    return rows.reshape(-1, width)


def _channels_named(layer: LayerRaster, shown: int) -> str:
    """How many maps are shown, the busiest and the quietest of them by number."""
    if not shown:
        return f"{layer.neurons:,} of {layer.neurons:,} neurons shown"
    totals = layer.neuron_counts().reshape(layer.shape[0], -1).sum(axis=1)
    order = np.argsort(-totals, kind="stable")
    note = f"{shown} of {layer.shape[0]} channels shown"
    if not totals.any():
        return f"{note}; no spikes"
    if len(order) < 2:
        return note
    few = min(3, len(order) // 2)
    busy, quiet = (", ".join(map(str, part)) for part in (order[:few], order[-few:][::-1]))
    return f"{note}; busiest {busy}; quietest {quiet}"


def _title(panel: "Axes", layer: LayerRaster, note: str) -> None:
    name = f"{layer.name}   {' x '.join(map(str, layer.shape))}"
    if 1.5 * len(name) + len(note) > _TITLE:
        name += "\n"  # above the note, not across it
    panel.set_title(name, loc="left", fontsize=10, fontweight="bold", parse_math=False)
    panel.set_title(note, loc="right", fontsize=8, color="#555555")


def _caption(raster: Raster) -> str:
    recorded = f"{raster.steps_valid:,} of {-(-raster.steps_planned // raster.every):,}"
    each = f"{1000 * raster.dt_s:g} ms each"
    if raster.every == 1:
        return f"{raster.name}: {raster.status}, {recorded} steps, {each}"
    sampled = f"one step of {raster.every} in {raster.steps_planned:,}, {each}"
    return f"{raster.name}: {raster.status}, {recorded} recorded, {sampled}"
