"""The thread that packs, compresses and writes blocks while the network goes on."""

import atexit
import queue
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from srcsnn.rasters.layout import LayerLayout
from srcsnn.rasters.writer import Block, Copy, RasterFile

View = Callable[[npt.NDArray[np.bool_]], Iterable[Any]]
"""An array's rows, the same memory, as what has `copy_`, such as tensors. `Any`: of any library."""

_BLOCKS = 2
"""One is filled while the other is written."""


class WriterThread:
    """Owns a file until it is joined, and the two blocks that go to and fro.

    Args:
        file: To write to; nobody else may use it meanwhile.
        layers: Those that are recorded.
        steps: Rows of a block.
        view: How the caller's arrays get into the memory of a block, if not by NumPy.

    Attributes:
        error: What went wrong in the thread; nothing is written after it.
    """

    def __init__(
        self, file: RasterFile, layers: tuple[LayerLayout, ...], steps: int, view: View | None
    ) -> None:
        self.file = file
        self.error: BaseException | None = None
        self._next_row = 0
        self._make_block = partial(_block, layers, steps, view)
        self._to_make = _BLOCKS  # when they are needed: a short run does with one
        self._full: queue.SimpleQueue[Block | None] = queue.SimpleQueue()
        self._empty: queue.SimpleQueue[Block] = queue.SimpleQueue()
        # A daemon, so that a recorder that nobody closed does not keep the interpreter alive.
        self._thread = threading.Thread(target=self._run, name="raster-writer", daemon=True)
        self._thread.start()
        # And joined in time: one that holds h5py's lock when the interpreter stops it keeps the
        # lock for ever, and the end of the interpreter waits for it to close the file.
        atexit.register(self.join)

    def empty_block(self) -> Block:
        """A block to fill; waits while both are being written."""
        if self._to_make:
            self._to_make -= 1
            block = self._make_block()
        else:
            block = self._empty.get()
        block.first, block.filled = self._next_row, 0
        return block

    def put(self, block: Block) -> None:
        """Hands a block over; the second time, after an interrupt in between, does no harm."""
        if block.filled and block.first == self._next_row:
            self._full.put(block)
            self._next_row += block.filled

    def join(self) -> None:
        """Waits until everything handed over is written; the file is the caller's again."""
        atexit.unregister(self.join)
        self._full.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (block := self._full.get()) is not None:
            if self.error is None and block.first == self.file.rows:
                try:
                    self.file.append(block)
                except BaseException as error:  # raised again in the caller
                    self.error = error
            self._empty.put(block)


def _block(layers: tuple[LayerLayout, ...], steps: int, view: View | None) -> Block:
    spikes = {layer.name: np.empty((steps, *layer.shape), np.bool_) for layer in layers}
    rows = {name: _copies(buffer[:, None], view) for name, buffer in spikes.items()}
    return Block(0, np.empty(steps, np.int64), spikes, rows)


def _copies(buffer: npt.NDArray[np.bool_], view: View | None) -> list[Copy]:
    """For each row (1, *shape) of a buffer, what copies a step of spikes into it."""
    if view is None:
        return [partial(np.copyto, row, casting="unsafe") for row in buffer]
    return [row.copy_ for row in view(buffer)]
