"""Figures; matplotlib is imported when one is drawn."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from srcsnn.errors import SrcsnnError
from srcsnn.robustness import Robustness

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from srcsnn.tuning import Search

__all__ = ["accuracy_figure", "search_figure"]

# Okabe and Ito 2008: told apart with any colour vision.
_COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vPX"
_UNITS = {
    "gaussian-noise": "standard deviation",
    "gaussian-blur": "sigma, pixels",
    "salt-and-pepper": "share of pixels",
    "speckle": "standard deviation",
}


def accuracy_figure(
    results: Mapping[str, Robustness], path: str | Path, title: str | None = None
) -> None:
    """Accuracy against intensity, one panel for each distortion, one line for each network.

    Args:
        results: by the name that the legend shows.
        path: where to write it; the suffix says the format (.png, .svg, .pdf).
        title: above the panels.

    Raises:
        SrcsnnError: if the file cannot be written or its suffix is unknown.
    """
    from matplotlib.figure import Figure

    first = next(iter(results.values()))
    figure = Figure(figsize=(3.2 * len(first.distortions) + 0.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(first.distortions), sharey=True, squeeze=False)[0]
    for panel, distortion in zip(panels, first.distortions, strict=True):
        for index, (name, result) in enumerate(results.items()):
            cells = result.levels(distortion)
            panel.plot(
                [0.0, *(cell.level for cell in cells)],
                [100 * result.clean, *(100 * cell.accuracy for cell in cells)],
                color=_COLOURS[index % len(_COLOURS)],
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=4,
                linewidth=1.6,
                label=name,
            )
        panel.set_title(distortion.replace("-", " "), fontsize=10)
        panel.set_xlabel(_UNITS.get(distortion, "level"))
        panel.set_ylim(0, 100)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy, %")
    panels[0].legend(frameon=False, fontsize=9, loc="lower left")
    if title:
        figure.suptitle(title, fontsize=9)
    _write(figure, path)


def search_figure(search: "Search", path: str | Path) -> None:
    """What a search tried, in order: mean accuracy under distortions, and the best so far.

    Args:
        search: with one candidate or more.
        path: where to write it; the suffix says the format (.png, .svg, .pdf).

    Raises:
        SrcsnnError: if the file cannot be written or its suffix is unknown.
    """
    from matplotlib.figure import Figure

    floor = search.baseline.clean - search.clean_loss
    best, line = 0.0, []
    for candidate in search.candidates:
        best = max(best, candidate.mean if candidate.clean >= floor else 0.0)
        line.append(100 * best if best else float("nan"))
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    panel = figure.subplots()
    groups = (True, _COLOURS[2], "clean accuracy kept"), (False, "#BBBBBB", "clean accuracy lost")
    for kept, colour, label in groups:
        found = [
            (number, 100 * candidate.mean)
            for number, candidate in enumerate(search.candidates, 1)
            if (candidate.clean >= floor) == kept
        ]
        numbers, means = [number for number, _ in found], [mean for _, mean in found]
        panel.scatter(numbers, means, s=9, c=colour, label=label)
    panel.plot(range(1, len(line) + 1), line, color=_COLOURS[1], linewidth=1.6, label="best so far")
    panel.axhline(
        100 * search.baseline.mean(), color=_COLOURS[0], linestyle="--", linewidth=1,
        label="before sleep",
    )  # fmt: skip
    panel.set_xlabel("settings tried")
    panel.set_ylabel("mean accuracy under distortions, %")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    _write(figure, path)


def _write(figure: "Figure", path: str | Path) -> None:
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as cause:
        raise SrcsnnError(f"cannot write the figure {path}: {cause}") from cause
