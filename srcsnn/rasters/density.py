"""A layer's spikes as a picture: firing rates in cells of some neurons and some steps."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from srcsnn.rasters.layer import LayerRaster
from srcsnn.rasters.layout import channels_of

_BYTES_AT_ONCE = 16 * 1024**2


@dataclass(frozen=True)
class Density:
    """How often the neurons of a cell fired in its steps.

    Attributes:
        rates: Spikes per neuron and recorded step, in [0, 1], (rows, columns): neurons in C order
            from the top, time to the right. Cells at the lower and the right edge may be smaller.
        neurons_per_row: Neurons in a cell.
        steps_per_column: Recorded steps in a cell.
    """

    rates: npt.NDArray[np.float64]
    neurons_per_row: int
    steps_per_column: int


def density(layer: LayerRaster, height: int, width: int) -> Density:
    """The raster of a layer in at most height x width cells; all neurons and steps are in it.

    Where only counts were recorded, a row is a channel or several.

    Raises:
        RasterError: If the file is damaged.
    """
    bin = -(-layer.recorded // width)
    units = channels_of(layer.shape) if layer.counts_only else layer.neurons
    group = -(-units // height)
    edges = np.arange(0, units, group)
    spikes = np.concatenate(
        [np.add.reduceat(counts, edges, axis=1, dtype=np.int64) for counts in _counts(layer, bin)]
    )
    per_row = group * (layer.neurons // units)
    cells = _sizes(layer.recorded, bin)[:, None] * _sizes(layer.neurons, per_row)
    return Density((spikes / cells).T, per_row, bin)


def _counts(layer: LayerRaster, bin: int) -> Iterator[npt.NDArray[np.integer[Any]]]:
    """Spikes in bins of steps, some bins at once: of neurons, or of channels if that is all."""
    if not layer.counts_only:
        for binned in layer.binned(bin):
            yield binned.reshape(len(binned), -1)
        return
    yield from channel_bins(layer, bin)


def channel_bins(layer: LayerRaster, bin: int) -> Iterator[npt.NDArray[np.int64]]:
    """Spikes of each channel in bins of steps, some bins at once, (b, C)."""
    length = bin * max(1, _BYTES_AT_ONCE // (8 * bin * channels_of(layer.shape)))
    for first in range(0, layer.recorded, length):
        counts = layer.channel_counts(slice(first, first + length))
        yield np.add.reduceat(counts, np.arange(0, len(counts), bin), axis=0)


def _sizes(total: int, size: int) -> npt.NDArray[np.int64]:
    """Sizes of consecutive parts of a whole, the last one smaller."""
    return np.diff(np.append(np.arange(0, total, size), total))
