"""One layer of an open raster file."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from srcsnn.errors import RasterError
from srcsnn.rasters.bits import read_spikes
from srcsnn.rasters.checks import Checked, damage_named
from srcsnn.rasters.events import Events, Intervals
from srcsnn.rasters.layout import packing_of
from srcsnn.rasters.selection import Selection, span, spans, whole_number

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_BYTES_AT_ONCE = 16 * 1024**2
_EVENTS_AT_ONCE = 1024**2


class LayerRaster:
    """The spikes of one layer.

    Steps are counted in recorded steps, which `steps` turns into step numbers of the run. Read
    while the raster is open.

    Attributes:
        name: Qualified name in the network.
        shape: Of one step: (N,), (C, L), (C, H, W) or (C, D, H, W).
        kind: "input", "conv", "linear" or "sum".
        threshold: Membrane threshold, if noted.
        decay: Factor by which the membrane decays in a step, if noted.
        neurons: Number of neurons.
        stored_bytes: Size of the layer in the file.
    """

    def __init__(
        self,
        checked: Checked,
        group: Any,  # noqa: ANN401  # h5py ships no types
        rows: int,
        counts_rows: list[int],
        step_numbers: Callable[[], npt.NDArray[np.int64]],
    ) -> None:
        self.name = group.name.rsplit("/", 1)[-1]
        self.shape = checked.shape(group)
        self.kind = checked.text(group, "kind", "")
        self.threshold = checked.number(group, "threshold")
        self.decay = checked.number(group, "decay")
        self.neurons = math.prod(self.shape)
        self._path = checked.path
        self._rows = rows
        self._step_numbers = step_numbers
        self._counts_ct = checked.counts_ct(group, self.shape, self._rows)
        self._bits = checked.bits(group, self.shape, self._rows)
        self._totals = {
            covered: checked.counts_n(group, total, self.shape)
            for covered, total in zip(counts_rows, ("counts_n", "counts_n_alt"), strict=True)
            if covered >= 0
        }
        if self._bits is None and self._rows not in self._totals:
            checked.refuse(f"damaged: {group.name} has neither bits nor totals per neuron")
        parts = [self._counts_ct, self._bits, *self._totals.values()]
        self.stored_bytes = sum(d.id.get_storage_size() for d in parts if d is not None)

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """Step number in the run of each recorded step, (T,)."""
        return self._step_numbers()

    @property
    def recorded(self) -> int:
        """Number of recorded steps."""
        return self._rows

    @property
    def counts_only(self) -> bool:
        """Whether the file holds counts but no spikes."""
        return self._bits is None

    def spikes(
        self,
        steps: Selection = None,
        channels: Selection = None,
        rows: Selection = None,
        cols: Selection = None,
    ) -> npt.NDArray[np.bool_]:
        """Spikes of some steps and neurons, (T, *shape) where nothing is selected.

        A single index drops its axis, as in NumPy.

        Args:
            steps: Recorded steps.
            channels: Along the first axis of the shape; for (N,) these are the neurons.
            rows: Along the last axis but one of a (C, H, W) or (C, D, H, W) layer.
            cols: Along the last axis of a layer of any shape but (N,).

        Raises:
            RasterError: If an index is out of range or its axis not there, only counts were
                recorded, or the file is damaged.
        """
        if self._bits is None:
            raise RasterError(
                f"{self._path}: layer {self.name} was recorded as counts only; use "
                "channel_counts() or neuron_counts()"
            )
        time = span(steps, self._rows, "steps")
        picks = spans(self.name, self.shape, channels, rows, cols)
        with self._reading():
            return read_spikes(self._bits, self.shape, time, picks, _BYTES_AT_ONCE)

    def channel_counts(
        self, steps: Selection = None, channels: Selection = None
    ) -> npt.NDArray[np.int64]:
        """Spikes of each channel in each recorded step, (T, C); C is 1 for a layer (N,).

        Raises:
            RasterError: If an index is out of range, or the file is damaged.
        """
        time = span(steps, self._rows, "steps")
        pick = span(channels, self._counts_ct.shape[1], "channels")
        with self._reading():
            counts = self._counts_ct[time.start : time.stop, pick.start : pick.stop]
        return np.asarray(counts[time.local, pick.local], np.int64)

    def population_counts(self) -> npt.NDArray[np.int64]:
        """Spikes of the whole layer in each recorded step, (T,).

        Raises:
            RasterError: If the file is damaged.
        """
        total = np.empty(self._rows, np.int64)
        with self._reading():
            for part in self._parts(self._counts_ct.shape[1]):
                total[part] = self._counts_ct[part].sum(axis=1, dtype=np.int64)
        return total

    def neuron_counts(self, steps: slice | None = None) -> npt.NDArray[np.int64]:
        """Spikes of each neuron in some recorded steps, of the layer's shape.

        All steps are answered from the file's totals, a part of them from its spikes, as are all
        in a file that a killed run has left.

        Args:
            steps: Recorded steps; without it, all.

        Raises:
            RasterError: If only counts were recorded and a part is asked for, or the file is
                damaged.
        """
        if steps is None and self._rows in self._totals:
            with self._reading():
                total = np.asarray(self._totals[self._rows][...], np.int64)
            if total.max() > self._rows:
                raise RasterError(
                    f"{self._path}: damaged: a neuron of layer {self.name} has {total.max()} "
                    f"spikes in {self._rows} steps"
                )
            return total
        total = np.zeros(self.shape, np.int64)
        for part in self._parts(self.neurons, steps):
            total += self.spikes(part).sum(axis=0)
        return total

    def rates(self, steps: slice | None = None) -> npt.NDArray[np.float64]:
        """Spikes of each neuron per recorded step, in [0, 1], of the layer's shape.

        Args:
            steps: Recorded steps; without it, all.

        Raises:
            RasterError: As `neuron_counts`, or if the part holds no step.
        """
        if steps is not None and not isinstance(steps, slice):
            raise RasterError(f"steps: must be a slice, got {steps!r}; of one step use spikes()")
        rows = len(range(self._rows)[slice(None) if steps is None else steps])
        if rows == 0:
            raise RasterError(f"{self._path}: steps: the part {steps} holds none of {self._rows}")
        return self.neuron_counts(steps) / rows

    def counts(self, bin: int = 1) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Spikes of each neuron in consecutive bins, (ceil(T / bin), *shape).

        The last bin holds what is left over. Of the smallest unsigned type that can hold a bin.

        Args:
            bin: Recorded steps in a bin, from 1 on.

        Raises:
            RasterError: If `bin` is below 1, only counts were recorded, or the file is damaged.
        """
        bin = whole_number(bin, "bin")
        counts = np.empty((-(-self._rows // bin), *self.shape), np.min_scalar_type(bin))
        filled = 0
        for part in self.binned(bin):
            counts[filled : filled + len(part)] = part
            filled += len(part)
        return counts

    def binned(self, bin: int = 1) -> Iterator[npt.NDArray[np.unsignedinteger[Any]]]:
        """The same as `counts` in pieces of some bins, so that memory is bounded.

        Yields:
            Counts (some bins, *shape).

        Raises:
            RasterError: As `counts`.
        """
        bin = whole_number(bin, "bin")
        dtype = np.min_scalar_type(bin)
        if bin * self.neurons > _BYTES_AT_ONCE:
            for first in range(0, self._rows, bin):
                yield self.neuron_counts(slice(first, first + bin))[None].astype(dtype)
            return
        for part in self._parts(bin * self.neurons, unit=bin):
            spikes = self.spikes(part)
            edges = np.arange(0, len(spikes), bin)
            yield (
                np.add.reduceat(spikes, edges, axis=0, dtype=dtype)
                if bin > 1
                else spikes.view(np.uint8)
            )

    def events(
        self,
        steps: slice | None = None,
        channels: Selection = None,
        rows: Selection = None,
        cols: Selection = None,
    ) -> Events:
        """Spikes of some steps and neurons as a list: 16 bytes each.

        Args:
            steps: Recorded steps.
            channels: As in `spikes`, as are `rows` and `cols`.
            rows: Along the last axis but one.
            cols: Along the last axis.

        Raises:
            RasterError: As `spikes`.
        """
        found = list(self.event_blocks(steps, channels, rows, cols))
        empty = np.empty(0, np.int64)
        when = np.concatenate([empty, *(block.steps for block in found)])
        who = np.concatenate([empty, *(block.neurons for block in found)])
        return Events(when, who)

    def event_blocks(
        self,
        steps: slice | None = None,
        channels: Selection = None,
        rows: Selection = None,
        cols: Selection = None,
    ) -> Iterator[Events]:
        """The same as `events` in pieces of some steps, so that memory is bounded.

        Raises:
            RasterError: As `spikes`.
        """
        picks = tuple(pick.index for pick in spans(self.name, self.shape, channels, rows, cols))
        numbers = np.arange(self.neurons).reshape(self.shape)[picks].ravel()
        if not numbers.size:
            return
        when = self.steps
        for part in self._parts(numbers.size, steps):
            block = self.spikes(part, channels, rows, cols).reshape(-1, numbers.size)
            # A spike is a byte of the block, and 32 on its way to be an event.
            length = max(1, _EVENTS_AT_ONCE // numbers.size)
            for first in range(0, len(block), length):
                row, column = np.nonzero(block[first : first + length])
                yield Events(when[part][first : first + length][row], numbers[column])

    def slabs(self) -> Iterator[slice]:
        """Cuts the channels so that the parts lie in different chunks of the file.

        Who reads one slab after the other, each for all steps, reads no chunk twice.

        Yields:
            Selections for `channels`, which cover all of them; one for all without spikes or where
            channels share their rows of bits.
        """
        channels = self.shape[0]
        height = channels
        if self._bits is not None and packing_of(self.shape).per_channel:
            height = self._bits.chunks[1]
        for first in range(0, channels, height):
            yield slice(first, min(first + height, channels))

    def isi(self) -> Intervals:
        """Intervals between consecutive spikes of the same neuron, in steps of the run.

        Raises:
            RasterError: If only counts were recorded, an interval is longer than 10^7 steps, or the
                file is damaged.
        """
        return Intervals.of(self.event_blocks(), self.shape)

    def to_scipy(self) -> "csr_array":
        """Spikes as a sparse matrix of ones, uint8 (T, N): recorded steps by neurons in C order.

        Raises:
            RasterError: If SciPy is missing, only counts were recorded, or the file is damaged.
        """
        try:
            from scipy.sparse import csr_array
        except ModuleNotFoundError as cause:
            raise RasterError("to_scipy needs SciPy: pip install scipy") from cause
        events = self.events()
        ends = np.searchsorted(events.steps, self.steps, side="right")
        ones = np.ones(len(events.neurons), np.uint8)
        starts = np.append(0, ends)
        return csr_array((ones, events.neurons, starts), shape=(self._rows, self.neurons))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        if not self._counts_ct:  # what h5py makes of a dataset when its file is closed
            raise RasterError(f"{self._path}: is closed; read layer {self.name} before that")
        with damage_named(self._path):
            yield

    def _parts(self, row_bytes: int, steps: slice | None = None, unit: int = 1) -> Iterator[slice]:
        """Cuts recorded steps into parts of some megabytes, each a multiple of `unit` rows."""
        time = span(steps, self._rows, "steps")
        every = time.stride * unit
        length = every * max(1, _BYTES_AT_ONCE // row_bytes)
        for first in range(time.start, time.stop, length):
            yield slice(first, min(first + length, time.stop), time.stride)
