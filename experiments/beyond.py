"""Beyond the paper: variants of sleep, and the search that found some of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from experiments.results import Results, difference
from experiments.study import CONFIGS
from srcsnn.config import load_config

__all__ = ["search_figure", "variant_lines"]


def variant_lines(results: Results) -> Iterator[str]:
    """A table with the settings, gains and rates of every variant, published settings first."""
    yield "| sleep | layers | neuron | clean | mean gain | 95 % interval | gained | rate | change |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for method in ("SRC", "SRC+FFF", *results.variants):
        if not results.trials(method):
            continue
        clean = difference(results.clean(method), results.clean("baseline"))
        gain = difference(results.mean(method), results.mean("baseline"))
        interval = "" if gain.low is None else f"{gain.low:+.2f} to {gain.high:+.2f}"
        yield (
            f"| {method} | {_settings(results, method)} | {clean.mean:+.2f} | {gain.mean:+.2f} "
            f"| {interval} | {gain.won} of {gain.n} | {_layers(results, method)} |"
        )


def _settings(results: Results, method: str) -> str:
    name = method.removesuffix("+FFF").removeprefix("SRC").removeprefix("-")
    data = results.study.data
    config = load_config(CONFIGS / data / f"{name}.toml" if name else results.study.config)
    layers = config.layers if isinstance(config.layers, str) else ", ".join(config.layers)
    return f"{layers} | {config.neuron.rpartition(':')[2].lower()}"


def _layers(results: Results, method: str) -> str:
    """Spikes per neuron and step, and relative weight change, of each layer; means over trials."""
    nights = [
        record["result"]["layers"] for record in results.networks(method.removesuffix("+FFF"))
    ]
    columns = []
    for what in ("rate", "change"):
        means = (fmean(layer[what] for layer in layers) for layers in zip(*nights, strict=True))
        columns.append(", ".join(f"{mean:.2g}" for mean in means))
    return " | ".join(columns)


def search_figure(found: Path, path: Path, title: str) -> None:
    """Draws all candidates of a search: mean against clean accuracy, and the best as it goes on.

    Args:
        found: what `experiments search` wrote beside the ledgers.
        path: where to write the figure.
        title: of the figure.
    """
    search: dict[str, Any] = json.loads(found.read_text("utf-8"))  # Any: JSON
    candidates, baseline = search["candidates"], search["baseline"]
    clean = [100 * each["clean"] for each in candidates]
    mean = [100 * each["mean"] for each in candidates]
    floor = 100 * (baseline["clean"] - search["clean_loss"])
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    order = left.scatter(clean, mean, c=range(len(mean)), cmap="cividis", s=14)
    figure.colorbar(order, ax=left, label="candidate")
    left.axvline(floor, color="#D55E00", linewidth=1, linestyle="--")
    left.set_xlabel("clean accuracy, % (dashed: the least allowed)")
    left.set_ylabel("mean over distortions, %")
    best: list[float] = []
    for kept, value in zip((each >= floor for each in clean), mean, strict=True):
        best.append(max([*best[-1:], *([value] if kept else [])], default=float("nan")))
    right.plot(mean, ".", color="#999999", markersize=4, label="candidate")
    right.plot(best, color="#0072B2", label="best that is allowed")
    right.axhline(100 * baseline["mean"], color="black", linewidth=1, linestyle=":",
                  label="before sleep")  # fmt: skip
    right.set_xlabel("candidates tried")
    right.legend(framealpha=0.9, edgecolor="none", fontsize=8, loc="lower right")
    for panel in (left, right):
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130)
