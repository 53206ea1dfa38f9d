"""Streams spikes into a raster file with constant memory while a network runs."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from srcsnn.errors import RasterError
from srcsnn.files import OVERWRITE, check_target
from srcsnn.rasters.disk import is_locked
from srcsnn.rasters.layout import RasterLayout, block_steps
from srcsnn.rasters.policy import RecordPolicy
from srcsnn.rasters.thread import View, WriterThread
from srcsnn.rasters.writer import Copy, RasterFile

_Shapes = tuple[tuple[int, ...], tuple[int, ...]]
"""The shapes that the spikes of a layer may have: without and with a batch axis."""


class Recorder(Protocol):
    """What watches a run."""

    def begin(self, layout: RasterLayout) -> None:
        """Told once, before the first step, which layers there are, and their shapes."""

    def record(self, layer: str, spikes: Any) -> None:  # noqa: ANN401  # arrays of any library
        """Told of every layer in every step, the input first, then in the layout's order.

        Args:
            layer: name as in the layout.
            spikes: (1, *shape) in {0, 1}, not to be written to.
        """


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
        view: Of a NumPy array, the same memory as an array of another library; with
            `torch.from_numpy`, `record` takes tensors, and sooner than their conversions.

    Attributes:
        totals: Once it is closed: per layer the recorded spikes of each neuron, (*shape).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        policy: RecordPolicy = RecordPolicy(),  # noqa: B008  # frozen
        overwrite: bool = False,
        view: View | None = None,
    ) -> None:
        self.path = Path(path)
        self.policy = policy
        self.overwrite = overwrite
        self._view = view
        self._part = self.path.with_name(self.path.name + ".part")
        self._writer: WriterThread | None = None
        self._closed = False
        self.totals: dict[str, npt.NDArray[np.uint32]] = {}
        # Per layer that is still to come in this step: the shapes it may have, its rows.
        self._missing: dict[str, tuple[_Shapes, list[Copy]]] = {}

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
        check_target(self.path, overwrite=self.overwrite, error=RasterError)
        self._make_way()
        steps = block_steps(sum(layer.neurons for layer in layers))
        try:
            file = RasterFile(self._part, layout, self.policy, steps)
        except OSError as error:
            self._part.unlink(missing_ok=True)
            raise RasterError(f"cannot create {self.path}: {_reason(error)}") from error
        self._known = {layer.name for layer in layout.layers}
        self._shapes: dict[str, _Shapes] = {
            layer.name: (layer.shape, (1, *layer.shape)) for layer in layers
        }
        self._planned = layout.steps_planned
        self._step = 0
        self._keep = True
        self._writer = WriterThread(file, layers, steps, self._view)
        self._next_block()

    # Any: arrays of the library that `view` belongs to.
    def record(self, layer: str, spikes: npt.ArrayLike | Any) -> None:  # noqa: ANN401
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
        row = self._missing.pop(layer, None)
        if row is None:
            self._explain(layer)
            return
        shapes, rows = row
        try:
            array: Any = np.asarray(spikes) if self._view is None else spikes
            if array.shape not in shapes:
                raise RasterError(
                    f"layer {layer}: spikes of shape {tuple(array.shape)} do not fit the layout's "
                    f"{shapes[0]}"
                )
            if self._keep:
                rows[self._block.filled](array)
        except BaseException:
            self._missing[layer] = row  # it did not come
            raise
        if not self._missing:
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

    def _make_way(self) -> None:
        """Refuses or removes a `.part` file that is there already."""
        if not self._part.exists():
            return
        if is_locked(self._part):
            raise RasterError(f"{self._part} is being written by another run; choose another name")
        if not self.overwrite:
            raise RasterError(
                f"{self._part} is there already, from a run that was killed, and is readable: "
                f"rename or remove it, or {OVERWRITE}"
            )
        self._part.unlink()

    def _explain(self, layer: str) -> None:
        """Why a layer is not waited for: an error, or that the policy leaves it out."""
        if self._writer is None:
            state = "is closed" if self._closed else "has not begun: call begin(layout) first"
            raise RasterError(f"{self.path}: the recorder {state}")
        if layer in self._shapes:
            raise RasterError(
                f"layer {layer} came twice in step {self._step}; still missing: "
                + ", ".join(self._unrecorded())
            )
        if layer not in self._known:
            raise RasterError(
                f"layer {layer!r} is not in the layout; its layers are "
                + ", ".join(sorted(self._known))
            )

    def _unrecorded(self) -> list[str]:
        """The layers that the current step still lacks, in network order."""
        return [name for name in self._shapes if name in self._missing]

    def _next_block(self) -> None:
        """Waits for an empty block and expects the first step of it."""
        assert self._writer is not None
        self._block = self._writer.empty_block()
        # With all that `record` needs to know of a layer, as a step of a small network is short.
        self._expected = {
            name: (shapes, self._block.rows[name]) for name, shapes in self._shapes.items()
        }
        self._missing = self._expected.copy()

    def _end_step(self) -> None:
        assert self._writer is not None
        self._missing = self._expected.copy()
        block = self._block
        if self._keep:
            block.steps[block.filled] = self._step
            block.filled += 1
        self._step += 1
        self._keep = self._step % self.policy.every == 0
        if block.filled == len(block.steps):
            self._writer.put(block)
            self._next_block()
        if self._writer.error is not None:
            raise self._failure(self._writer, self._writer.error)

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
        self._missing = {}
        self.totals = writer.file.totals
        failure = self._failure(writer, writer.error) if writer.error is not None else None
        if writer.file.rows == 0:
            self._part.unlink(missing_ok=True)
        else:
            self._rename()
        if failure is not None:
            raise failure

    def _status(self, writer: WriterThread, aborted_by: str) -> tuple[str, bool]:
        """What the file says about how the run ended, and whether all planned steps are there."""
        if writer.error is not None:
            return f"aborted at step {self._kept(writer)}: {_reason(writer.error)}", False
        if aborted_by:
            return f"aborted at step {self._step}: {aborted_by}", False
        if len(self._missing) < len(self._shapes):
            missing = ", ".join(self._unrecorded())
            return f"aborted at step {self._step}: closed while {missing} was missing", False
        if self._step < self._planned:
            return f"stopped at step {self._step} of {self._planned}", False
        return "complete", True

    def _kept(self, writer: WriterThread) -> int:
        """Steps of the run up to which the file holds everything that the policy keeps."""
        return min(self._step, writer.file.rows * self.policy.every)

    def _failure(self, writer: WriterThread, cause: BaseException) -> RasterError:
        rows = writer.file.rows
        kept = f"its first {rows} recorded steps are kept" if rows else "nothing was kept"
        error = RasterError(f"cannot write {self.path}: {_reason(cause)}; {kept}")
        error.__cause__ = cause
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


def _reason(error: BaseException) -> str:
    """Why the system refused, without HDF5's inner details."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else _one_line(error)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
