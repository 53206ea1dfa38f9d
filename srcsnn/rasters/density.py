"""A layer's spikes as a picture: firing rates in cells of some neurons and some steps."""

from collections.abc import Iterable, Iterator
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
    """The raster of a layer in cells; all neurons and steps are in it.

    Where only counts were recorded, a row is a channel or several.

    Args:
        layer: Of an open file.
        height: Rows of cells, at most.
        width: Columns of cells, at most.

    Raises:
        RasterError: If the file is damaged.
    """
    bin = -(-layer.recorded // width)
    units = channels_of(layer.shape) if layer.counts_only else layer.neurons
    group = -(-units // height)
    edges = np.arange(0, units, group)
    pieces: Iterable[npt.NDArray[np.integer[Any]]] = (
        channel_bins(layer, bin)
        if layer.counts_only
        else (counts.reshape(len(counts), -1) for counts in layer.binned(bin))
    )
    spikes = np.concatenate(
        [np.add.reduceat(counts, edges, axis=1, dtype=np.int64) for counts in pieces]
    )
    per_row = group * (layer.neurons // units)
    cells = _sizes(layer.recorded, bin)[:, None] * _sizes(layer.neurons, per_row)
    return Density((spikes / cells).T, per_row, bin)


def channel_bins(layer: LayerRaster, bin: int) -> Iterator[npt.NDArray[np.int64]]:
    """Spikes of each channel in bins of recorded steps, some bins at once, (b, C).

    Raises:
        RasterError: If the file is damaged.
    """
    length = bin * max(1, _BYTES_AT_ONCE // (8 * bin * channels_of(layer.shape)))
    for first in range(0, layer.recorded, length):
        counts = layer.channel_counts(slice(first, first + length))
        yield np.add.reduceat(counts, np.arange(0, len(counts), bin), axis=0)


def _sizes(total: int, size: int) -> npt.NDArray[np.int64]:
    """Sizes of consecutive parts of a whole, the last one smaller."""
    return np.diff(np.append(np.arange(0, total, size), total))
