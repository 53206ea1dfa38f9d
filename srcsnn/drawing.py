"""What all figures share: colours that everybody can tell apart, and the way to a file.

Matplotlib is an extra and is imported when a figure is begun.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from srcsnn.errors import ConfigError, SrcsnnError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.patheffects import AbstractPathEffect

__all__ = [
    "COLOURS", "LEAST", "bare", "check_figures", "halo", "new_figure", "shades", "write_figure",
]  # fmt: skip

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito 2008: told apart with any colour vision."""

LEAST = 1e-12
"""Where a scale of `shades` begins."""

_SUFFIXES = (".png", ".svg", ".pdf")


def check_figures(*paths: str | Path) -> None:
    """Says now what drawing would say later; call it before work that takes long.

    Raises:
        ConfigError: if Matplotlib is missing, or no figure can have such a name.
    """
    for path in paths:
        if Path(path).suffix.lower() not in _SUFFIXES:
            raise ConfigError(f"{path}: the name of a figure ends in .png, .svg or .pdf")
    new_figure(1, 1)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of some inches that lays out its panels itself.

    Raises:
        ConfigError: if Matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as cause:
        raise ConfigError('figures need Matplotlib: pip install "srcsnn[figures]"') from cause
    return Figure(figsize=(width, height), layout="constrained")


def bare(panel: "Axes", *sides: str) -> None:
    """Takes the frame away, at the top and the right if no sides are named."""
    panel.spines[list(sides or ("top", "right"))].set_visible(False)


def shades() -> "Colormap":
    """From light to dark in even steps of lightness, for any colour vision.

    Grey below the scale, which with a scale from `LEAST` on is nothing at all; white for NaN.
    """
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    steps = [colormaps["magma_r"](0.12 + 0.88 * step / 255) for step in range(256)]
    shades = LinearSegmentedColormap.from_list("shades", steps)
    return shades.with_extremes(under="#F1F1F1", bad="white")


def halo() -> "list[AbstractPathEffect]":
    """For words that lie on cells of any colour: white around the letters."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.5, foreground="white")]


def write_figure(figure: "Figure", path: str | Path) -> None:
    """Writes a figure; the suffix says the format.

    Raises:
        SrcsnnError: if the file cannot be written or its suffix is unknown.
    """
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as cause:
        raise SrcsnnError(f"cannot write the figure {path}: {cause}") from cause
