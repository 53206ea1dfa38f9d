"""Figures; matplotlib is imported when one is drawn."""

from collections.abc import Mapping
from pathlib import Path

from srcsnn.errors import SrcsnnError
from srcsnn.robustness import Robustness

__all__ = ["accuracy_figure"]

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
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as cause:
        raise SrcsnnError(f"cannot write the figure {path}: {cause}") from cause
