"""Spikes out of packed bits: of some steps, channels and positions, with no more read than needed.

`docs/reference/raster-format.md` says how they lie in the file.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from srcsnn.rasters.layout import packing_of
from srcsnn.rasters.selection import Span

__all__ = ["read_spikes"]


def read_spikes(
    stored: Any,  # noqa: ANN401  # h5py ships no types
    shape: tuple[int, ...],
    time: Span,
    picks: Sequence[Span],
    at_once: int,
) -> npt.NDArray[np.bool_]:
    """The selected spikes of a layer, (T, *picked); an axis with a single index is dropped.

    Args:
        stored: The dataset `bits`, (T, rows, row_bytes).
        shape: Of one step of the layer.
        time: The selected rows of the file.
        picks: The selection on each axis of the shape.
        at_once: Bytes that may be read without being kept.
    """
    packing = packing_of(shape)
    outer, inner = (picks[:1], picks[1:]) if packing.per_channel else ([], picks)
    rows = slice(outer[0].start, outer[0].stop) if outer else slice(0, 1)
    # Within a row, the bits that hold the selected part of its first axis.
    plane = math.prod(shape[len(outer) + 1 :])
    first, last = inner[0].start * plane, inner[0].stop * plane
    begin, end = first // 8, -(-last // 8)
    packed = _packed(stored, time, rows, slice(begin, end), at_once)
    bits = np.unpackbits(packed, axis=-1, bitorder="little").view(np.bool_)
    bits = bits[..., first - 8 * begin : last - 8 * begin]
    read = [pick.stop - pick.start for pick in (*outer, inner[0])]
    block = bits.reshape(len(packed), *read, *shape[len(read) :])
    local = [pick.local for pick in (*outer, inner[0])]
    whole = [pick.index for pick in inner[1:]]
    return block[(time.every, *local, *whole)].copy()


def _packed(
    stored: Any,  # noqa: ANN401  # h5py ships no types
    time: Span,
    rows: slice,
    within: slice,
    at_once: int,
) -> npt.NDArray[np.uint8]:
    """Bytes at some steps. What lies between the steps is read too, but not kept."""
    kept = range(time.start, time.stop, time.stride)
    packed = np.empty((len(kept), rows.stop - rows.start, within.stop - within.start), np.uint8)
    length = at_once // max(1, packed[:1].size * time.stride) if time.stride > 1 else len(kept)
    length = max(1, length)
    for first in range(0, len(kept), length):
        steps = kept[first : first + length]
        block = stored[steps[0] : steps[-1] + 1, rows, within]
        packed[first : first + len(steps)] = block[:: time.stride]
    return packed
