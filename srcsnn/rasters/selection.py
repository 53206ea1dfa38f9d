"""Parts of an axis: what the user asks for, and the contiguous range that has to be read for it."""

import operator
from dataclasses import dataclass
from typing import SupportsIndex

from srcsnn.errors import RasterError

Selection = slice | SupportsIndex | None
"""Part of an axis: all of it (None), a slice with a step from 1 on, or a single index."""


@dataclass(frozen=True)
class Span:
    """A selection on an axis of known size.

    Attributes:
        start: First index to read.
        stop: One past the last index to read.
        index: The selection on the whole axis, for NumPy; an int drops the axis.
        local: The selection on the part that was read.
    """

    start: int
    stop: int
    index: int | slice
    local: int | slice

    @property
    def stride(self) -> int:
        """Every how many indices one is selected."""
        return self.local.step if isinstance(self.local, slice) else 1

    @property
    def every(self) -> int | slice:
        """The selection on the part that was read and thinned out by `stride`."""
        return slice(None) if isinstance(self.local, slice) else 0


def span(selection: Selection, size: int, axis: str) -> Span:
    """A selection as a `Span`.

    Args:
        selection: What the user asks for.
        size: Of the axis.
        axis: Its name, for messages.

    Raises:
        RasterError: If an index is out of range, or a slice goes backwards.
    """
    if selection is None:
        selection = slice(None)
    if isinstance(selection, slice):
        start, stop, step = selection.indices(size)
        if step < 1:
            raise RasterError(f"{axis}: a slice must have a step from 1 on, got {step}")
        stop = max(start, stop)
        return Span(start, stop, slice(start, stop, step), slice(0, stop - start, step))
    index = _whole(selection)
    if index is None:
        raise RasterError(f"{axis}: must be a slice or a whole number, got {selection!r}")
    if not -size <= index < size:
        raise RasterError(f"{axis}: there is no {index}, they go from 0 to {size - 1}")
    index %= size
    return Span(index, index + 1, index, 0)


def spans(
    layer: str, shape: tuple[int, ...], channels: Selection, rows: Selection, cols: Selection
) -> list[Span]:
    """A selection on each axis of a layer's shape; all of an axis that has no name.

    Args:
        layer: Its name, for messages.
        shape: Of one step of it.
        channels: Along the first axis.
        rows: Along the last axis but one.
        cols: Along the last axis.

    Raises:
        RasterError: If there is no such axis, or as `span`.
    """
    wanted: list[Selection] = [None] * len(shape)
    names = ["axis"] * len(shape)
    axes = {"channels": (channels, 0), "rows": (rows, -2), "cols": (cols, -1)}
    for name, (selection, axis) in axes.items():
        if selection is None:
            continue
        if axis < 0 and len(shape) < 1 - axis:
            raise RasterError(f"layer {layer} of shape {shape} has no {name}")
        wanted[axis], names[axis] = selection, name
    return [span(*axis) for axis in zip(wanted, shape, names, strict=True)]


def whole_number(number: object, name: str, least: int = 1) -> int:
    """A whole number of any type as one of Python's, which does not overflow.

    Args:
        number: What the user gives.
        name: Of the argument, for messages.
        least: The smallest that is allowed.

    Raises:
        RasterError: If it is not whole or smaller.
    """
    whole = _whole(number)
    if whole is None or whole < least:
        raise RasterError(f"{name}: must be a whole number from {least} on, got {number!r}")
    return whole


def _whole(number: object) -> int | None:
    """As one of Python's; None if it is none. A truth value is none, though Python counts it."""
    if isinstance(number, bool) or not isinstance(number, SupportsIndex):
        return None
    try:
        return operator.index(number)
    except TypeError:  # an array, which only seems to be one
        return None
