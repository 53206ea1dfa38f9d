"""Streams spikes into a raster file with constant memory while a network runs."""

import os
import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from srcsnn.errors import RasterError
from srcsnn.files import check_target
from srcsnn.rasters.layout import LayerLayout, RasterLayout, block_steps
from srcsnn.rasters.policy import RecordPolicy
from srcsnn.rasters.writer import Block, RasterFile

_BLOCKS = 2  # one is filled while the other is written


class HDF5Recorder:
    """Writes the spikes of a run to an HDF5 file; use it in a `with` statement.

    `record` copies one step into a buffer. A full buffer is packed, compressed and written by a
    thread, while the network goes on with the other buffer. Until it is closed the file is called
    `<path>.part`; whatever happens, its steps up to the last whole block stay readable.

    Left by an exception, the file keeps all whole steps so far, says that it was aborted, and
    gets its name. Without a single step there is no file.

    Args:
        path: Of the file, usually `*.h5`.
        policy: What is recorded.
        overwrite: Whether an existing file may be replaced.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        policy: RecordPolicy = RecordPolicy(),  # noqa: B008  # frozen
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.policy = policy
        self.overwrite = overwrite
        self._part = self.path.with_name(self.path.name + ".part")
        self._writer: _Writer | None = None
        self._closed = False

    def begin(self, layout: RasterLayout) -> None:
        """Creates the file.

        Raises:
            RasterError: If there is such a file already, the folder is missing or not writable,
                or the disk is full.
            ConfigError: If a glob of the policy matches no layer.
        """
        if self._writer is not None or self._closed:
            raise RasterError(f"{self.path}: a recorder records one run; make another recorder")
        layers = layout.selected(self.policy)
        self._claim_name()
        rows = self.policy.rows(layout.steps_planned)
        steps = block_steps(rows, sum(layer.neurons for layer in layers))
        try:
            file = RasterFile(self._part, layout, self.policy, steps)
        except OSError as error:
            self._part.unlink(missing_ok=True)
            raise RasterError(f"cannot create {self.path}: {_reason(error)}") from error
        self._known = {layer.name for layer in layout.layers}
        self._shapes = {layer.name: layer.shape for layer in layers}
        self._planned = layout.steps_planned
        self._step = 0
        self._keep = True
        self._arrived: set[str] = set()
        self._writer = _Writer(file, layers, steps)
        self._block = self._writer.empty_block()

    def record(self, layer: str, spikes: npt.ArrayLike) -> None:
        """Takes one step of one layer; call it once per layer and step, in any order.

        A step is complete when every recorded layer came once. Layers that the policy leaves out
        are ignored.

        Args:
            layer: Name as in the layout.
            spikes: 0 or 1 (anything but 0 counts as a spike), of the layer's shape, with or
                without a leading batch axis of 1; any dtype. It is copied.

        Raises:
            RasterError: If the layer is unknown, the shape is another, the layer comes twice
                before the step is complete, or an earlier block could not be written.
        """
        shape = self._shapes.get(layer) if self._writer is not None else None
        if shape is None:
            self._refuse_unknown(layer)
            return
        array = np.asarray(spikes)
        if array.shape not in (shape, (1, *shape)):
            raise RasterError(
                f"layer {layer}: spikes of shape {array.shape} do not fit the layout's {shape}"
            )
        if layer in self._arrived:
            missing = ", ".join(name for name in self._shapes if name not in self._arrived)
            raise RasterError(
                f"layer {layer} came twice in step {self._step}; still missing: {missing}"
            )
        if self._keep:
            self._block.spikes[layer][self._block.filled] = array
        self._arrived.add(layer)
        if len(self._arrived) == len(self._shapes):
            self._end_step()

    def close(self) -> None:
        """Writes what is left and gives the file its name; further calls do nothing.

        Raises:
            RasterError: If the last steps could not be written; those before are kept.
        """
        self._close("")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._close("")
            return
        try:
            self._close(_one_line(error))
        except RasterError as second:  # must not hide why the block was left
            if str(second) != str(error):
                error.add_note(str(second))

    def _claim_name(self) -> None:
        check_target(self.path, overwrite=self.overwrite, error=RasterError)
        if self._part.exists() and not self.overwrite:
            raise RasterError(
                f"{self._part} is there already, from a run that was killed or is still going; "
                "it is readable: rename or remove it, or ask to overwrite"
            )

    def _refuse_unknown(self, layer: str) -> None:
        if self._writer is None:
            state = "is closed" if self._closed else "has not begun: call begin(layout) first"
            raise RasterError(f"{self.path}: the recorder {state}")
        if layer not in self._known:
            raise RasterError(
                f"layer {layer!r} is not in the layout; its layers are "
                + ", ".join(sorted(self._known))
            )

    def _end_step(self) -> None:
        assert self._writer is not None  # only called from record, after that was checked
        self._arrived.clear()
        block = self._block
        if self._keep:
            block.steps[block.filled] = self._step
            block.filled += 1
        self._step += 1
        self._keep = self._step % self.policy.every == 0
        if block.filled == len(block.steps):
            self._writer.put(block)
            self._block = self._writer.empty_block()
        if self._writer.error is not None:
            raise self._failure(self._writer)

    def _close(self, aborted_by: str) -> None:
        if self._closed or self._writer is None:
            self._closed = True
            return
        writer, self._writer, self._closed = self._writer, None, True
        if writer.error is None:
            writer.put(self._block)
        writer.join()
        try:
            writer.file.finish(*self._status(writer, aborted_by))
        except OSError as error:
            writer.error = writer.error or error
        failure = self._failure(writer) if writer.error is not None else None
        if writer.file.rows == 0:
            self._part.unlink(missing_ok=True)
        else:
            self._rename()
        if failure is not None:
            raise failure

    def _status(self, writer: "_Writer", aborted_by: str) -> tuple[str, bool]:
        """What the file says about how the run ended, and whether all planned steps are there."""
        if writer.error is not None:
            return f"aborted at step {self._kept(writer)}: {_reason(writer.error)}", False
        if aborted_by:
            return f"aborted at step {self._step}: {aborted_by}", False
        if self._arrived:
            missing = ", ".join(name for name in self._shapes if name not in self._arrived)
            return f"aborted at step {self._step}: closed while {missing} was missing", False
        if self._step < self._planned:
            return f"stopped at step {self._step} of {self._planned}", False
        return "complete", True

    def _kept(self, writer: "_Writer") -> int:
        """Steps of the run up to which the file holds everything that the policy keeps."""
        return min(self._step, writer.file.rows * self.policy.every)

    def _failure(self, writer: "_Writer") -> RasterError:
        assert writer.error is not None
        rows = writer.file.rows
        kept = f"its first {rows} recorded steps are kept" if rows else "nothing was kept"
        error = RasterError(f"cannot write {self.path}: {_reason(writer.error)}; {kept}")
        error.__cause__ = writer.error
        return error

    def _rename(self) -> None:
        if self.path.exists() and not self.overwrite:
            raise RasterError(f"{self.path} has appeared meanwhile; the raster is in {self._part}")
        try:
            os.replace(self._part, self.path)
        except OSError as error:
            raise RasterError(
                f"cannot write {self.path}: {_reason(error)}; the raster is in {self._part}"
            ) from error


class _Writer:
    """A thread that owns the file until it is joined, and the blocks that go to and fro."""

    def __init__(self, file: RasterFile, layers: tuple[LayerLayout, ...], steps: int) -> None:
        self.file = file
        self.error: BaseException | None = None
        self._next_row = 0
        self._full: queue.SimpleQueue[Block | None] = queue.SimpleQueue()
        self._empty: queue.SimpleQueue[Block] = queue.SimpleQueue()
        for _ in range(_BLOCKS):
            spikes = {layer.name: np.empty((steps, *layer.shape), np.bool_) for layer in layers}
            self._empty.put(Block(0, np.empty(steps, np.int64), spikes))
        # A daemon, so that a recorder that nobody closed does not keep the interpreter alive.
        self._thread = threading.Thread(target=self._run, name="raster-writer", daemon=True)
        self._thread.start()

    def empty_block(self) -> Block:
        """A block to fill; waits while both are being written."""
        block = self._empty.get()
        block.first, block.filled = self._next_row, 0
        return block

    def put(self, block: Block) -> None:
        """Hands a block over; the second time, after an interrupt in between, does nothing."""
        if block.filled and block.first == self._next_row:
            self._next_row += block.filled
            self._full.put(block)

    def join(self) -> None:
        """Waits until everything handed over is written; the file is the caller's again."""
        self._full.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (block := self._full.get()) is not None:
            if self.error is None:
                try:
                    self.file.append(block)
                except BaseException as error:  # noqa: BLE001  # raised again in the caller
                    self.error = error
            self._empty.put(block)


def _reason(error: BaseException) -> str:
    """Why the system refused, without HDF5's inner details."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else _one_line(error)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
