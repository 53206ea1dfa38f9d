"""The figures of the report; each has its trials and settings in the page that shows it."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.results import Results

__all__ = ["accuracy_curves", "accuracy_heat_map"]

# Okabe and Ito 2008: told apart with any colour vision.
_LINES = {
    "baseline": ("#000000", "o"),
    "SRC": ("#D55E00", "s"),
    "SRC+FFF": ("#0072B2", "D"),
}
_UNITS = {
    "gaussian-noise": "standard deviation",
    "gaussian-blur": "sigma, pixels",
    "salt-and-pepper": "share of pixels",
    "speckle": "standard deviation",
}


def accuracy_curves(studies: Sequence[Results], path: Path) -> None:
    """Figure 2: accuracy against intensity, mean and standard deviation over the trials."""
    panels = [(results, name) for results in studies for name in results.study.distortions]
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.0 * columns, 2.9 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for (results, distortion), panel in zip(panels, axes, strict=False):
        _curves(results, distortion, panel)
    for panel in axes[len(panels) :]:
        panel.set_axis_off()
    first = figure.axes[0]
    first.legend(frameon=False, fontsize=8, loc="lower left")
    for panel in figure.axes[::columns]:
        panel.set_ylabel("accuracy, %")
    figure.savefig(path, dpi=130)


def _curves(results: Results, distortion: str, panel: Axes) -> None:
    levels = (0.0, *results.study.distortions[distortion])
    for method, (colour, marker) in _LINES.items():
        if method not in results.methods:
            continue
        columns = [results.clean(method), *(
            results.accuracy(method, distortion, level) for level in levels[1:]
        )]  # fmt: skip
        means = [fmean(column.values()) for column in columns]
        stds = [pstdev(column.values()) for column in columns]
        low = [m - s for m, s in zip(means, stds, strict=True)]
        high = [m + s for m, s in zip(means, stds, strict=True)]
        panel.fill_between(levels, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.plot(levels, means, color=colour, marker=marker, markersize=4, label=method)
    n = len(results.trials("baseline"))
    panel.set_title(f"{results.study.data}: {distortion.replace('-', ' ')} (n = {n})", fontsize=9)
    panel.set_xlabel(_UNITS[distortion], fontsize=8)
    panel.set_ylim(0, 100)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def accuracy_heat_map(results: Results, path: Path) -> None:
    """Figure 3: mean accuracy of each method on each distortion."""
    methods = results.methods
    columns = ["clean", *results.study.distortions, "mean"]
    values = [
        [
            fmean(results.clean(method).values()),
            *(fmean(results.mean(method, name).values()) for name in results.study.distortions),
            fmean(results.mean(method).values()),
        ]
        for method in methods
    ]
    figure = Figure(figsize=(1.35 * len(columns) + 1.6, 0.45 * len(methods) + 1.2),
                    layout="constrained")  # fmt: skip
    axes = figure.subplots()
    axes.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(columns)), [name.replace("-", " ") for name in columns], fontsize=8)
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            colour = "white" if value < 55 else "black"
            axes.text(x, y, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_title(f"{results.study.data}: mean accuracy over the levels, %", fontsize=9)
    figure.savefig(path, dpi=130)
