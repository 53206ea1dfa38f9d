"""One layer of an open raster file."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from srcsnn.errors import RasterError
from srcsnn.rasters.checks import Checked, damage_named
from srcsnn.rasters.layout import packing_of
from srcsnn.rasters.selection import Selection, Span, span

_BYTES_AT_ONCE = 16 * 1024**2


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
        packing = packing_of(self.shape)
        time = span(steps, self._rows, "steps")
        picks = self._picks(channels, rows, cols)
        outer, inner = (picks[:1], picks[1:]) if packing.per_channel else ([], picks)
        stored = slice(outer[0].start, outer[0].stop) if outer else slice(0, 1)
        # Within a row, the bits that hold the selected part of its first axis.
        plane = math.prod(self.shape[len(outer) + 1 :])
        first, last = inner[0].start * plane, inner[0].stop * plane
        begin, end = first // 8, -(-last // 8)
        with damage_named(self._path):
            packed = self._bits[time.start : time.stop, stored, begin:end][:: time.stride]
        bits = np.unpackbits(packed, axis=-1, bitorder="little").view(np.bool_)
        bits = bits[..., first - 8 * begin : last - 8 * begin]
        read = [pick.stop - pick.start for pick in (*outer, inner[0])]
        block = bits.reshape(len(packed), *read, *self.shape[len(read) :])
        local = [pick.local for pick in (*outer, inner[0])]
        whole = [pick.index for pick in inner[1:]]
        return block[(time.every, *local, *whole)].copy()

    def channel_counts(
        self, steps: Selection = None, channels: Selection = None
    ) -> npt.NDArray[np.int64]:
        """Spikes of each channel in each recorded step, (T, C); C is 1 for a layer (N,).

        Raises:
            RasterError: If an index is out of range, or the file is damaged.
        """
        time = span(steps, self._rows, "steps")
        pick = span(channels, self._counts_ct.shape[1], "channels")
        with damage_named(self._path):
            counts = self._counts_ct[time.start : time.stop, pick.start : pick.stop]
        return np.asarray(counts[time.local, pick.local], np.int64)

    def population_counts(self) -> npt.NDArray[np.int64]:
        """Spikes of the whole layer in each recorded step, (T,).

        Raises:
            RasterError: If the file is damaged.
        """
        total = np.empty(self._rows, np.int64)
        at_once = max(1, _BYTES_AT_ONCE // self._counts_ct.shape[1])
        with damage_named(self._path):
            for first in range(0, self._rows, at_once):
                part = slice(first, min(first + at_once, self._rows))
                total[part] = self._counts_ct[part].sum(axis=1, dtype=np.int64)
        return total

    def neuron_counts(self) -> npt.NDArray[np.int64]:
        """Spikes of each neuron in all recorded steps, of the layer's shape.

        In a file that a killed run has left they are added up from the spikes.

        Raises:
            RasterError: If the file is damaged.
        """
        if self._rows in self._totals:
            with damage_named(self._path):
                total = np.asarray(self._totals[self._rows][...], np.int64)
            if total.max() > self._rows:
                raise RasterError(
                    f"{self._path}: damaged: a neuron of layer {self.name} has {total.max()} "
                    f"spikes in {self._rows} steps"
                )
            return total
        total = np.zeros(self.shape, np.int64)
        at_once = max(1, _BYTES_AT_ONCE // self.neurons)
        for first in range(0, self._rows, at_once):
            total += self.spikes(slice(first, first + at_once)).sum(axis=0)
        return total

    def rates(self) -> npt.NDArray[np.float64]:
        """Spikes of each neuron per recorded step, in [0, 1], of the layer's shape."""
        return self.neuron_counts() / self._rows

    def _picks(self, channels: Selection, rows: Selection, cols: Selection) -> list[Span]:
        wanted: list[Selection] = [None] * len(self.shape)
        names = ["axis"] * len(self.shape)
        axes = {"channels": (channels, 0), "rows": (rows, -2), "cols": (cols, -1)}
        for name, (selection, axis) in axes.items():
            if selection is None:
                continue
            if axis < 0 and len(self.shape) < 1 - axis:
                raise RasterError(f"layer {self.name} of shape {self.shape} has no {name}")
            wanted[axis], names[axis] = selection, name
        return [span(*axis) for axis in zip(wanted, self.shape, names, strict=True)]
