"""Figures of networks, of their weights, and of searches."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from srcsnn.drawing import COLOURS, bare, new_figure, shades, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from srcsnn.robustness import Robustness
    from srcsnn.tuning import Search

__all__ = ["accuracy_figure", "search_figure", "weight_figure"]

Weights = npt.NDArray[np.floating[Any]]

_MARKERS = "osD^vPX"
_LARGEST_SHEET = 24  # filters down and across
_LARGEST_MATRIX = 256
_UNITS = {
    "gaussian-noise": "standard deviation",
    "gaussian-blur": "sigma, pixels",
    "salt-and-pepper": "share of pixels",
    "speckle": "standard deviation",
}


def accuracy_figure(
    results: "Mapping[str, Robustness]", path: str | Path, title: str | None = None
) -> None:
    """Accuracy against intensity, one panel for each distortion, one line for each network.

    Args:
        results: by the name that the legend shows.
        path: where to write it; the suffix says the format (.png, .svg, .pdf).
        title: above the panels.

    Raises:
        SrcsnnError: if the file cannot be written, its suffix is unknown, or Matplotlib missing.
    """
    first = next(iter(results.values()))
    figure = new_figure(3.2 * len(first.distortions) + 0.6, 3.4)
    panels = figure.subplots(1, len(first.distortions), sharey=True, squeeze=False)[0]
    for panel, distortion in zip(panels, first.distortions, strict=True):
        for index, (name, result) in enumerate(results.items()):
            cells = result.levels(distortion)
            panel.plot(
                [0.0, *(cell.level for cell in cells)],
                [100 * result.clean, *(100 * cell.accuracy for cell in cells)],
                color=COLOURS[index % len(COLOURS)],
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=4,
                linewidth=1.6,
                label=name,
            )
        panel.set_title(distortion.replace("-", " "), fontsize=10)
        panel.set_xlabel(_UNITS.get(distortion, "level"))
        panel.set_ylim(0, 100)
        panel.grid(alpha=0.25)
        bare(panel)
    panels[0].set_ylabel("accuracy, %")
    for text in panels[0].legend(frameon=False, fontsize=9, loc="lower left").get_texts():
        text.set_parse_math(False)  # a path may have dollars in it
    if title:
        figure.suptitle(title, fontsize=9, parse_math=False)
    write_figure(figure, path)


def search_figure(search: "Search", path: str | Path) -> None:
    """What a search tried, in order: mean accuracy under distortions, and the best so far.

    Settings whose mean was not measured, as they lose too much clean accuracy, are ticks below.

    Args:
        search: with one candidate or more.
        path: where to write it; the suffix says the format (.png, .svg, .pdf).

    Raises:
        SrcsnnError: if the file cannot be written, its suffix is unknown, or Matplotlib missing.
    """
    floor = search.baseline.clean - search.clean_loss
    best, line = 0.0, []
    for candidate in search.candidates:
        best = max(best, candidate.mean if candidate.clean >= floor else 0.0)
        line.append(100 * best if best else float("nan"))
    figure = new_figure(7, 3.6)
    panel = figure.subplots()
    groups = (True, COLOURS[2], "clean accuracy kept"), (False, "#BBBBBB", "clean accuracy lost")
    for kept, colour, label in groups:
        found = [
            (number, 100 * candidate.mean)
            for number, candidate in enumerate(search.candidates, 1)
            if candidate.mean and (candidate.clean >= floor) == kept
        ]
        numbers, means = [number for number, _ in found], [mean for _, mean in found]
        panel.scatter(numbers, means, s=9, c=colour, label=label)
    lost = [number for number, each in enumerate(search.candidates, 1) if not each.mean]
    bottom = panel.get_xaxis_transform()
    panel.scatter(lost, [0.02] * len(lost), s=25, c="#BBBBBB", marker="|", transform=bottom)
    panel.plot(
        range(1, len(line) + 1), line, color=COLOURS[1], linewidth=1.6,
        drawstyle="steps-post", label="best so far",
    )  # fmt: skip
    panel.axhline(
        100 * search.baseline.mean(), color=COLOURS[0], linestyle="--", linewidth=1,
        label="before sleep",
    )  # fmt: skip
    panel.set_xlabel("settings tried")
    panel.set_ylabel("mean accuracy under distortions, %")
    bare(panel)
    panel.grid(alpha=0.25)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    write_figure(figure, path)


def weight_figure(
    before: Mapping[str, Weights],
    after: Mapping[str, Weights],
    path: str | Path,
) -> None:
    """What sleep did to the weights of each layer, before and after on the same scale.

    A row of five panels a layer: filters before, after and their difference, as sheets with an
    output channel a row of tiles and an input channel a column; the histogram of the change; and
    the change against the weight before, as a density.

    Args:
        before: weights (outputs, inputs, *kernel) by the name of their layer.
        after: of the same layers, of the same shapes.
        path: where to write it; the suffix says the format (.png, .svg, .pdf).

    Raises:
        SrcsnnError: if the file cannot be written, its suffix is unknown, or Matplotlib missing.
    """
    figure = new_figure(15, 0.4 + 3.1 * len(before))
    grid = figure.subplots(len(before), 5, squeeze=False)
    for panels, (name, old) in zip(grid, before.items(), strict=True):
        change = after[name] - old
        scale = float(max(abs(old).max(), abs(after[name]).max())) or 1.0
        difference = float(abs(change).max()) or 1.0
        sheets = {"before": (old, scale), "after": (after[name], scale)}
        sheets["difference"] = change, difference
        for panel, (what, (weights, limit)) in zip(panels, sheets.items(), strict=False):
            sheet, shown = _filters(weights)
            image = panel.imshow(sheet, cmap="PuOr_r", vmin=-limit, vmax=limit)
            panel.set(xticks=[], yticks=[])
            panel.set_title(f"{name} {what}\n{shown}", fontsize=8, parse_math=False)
            bar = figure.colorbar(image, ax=panel, fraction=0.05, pad=0.02)
            bar.ax.tick_params(labelsize=7)
        _change_histogram(panels[3], change)
        _change_against_weight(figure, panels[4], old, change)
    write_figure(figure, path)


def _filters(weights: Weights) -> tuple[Weights, str]:
    """Filters on one sheet, with gaps between kernels, and how many are on it, in words."""
    outputs, inputs = weights.shape[:2]
    if weights.ndim == 2:
        return weights[:_LARGEST_MATRIX, :_LARGEST_MATRIX], (
            f"{min(outputs, _LARGEST_MATRIX)} of {outputs} x "
            f"{min(inputs, _LARGEST_MATRIX)} of {inputs} shown"
        )
    shown = weights[:_LARGEST_SHEET, :_LARGEST_SHEET]
    kernels = shown.reshape(*shown.shape[:2], -1, shown.shape[-1])
    tiles = np.pad(kernels, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    rows, columns, height, width = tiles.shape
    if inputs == 1:  # no column of tiles but a square of them
        across = math.ceil(math.sqrt(rows))
        more = np.full((-rows % across, 1, height, width), np.nan)
        tiles = np.concatenate([tiles, more]).reshape(-1, across, height, width)
    down, across = tiles.shape[:2]
    sheet = tiles.transpose(0, 2, 1, 3).reshape(down * height, across * width)
    told = f"{rows} of {outputs} filters shown, {columns} of {inputs} channels of each"
    return sheet[:-1, :-1], told


def _change_histogram(panel: "Axes", change: Weights) -> None:
    limit = float(abs(change).max())
    if limit == 0:
        panel.text(0.5, 0.5, "no weight changed", ha="center", transform=panel.transAxes)
    counts, edges = np.histogram(change, 60, (-(limit or 1), limit or 1))
    panel.stairs(counts, edges, fill=True, color=COLOURS[2])
    panel.set_yscale("symlog", linthresh=1)
    panel.set_ylim(0, 2 * counts.max())
    panel.set_title(f"change: mean {change.mean():.2g}, sd {change.std():.2g}", fontsize=8)
    panel.set_xlabel("dW")
    panel.locator_params("x", nbins=4)
    panel.set_ylabel("weights")
    bare(panel)


def _change_against_weight(
    figure: "Figure",
    panel: "Axes",
    old: Weights,
    change: Weights,
) -> None:
    limits = [(float(x.min()), float(x.max())) for x in (old, change)]
    limits = [(low, high) if low < high else (low - 1, high + 1) for low, high in limits]
    counts, _, _ = np.histogram2d(old.ravel(), change.ravel(), 60, limits)
    image = panel.imshow(
        np.where(counts > 0, counts, np.nan).T, origin="lower", aspect="auto", cmap=shades(),
        norm="log", extent=(*limits[0], *limits[1]),
    )  # fmt: skip
    figure.colorbar(image, ax=panel, fraction=0.05, pad=0.02, label="weights")
    panel.axhline(0, color="#999999", linewidth=0.6)
    panel.axvline(0, color="#999999", linewidth=0.6)
    panel.set_title("change against weight before", fontsize=8)
    panel.set_xlabel("W before")
    panel.set_ylabel("dW")
    bare(panel)
