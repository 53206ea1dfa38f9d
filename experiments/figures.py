"""The figures of the report; each has its trials and settings in the page that shows it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from experiments.attention import attention_maps
from experiments.results import Results
from experiments.study import Study
from srcsnn.distortions import DISTORTIONS
from srcsnn.noise import Noise

__all__ = [
    "accuracy_curves", "accuracy_heat_map", "attention_pictures", "example_images",
    "night_curves",
]  # fmt: skip

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
    columns = max(len(results.study.distortions) for results in studies)
    figure = Figure(figsize=(3.0 * columns, 2.9 * len(studies)), layout="constrained")
    axes = figure.subplots(len(studies), columns, sharey=True, squeeze=False)
    for results, line in zip(studies, axes, strict=True):
        names = list(results.study.distortions)
        for name, panel in zip(names, line, strict=False):
            _curves(results, name, panel)
        for panel in line[len(names) :]:
            panel.set_axis_off()
        line[0].set_ylabel("accuracy, %")
    axes[0][0].legend(frameon=False, fontsize=8, loc="lower left")
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
    counts = [len(results.trials(method)) for method in methods]
    rows = [
        f"{m} (n = {n})" if n < max(counts) else m for m, n in zip(methods, counts, strict=True)
    ]
    axes.set_yticks(range(len(methods)), rows, fontsize=8)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            colour = "white" if value < 55 else "black"
            axes.text(x, y, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_title(f"{results.study.data}: mean accuracy over the levels, %", fontsize=9)
    figure.savefig(path, dpi=130)


def night_curves(results: Results, path: Path) -> None:
    """Accuracy, firing rates and weight change on the way through a night, mean over trials."""
    nights = [r["result"]["snapshots"] for r in results.records("trajectory", "SRC")]
    steps = [snapshot["step"] for snapshot in nights[0]]

    def mean(*names: str, start: int = 0) -> list[float]:
        def value(snapshot: Any) -> float:  # noqa: ANN401  # JSON
            for name in names:
                snapshot = snapshot[name]
            return float(snapshot)

        return [fmean(value(n[i]) for n in nights) for i in range(start, len(steps))]

    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (colour, marker), label in (
        ("clean", _LINES["baseline"], "clean"),
        ("mean", _LINES["SRC"], "mean over distortions"),
    ):
        accuracy = [100 * each for each in mean(name)]
        left.plot(steps, accuracy, color=colour, marker=marker, markersize=3, label=label)
    left.set_ylabel("accuracy, %")
    right.set_ylabel("|dW| / |W|; spikes per step x 10")
    for layer, colour in zip(results.layers, ("#0072B2", "#009E73"), strict=False):
        change, rate = mean("change", layer, start=1), mean("rate", layer, start=1)
        right.plot(steps, [0.0, *change], color=colour, label=f"{layer}, change")
        tenfold = [10 * each for each in rate]
        right.plot(steps[1:], tenfold, color=colour, linestyle=":", label=f"{layer}, rate x 10")
    for panel in (left, right):
        panel.set_xlabel("time steps slept")
        panel.legend(frameon=False, fontsize=7)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{results.study.data}: a night, n = {len(nights)}", fontsize=9)
    figure.savefig(path, dpi=130)


def example_images(study: Study, image: Tensor, path: Path) -> None:
    """Figure 1: one image under every distortion at every level.

    Args:
        study: of the data set.
        image: (C, H, W) in [0, 1], the first test image.
        path: where to write it.
    """
    rows = len(study.distortions)
    columns = max(map(len, study.distortions.values())) + 1
    figure = Figure(figsize=(1.15 * columns, 1.25 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for line, (name, levels) in zip(axes, study.distortions.items(), strict=True):
        for panel, level in zip(line, (0.0, *levels), strict=True):
            worse = _distorted(image, name, level)
            _picture(panel, worse)
            panel.set_title("clean" if level == 0 else f"{level:g}", fontsize=8)
        line[0].set_ylabel(name.replace("-", " "), fontsize=8)
    figure.savefig(path, dpi=130)


def attention_pictures(
    study: Study,
    images: Tensor,
    labels: Tensor,
    networks: Mapping[str, nn.Module],
    layer: str,
    path: Path,
) -> None:
    """Figure 4: Grad-CAM of a layer, before and after sleep.

    Args:
        study: of the data set; the strongest level but two of each distortion is shown.
        images: (N, C, H, W) in [0, 1], a row of pictures for each.
        labels: (N,).
        networks: by the name of the method.
        layer: the last convolution's name.
        path: where to write it.
    """
    shown = [("clean", 0.0), *((name, levels[-3]) for name, levels in study.distortions.items())]
    columns = len(shown) * (1 + len(networks))
    figure = Figure(figsize=(1.1 * columns, 1.2 * len(images)), layout="constrained")
    axes = figure.subplots(len(images), columns, squeeze=False)
    for line, image, label in zip(axes, images, labels, strict=True):
        panels = iter(line)
        for name, level in shown:
            worse = image if level == 0 else _distorted(image, name, level)
            panel = next(panels)
            _picture(panel, worse)
            panel.set_title("clean" if level == 0 else f"{name}\n{level:g}", fontsize=6)
            for method, network in networks.items():
                found = attention_maps(network, layer, worse[None], label[None])[0]
                panel = next(panels)
                panel.imshow(found, cmap="inferno")
                panel.set_title(method, fontsize=6)
                panel.set_xticks([])
                panel.set_yticks([])
    figure.savefig(path, dpi=130)


def _distorted(image: Tensor, name: str, level: float) -> Tensor:
    if level == 0:
        return image
    return DISTORTIONS[name](image[None], level, Noise(0, name, level, range(1)))[0]


def _picture(panel: Axes, image: Tensor) -> None:
    grey = len(image) == 1
    panel.imshow(image[0] if grey else image.permute(1, 2, 0), cmap="gray" if grey else None,
                 vmin=0, vmax=1)  # fmt: skip
    panel.set_xticks([])
    panel.set_yticks([])
