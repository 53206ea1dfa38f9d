"""Spikes as a list of events, and the intervals between them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from srcsnn.errors import RasterError

LONGEST = 10**7
"""Steps of an interval; the histogram has an entry for each length."""


class Events(NamedTuple):
    """Spikes as a list, by step and then by neuron.

    Attributes:
        steps: Step number in the run, (E,).
        neurons: Number of the neuron in C order of the layer's shape, (E,);
            `numpy.unravel_index(neurons, layer.shape)` gives channel, row and column.
    """

    steps: npt.NDArray[np.int64]
    neurons: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Intervals:
    """Intervals between consecutive spikes of the same neuron, in steps of the run.

    Where only every k-th step was recorded, spikes between are not seen, and all intervals are
    multiples of k.

    Attributes:
        histogram: How many intervals have a length of 0, 1, 2, ... steps, over all neurons; the
            first is 0, and there is no entry beyond the longest.
        number: Intervals of each neuron, of the layer's shape; one less than its spikes.
        mean: Mean of each neuron; NaN without an interval.
        cv: Coefficient of variation of each neuron: standard deviation over mean, both over its
            intervals (divided by their number, not by one less); NaN below two intervals. A clock
            has 0, a Poisson process 1, Bernoulli draws of rate p have the square root of 1 - p.
    """

    histogram: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    cv: npt.NDArray[np.float64]

    @classmethod
    def of(cls, events: Iterable[Events], shape: tuple[int, ...]) -> Self:
        """The intervals of a layer.

        Args:
            events: Pieces in the order of time.
            shape: Of the layer.

        Raises:
            RasterError: If an interval is longer than 10^7 steps.
        """
        neurons = int(np.prod(shape))
        histogram = np.zeros(1, np.int64)
        last = np.full(neurons, -1)
        sums = np.zeros((3, neurons))  # of intervals to the power 0, 1, 2: whole, below 2**53
        for steps, who in events:
            by_neuron = np.argsort(who, kind="stable")
            when, who = steps[by_neuron], who[by_neuron]
            first = np.ones(len(who), bool)
            first[1:] = who[1:] != who[:-1]
            before = np.roll(when, 1)
            before[first] = last[who[first]]
            last[who[np.roll(first, -1)]] = when[np.roll(first, -1)]
            known = before >= 0
            lengths = (when - before)[known]
            if lengths.max(initial=0) > LONGEST:
                raise RasterError(
                    f"an interval of {lengths.max()} steps: the histogram goes up to {LONGEST}"
                )
            lengths_here = np.bincount(lengths, minlength=len(histogram))
            lengths_here[: len(histogram)] += histogram
            histogram = lengths_here
            for power, total in enumerate(sums):
                total += np.bincount(who[known], lengths.astype(float) ** power, neurons)
        number, total, squares = sums
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / number
            variance = np.maximum(number * squares - total**2, 0) / number**2
            cv = np.where(number >= 2, np.sqrt(variance) / mean, np.nan)
        return cls(
            histogram,
            number.astype(np.int64).reshape(shape),
            mean.reshape(shape),
            cv.reshape(shape),
        )
