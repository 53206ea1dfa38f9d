"""How regular, how bursty and how much together the neurons of a layer fire.

All of them read the layer in pieces, so that memory does not grow with its file, and have the
definitions of Elephant (Denker, Yegenoglu and Gruen 2018), against which they are tested, where it
has one. Counts are those of bins of some recorded steps; steps left over at the end are not used,
as a shorter bin would look like a quieter one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srcsnn.errors import RasterError
from srcsnn.rasters.layer import LayerRaster
from srcsnn.rasters.selection import whole_number

Counts = npt.NDArray[np.float64]

_ROWS = 1024  # bins whose pairs are multiplied at once


@dataclass(frozen=True)
class Correlations:
    """Pearson correlations of the spike counts of pairs of neurons.

    Attributes:
        pairs: Numbers of the neurons in C order of the layer's shape, (P, 2); no pair twice.
        values: Their correlations, (P,), in [-1, 1].
        varying: Neurons that pairs were drawn from: those whose count is not always the same.
            The others, the silent among them, have no correlation.
    """

    pairs: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    varying: int


def fano_factor(layer: LayerRaster, bin: int = 1) -> npt.NDArray[np.float64]:
    """Variance over mean of each neuron's spike count in bins, of the layer's shape.

    The variance is divided by the number of bins. A Poisson process has 1; NaN where a neuron is
    silent. With bins of one step it is 1 minus the rate, whatever the neuron does.

    Args:
        layer: With its spikes recorded.
        bin: Recorded steps in a bin.

    Raises:
        RasterError: If there is no whole bin, only counts were recorded, or the file is damaged.
    """
    mean, variance = _moments(layer, bin)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(variance / mean).reshape(layer.shape)


def synchrony(layer: LayerRaster, bin: int = 1) -> float:
    """How much the neurons fire together: chi of Golomb and Rinzel (1994), in [0, 1].

    The square root of the variance over time of the mean count of all neurons, over the mean of
    the variances of each. 1 if all do the same; about 1 / sqrt(N) if N neurons know nothing of each
    other; NaN if no count ever changes.

    Args:
        layer: With its spikes recorded.
        bin: Recorded steps in a bin.

    Raises:
        RasterError: As `fano_factor`.
    """
    together = np.concatenate([counts.mean(axis=1) for counts in _whole_bins(layer, bin)])
    _, variance = _moments(layer, bin)
    return float(np.sqrt(together.var() / variance.mean())) if variance.any() else float("nan")


def correlations(
    layer: LayerRaster, bin: int = 1, pairs: int = 1000, seed: int = 0
) -> Correlations:
    """Pearson correlations of spike counts, of pairs drawn at random without repetition.

    Args:
        layer: With its spikes recorded.
        bin: Recorded steps in a bin.
        pairs: How many; all there are if there are fewer.
        seed: Of the draw.

    Raises:
        RasterError: As `fano_factor`, if `pairs` is below 1, or the seed below 0 or not whole.
    """
    pairs, seed = whole_number(pairs, "pairs"), whole_number(seed, "seed", least=0)
    mean, variance = _moments(layer, bin)
    varying = np.flatnonzero(variance)
    drawn = varying[_draw_pairs(len(varying), pairs, np.random.default_rng(seed))]
    first, second = drawn.T
    bins, products = 0, np.zeros(len(drawn))
    for counts in _whole_bins(layer, bin):
        bins += len(counts)
        for row in range(0, len(counts), _ROWS):
            part = counts[row : row + _ROWS]
            products += np.einsum("ij,ij->j", part[:, first], part[:, second])
    covariance = products / bins - mean[first] * mean[second]
    values = covariance / np.sqrt(variance[first] * variance[second])
    return Correlations(drawn, np.clip(values, -1, 1), len(varying))


def _draw_pairs(size: int, pairs: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Different pairs a < b below `size`, (P, 2); pair number k is the k-th with b in front."""
    number = size * (size - 1) // 2
    chosen = np.sort(rng.choice(number, min(pairs, number), replace=False, shuffle=False))
    b = ((1 + np.sqrt(1 + 8 * chosen.astype(float))) / 2).astype(np.int64)
    b -= b * (b - 1) // 2 > chosen  # the root may be rounded over a whole number
    b += b * (b + 1) // 2 <= chosen
    return np.stack([chosen - b * (b - 1) // 2, b], axis=1)


def _moments(layer: LayerRaster, bin: int) -> tuple[Counts, Counts]:
    """Mean and variance over bins of each neuron's count, (N,) each."""
    bins, total, squares = 0, np.zeros(layer.neurons), np.zeros(layer.neurons)
    for counts in _whole_bins(layer, bin):
        bins += len(counts)
        total += counts.sum(axis=0)
        squares += (counts**2).sum(axis=0)
    # Whole numbers below 2**53, so that a count that never changes has exactly no variance.
    return total / bins, (bins * squares - total**2) / bins**2


def _whole_bins(layer: LayerRaster, bin: int) -> Iterator[Counts]:
    """Counts (some bins, N), without the steps left over at the end."""
    bin = whole_number(bin, "bin")
    whole = layer.recorded // bin
    if not whole:
        raise RasterError(
            f"{layer.name}: bin: there are {layer.recorded} recorded steps, no whole bin of {bin}"
        )
    for counts in layer.binned(bin):
        taken = counts[:whole].reshape(-1, layer.neurons).astype(np.float64)
        whole -= len(taken)
        yield taken
