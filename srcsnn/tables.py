"""Tables for the terminal."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from srcsnn.rasters import LayerSummary
from srcsnn.rasters.summary import sparkline

if TYPE_CHECKING:  # these bring torch along, which `inspect` does without
    from converters import SpikingNetwork
    from srcsnn.report import Report
    from srcsnn.robustness import Robustness
    from srcsnn.verification import Verification

__all__ = [
    "raster_comparison",
    "raster_table",
    "report_table",
    "robustness_table",
    "units_table",
    "verification_table",
]

_LONG_NUMBER = re.compile(r"\d+\.\d{4,}(e[-+]\d+)?")


def robustness_table(results: "Mapping[str, Robustness]") -> Table:
    """Accuracies in percent, a column each; from the second on with the difference to the first."""
    from srcsnn.robustness import CLEAN

    table = Table(title="accuracy, %")
    table.add_column("distortion")
    table.add_column("level", justify="right")
    for name in results:
        table.add_column(name, justify="right")
    first, *others = results.values()

    def add(name: str, level: str, accuracies: Sequence[float], *, end: bool = False) -> None:
        base, *rest = accuracies
        cells = [f"{base:.2%}"[:-1]] + [f"{a:.2%}"[:-1] + f" {100 * (a - base):+.2f}" for a in rest]
        table.add_row(name, level, *cells, end_section=end)

    add(CLEAN, "0", [result.clean for result in results.values()], end=True)
    for distortion in first.distortions:
        for cells in zip(*(r.levels(distortion) for r in results.values()), strict=True):
            add(distortion, f"{cells[0].level:g}", [cell.accuracy for cell in cells])
        add("", "mean", [result.mean(distortion) for result in results.values()], end=True)
    add("mean", "", [result.mean() for result in (first, *others)])
    return table


def report_table(report: "Report") -> Table:
    """A night's report, a row for each layer."""
    table = _with_columns(
        Table(title="sleep"),
        "layer", "neurons", "rate /step", "rate Hz", "silent", "saturated", "|dW|/|W|",
    )  # fmt: skip
    for layer in report.layers:
        table.add_row(
            layer.name + ("" if layer.sleeps else " (fixed)"),
            f"{layer.neurons:,}",
            f"{layer.rate:.4f}",
            f"{layer.rate_hz:.2f}",
            f"{layer.silent:.1%}",
            f"{layer.saturated:.1%}",
            f"{layer.change:.4f}",
        )
    return table


def units_table(snn: "SpikingNetwork", shapes: Mapping[str, tuple[int, ...]]) -> Table:
    """The spiking layers of a network, a row each."""
    table = _with_columns(
        Table(title="spiking layers"),
        "layer", "weights", "neurons", "lambda", "alpha", "neuron model", "sleeps",
    )  # fmt: skip
    for unit in snn.units:
        table.add_row(
            unit.name,
            " x ".join(map(str, unit.synapse.weight.shape)),
            " x ".join(map(str, shapes[unit.layer.name])),
            f"{unit.largest:.4g}",
            f"{unit.alpha:.4g}",
            _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.4g}", repr(unit.neurons.neuron)),
            "yes" if unit.sleeps else "no",
        )
    return table


def verification_table(found: "Verification") -> Table:
    """A spiking network beside its CNN, a row for each layer."""
    table = _with_columns(
        Table(title=f"{found.images} images, {found.steps} steps each"),
        "layer", "neurons", "rate ~ activation", "dead", "saturated",
    )  # fmt: skip
    for layer in found.layers:
        table.add_row(
            layer.name,
            f"{layer.neurons:,}",
            f"{layer.correlation:.3f}",
            f"{layer.dead:.1%}",
            f"{layer.saturated:.1%}",
        )
    return table


def raster_table(layers: Sequence[LayerSummary]) -> Table:
    """The summary of a raster file, a row for each layer."""
    table = _raster_columns("layer", "shape", "neurons", "spikes", *_RATES, "on disk")
    for layer in layers:
        table.add_row(
            layer.name,
            "x".join(map(str, layer.shape)),
            f"{layer.neurons:,}",
            f"{layer.spikes:,}",
            *_rate_cells(layer, top=max(layer.trace)),
            f"{layer.stored_bytes / 1e6:.2f} MB",
        )
    return table


def raster_comparison(summaries: Mapping[str, Sequence[LayerSummary]]) -> Table:
    """Summaries of files, or parts of one, beside each other; the traces of a layer on one scale.

    Args:
        summaries: By the name to show.
    """
    table = _raster_columns("layer", "of", "spikes", *_RATES)
    by_layer: dict[str, dict[str, LayerSummary]] = {}
    for of, layers in summaries.items():
        for layer in layers:
            by_layer.setdefault(layer.name, {})[of] = layer
    for name, found in by_layer.items():
        top = max(max(layer.trace) for layer in found.values())
        for of in summaries:
            cells = ["not recorded"]
            if of in found:
                cells = [f"{found[of].spikes:,}", *_rate_cells(found[of], top)]
            table.add_row(name if of == next(iter(summaries)) else "", of, *cells)
        table.add_section()
    return table


_RATES = ("mean", "median", "95 %", "max", "silent", "saturated", "burst", "CV", "population rate")


_WORDS = ("layer", "of", "shape", "weights", "neuron model", "sleeps", "population rate")


def _raster_columns(*headings: str) -> Table:
    return _with_columns(Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0)), *headings)


def _with_columns(table: Table, *headings: str) -> Table:
    """Adds columns, numbers to the right; a name too long for its column goes on below."""
    for heading in headings:
        table.add_column(
            heading,
            justify="left" if heading in _WORDS else "right",
            overflow="fold",
            no_wrap=heading == "population rate",
        )
    return table


def _rate_cells(layer: LayerSummary, top: float) -> list[str]:
    return [
        *(f"{r:.4f}" for r in (layer.rate_mean, layer.rate_median, layer.rate_p95, layer.rate_max)),
        f"{layer.silent_share:.1%}",
        f"{layer.saturated_share:.1%}",
        f"{layer.burst:.4f}",
        "-" if layer.population_cv is None else f"{layer.population_cv:.2f}",
        sparkline(layer.trace, top),
    ]
