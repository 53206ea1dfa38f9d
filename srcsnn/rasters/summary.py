"""One line per layer: how much it fired, when, how evenly, and what looks wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srcsnn.rasters.layer import LayerRaster
from srcsnn.rasters.reader import Raster

SATURATED_RATE = 0.5
"""Spikes per step above which a neuron counts as saturated."""

SPARKLINE_WIDTH = 32
"""Characters of a sparkline, fewer if there are fewer steps."""

_BARS = "▁▂▃▄▅▆▇█"
_SATURATED_SHARE = 0.1
_SILENT_SHARE = 0.9
_QUIET_SHARE = 0.25
_QUIET_STEPS = 10


@dataclass(frozen=True)
class LayerSummary:
    """What a layer did, from its counts.

    Attributes:
        name: Qualified name in the network.
        kind: "input", "conv", "linear" or "sum".
        shape: Of one step.
        neurons: Number of neurons.
        steps: Number of recorded steps.
        spikes: Spikes of all neurons in all recorded steps.
        rate_mean: Spikes per neuron and recorded step, over neurons; the others likewise.
        rate_median: Median over neurons.
        rate_p95: 95th percentile over neurons.
        rate_max: Of the busiest neuron.
        silent_share: Share of neurons that never fired.
        saturated_share: Share of neurons that fired in more than half of the steps.
        population_cv: Standard deviation over mean of the population rate in time: how unevenly
            the layer fires; None without a spike.
        burst: Largest share of neurons that fired in one step.
        burst_step: Step number of the run where that was.
        trace: Population rate over time: means of up to 32 equal parts of the steps.
        sparkline: The same in Unicode blocks, from 0 to its largest value.
        stored_bytes: Size of the layer in the file.
        stored_ratio: That size over a bit per neuron and step.
        status: Of the file: "complete", or how it ended.
        warnings: What looks wrong, in words.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    neurons: int
    steps: int
    spikes: int
    rate_mean: float
    rate_median: float
    rate_p95: float
    rate_max: float
    silent_share: float
    saturated_share: float
    population_cv: float | None
    burst: float
    burst_step: int
    trace: tuple[float, ...]
    sparkline: str
    stored_bytes: int
    stored_ratio: float
    status: str
    warnings: tuple[str, ...]


def summarize(
    raster: Raster, layers: Sequence[str] | None = None, steps: slice | None = None
) -> list[LayerSummary]:
    """Summaries of layers in network order.

    Reads only the counts; of a part of the steps, and of a file that a killed run has left, the
    spikes too.

    Args:
        raster: An open file.
        layers: Names; without it, all.
        steps: Recorded steps; without it, all.

    Raises:
        ConfigError: If there is no such layer.
        RasterError: If there is no step in the part, only counts were recorded and a part is asked
            for, or the file is damaged.
    """
    chosen = list(raster) if layers is None else [raster[name].name for name in layers]
    return [_summarize(raster, raster[name], steps) for name in raster if name in chosen]


def trace(values: npt.NDArray[np.float64], parts: int = SPARKLINE_WIDTH) -> npt.NDArray[np.float64]:
    """Means of consecutive values, (parts,), or fewer if there are fewer values."""
    edges = np.linspace(0, len(values), min(parts, len(values)) + 1).astype(int)
    return np.asarray(np.add.reduceat(values, edges[:-1]) / np.diff(edges))


def sparkline(values: Sequence[float], top: float | None = None) -> str:
    """A character for each value: a dot for none, the lowest bar for the least that there is.

    Args:
        values: Not negative, at least one.
        top: Value of the full block; without it, the largest.
    """
    top = max(values) if top is None else top
    return "".join(
        _BARS[round(value / top * (len(_BARS) - 1))] if value > 0 else "·" for value in values
    )


def _summarize(raster: Raster, layer: LayerRaster, part: slice | None) -> LayerSummary:
    rates = layer.rates(part).ravel()
    covered = slice(None) if part is None else part
    steps, population = raster.steps[covered], layer.population_counts()[covered]
    peak = int(population.argmax())
    parts = tuple(trace(population / layer.neurons).tolist())
    raw_bytes = layer.neurons * len(steps) / 8
    return LayerSummary(
        name=layer.name,
        kind=layer.kind,
        shape=layer.shape,
        neurons=layer.neurons,
        steps=len(steps),
        spikes=int(population.sum()),
        rate_mean=float(rates.mean()),
        rate_median=float(np.median(rates)),
        rate_p95=float(np.percentile(rates, 95)),
        rate_max=float(rates.max()),
        silent_share=float(np.mean(rates == 0)),
        saturated_share=float(np.mean(rates > SATURATED_RATE)),
        population_cv=float(population.std() / population.mean()) if population.any() else None,
        burst=float(population[peak] / layer.neurons),
        burst_step=int(steps[peak]),
        trace=parts,
        sparkline=sparkline(parts),
        stored_bytes=layer.stored_bytes,
        stored_ratio=layer.stored_bytes / raw_bytes,
        status=raster.status,
        warnings=tuple(_warnings(layer, rates, population, steps)),
    )


def _warnings(
    layer: LayerRaster,
    rates: npt.NDArray[np.float64],
    population: npt.NDArray[np.int64],
    steps: npt.NDArray[np.int64],
) -> list[str]:
    fired = np.flatnonzero(population)
    if not len(fired):
        return [f"{layer.name}: 0 spikes in all {len(steps)} steps"]
    warnings = []
    quiet = len(steps) - 1 - int(fired[-1])
    if quiet >= max(_QUIET_STEPS, _QUIET_SHARE * len(steps)):
        warnings.append(f"{layer.name}: 0 spikes after step {steps[fired[-1]]}")
    if layer.kind == "input":  # images have bright and dark places
        return warnings
    saturated = float(np.mean(rates > SATURATED_RATE))
    if saturated >= _SATURATED_SHARE:
        share = f"{100 * saturated:.0f} %"
        warnings.append(f"{layer.name}: {share} of neurons fire in more than half of the steps")
    silent = float(np.mean(rates == 0))
    if silent >= _SILENT_SHARE:
        share = f"{silent:.1%}" if silent == 1 or silent < 0.9995 else "nearly all"
        warnings.append(f"{layer.name}: {share} of neurons never fired")
    return warnings
