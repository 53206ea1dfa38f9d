"""Writes whole blocks of steps into a raster file so that a crash loses only the block at hand.

`docs/reference/raster-format.md` is the specification of what is written and in which order. None
of this is safe to call from two threads at once; `HDF5Recorder` hands the file from one to the
other.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from srcsnn.rasters.deflate import deflated_chunks
from srcsnn.rasters.disk import divert_writes, require_space
from srcsnn.rasters.layout import RasterLayout, channels_of, counts_dtype, pack, packing_of
from srcsnn.rasters.policy import RecordPolicy
from srcsnn.rasters.schema import (
    METADATA_BYTES,
    METADATA_BYTES_PER_CHUNK,
    METADATA_BYTES_PER_LAYER,
    LayerDatasets,
    create_schema,
    fill,
    fill_status,
    provenance_json,
    schema_bytes,
)

Copy = Callable[[Any], object]
"""Copies spikes (1, *shape) or (*shape) to where they belong. `Any`: arrays of any library."""

_UINT8_STEPS = 255


@dataclass
class Block:
    """Consecutive recorded steps of all layers, a byte per neuron and step.

    Attributes:
        first: Row of the file where the block begins.
        steps: Step number of each row, (B,).
        spikes: Per layer (B, *shape).
        rows: Per layer, for each of the B rows of `spikes`, what copies a step into it.
        filled: How many rows hold whole steps.
    """

    first: int
    steps: npt.NDArray[np.int64]
    spikes: dict[str, npt.NDArray[np.bool_]]
    rows: dict[str, list[Copy]]
    filled: int = 0


@dataclass(frozen=True)
class _Chunk:
    """A compressed chunk, its dataset and its offset counted from the first row of the block."""

    dataset: Any  # h5py ships no types
    offset: tuple[int, ...]
    data: bytes


class RasterFile:
    """A raster file that grows by blocks.

    Args:
        path: Where to write; an existing file is emptied.
        layout: Of the run.
        policy: What is recorded.
        block_steps: Rows of a block; every block but the last has this many.

    Attributes:
        rows: Rows that are written and valid.
        totals: Per layer the spikes of each neuron in these rows, (*shape).

    Raises:
        OSError: If the file cannot be created.
        RasterError: If the provenance is not JSON.
    """

    def __init__(
        self, path: Path, layout: RasterLayout, policy: RecordPolicy, block_steps: int
    ) -> None:
        self.rows = 0
        self._abandoned = False
        self._path = path
        self._counts_only = policy.counts_only
        self._counts_rows = np.full(2, -1, "<i8")
        layers = layout.selected(policy)
        self.totals = {layer.name: np.zeros(layer.shape, np.uint32) for layer in layers}
        config = provenance_json(layout.provenance)
        require_space(path.parent, 0, schema_bytes(layers, config))
        # Until the first flush HDF5 could not open it again, so it has no name that people know.
        begun = path.with_name(f".{path.name}.new")
        # Superblock version 0: a file that was never closed opens with any reader. The versions
        # that carry a "being written" mark refuse that.
        self._file = h5py.File(begun, "w", libver=("earliest", "v108"))
        try:
            with self._abandon_on_error():
                self._datasets = create_schema(self._file, layout, policy, block_steps, config)
                self._file.flush()
                begun.replace(path)
        finally:
            begun.unlink(missing_ok=True)

    def append(self, block: Block) -> None:
        """Writes a block: first its data, then, when that is safe, the number of valid rows.

        Raises:
            OSError: If it cannot be written; the rows before it stay valid.
        """
        filled = {name: spikes[: block.filled] for name, spikes in block.spikes.items()}
        totals = {name: self.totals[name] + _spikes_per_neuron(filled[name]) for name in filled}
        chunks = [
            chunk
            for layer in self._datasets.layers
            for chunk in _compressed(layer, filled[layer.layout.name])
        ]
        self._require_space(chunks)
        with self._abandon_on_error():
            self._write(block, chunks, totals)
        self.rows = block.first + block.filled
        self.totals = totals

    def finish(self, status: str, complete: bool) -> None:
        """Writes the totals per neuron and the status, then closes the file.

        All of it goes to places that have existed since the beginning, so that it works on a
        full disk too. Does nothing after a write that failed half-way.

        Raises:
            OSError: If even that fails; the rows written so far stay readable.
        """
        if self._abandoned:
            return
        with self._abandon_on_error():
            self._fill_totals(0, self.totals, self.rows)
            fill_status(self._datasets, status)
            fill(self._datasets.complete, np.asarray((complete,), np.uint8))
            self._file.close()

    def _write(
        self, block: Block, chunks: list[_Chunk], totals: dict[str, npt.NDArray[np.uint32]]
    ) -> None:
        rows = block.first + block.filled
        for layer in self._datasets.layers:
            layer.counts.set_extent((rows, channels_of(layer.layout.shape)))
            if layer.bits is not None:
                packing = packing_of(layer.layout.shape)
                layer.bits.set_extent((rows, packing.rows, packing.row_bytes))
        for chunk in chunks:
            offset = (block.first + chunk.offset[0], *chunk.offset[1:])
            chunk.dataset.write_direct_chunk(offset, chunk.data)
        if self._datasets.steps is not None:
            self._datasets.steps.set_extent((rows,))
            h5py.Dataset(self._datasets.steps)[block.first :] = block.steps[: block.filled]
        if self._counts_only:
            # Without bits nobody could add the totals up again after a crash. They go to the one
            # of two places that does not hold those of the last block.
            self._fill_totals(int(self._counts_rows[0] == self.rows), totals, rows)
        self._file.flush()
        fill(self._datasets.steps_valid, np.asarray((rows,), "<i8"))
        self._file.flush()

    def _fill_totals(
        self, place: int, totals: dict[str, npt.NDArray[np.uint32]], rows: int
    ) -> None:
        for layer in self._datasets.layers:
            fill(layer.totals[place], totals[layer.layout.name])
        self._file.flush()  # the totals before the number that declares them valid
        self._counts_rows[place] = rows
        fill(self._datasets.counts_rows, self._counts_rows)

    def _require_space(self, chunks: list[_Chunk]) -> None:
        need = METADATA_BYTES + METADATA_BYTES_PER_LAYER * len(self._datasets.layers)
        need += sum(len(chunk.data) + METADATA_BYTES_PER_CHUNK for chunk in chunks)
        require_space(self._path.parent, self._file.id.get_filesize(), need)

    @contextlib.contextmanager
    def _abandon_on_error(self) -> Iterator[None]:
        """Lets go of the file as it is on the disk, as if the process had been killed.

        After a failed write HDF5 tries again at every close and at the exit of the interpreter,
        and leaves a file that claims more than it holds and cannot be opened.
        """
        try:
            yield
        except BaseException as error:
            if self._file.id.valid:
                self._abandoned = True
                divert_writes(self._file.id.get_vfd_handle())
                with contextlib.suppress(OSError, RuntimeError, ValueError):
                    self._file.close()
            if isinstance(error, RuntimeError):  # what h5py makes of some failed writes
                raise OSError(str(error)) from error
            raise


def _spikes_per_neuron(spikes: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """Sums (B, *shape) over the steps."""
    total = np.zeros(spikes.shape[1:], np.uint32)
    for first in range(0, len(spikes), _UINT8_STEPS):  # sums of uint8 are several times faster
        part = spikes[first : first + _UINT8_STEPS].view(np.uint8)
        total += part.sum(axis=0, dtype=np.uint8)
    return total


def _spikes_per_channel(spikes: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Sums (B, *shape) over positions: the bytes (B, C, itemsize) of little-endian counts."""
    shape = spikes.shape[1:]
    per_channel = spikes.view(np.uint8).reshape(len(spikes), channels_of(shape), -1)
    counts = per_channel.sum(axis=-1, dtype=counts_dtype(shape))
    little = counts.astype(counts.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little)[..., None].view(np.uint8)


def _compressed(layer: LayerDatasets, spikes: npt.NDArray[np.bool_]) -> list[_Chunk]:
    """The chunks of one layer's block (B, *shape)."""
    counts = deflated_chunks(_spikes_per_channel(spikes), layer.counts_chunk)
    chunks = [_Chunk(layer.counts, offset[:2], data) for offset, data in counts]
    if layer.bits is not None:
        bits = deflated_chunks(pack(spikes), layer.bits_chunk)
        chunks += [_Chunk(layer.bits, offset, data) for offset, data in bits]
    return chunks
