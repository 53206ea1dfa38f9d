"""Saves what an interrupted run, or a damaged disk, has left of a raster file.

The file is copied and the copy finished: rows that are not exact in every layer count no more,
totals are added up, and the status says what happened. What is saved passes `validate`. `Any`: h5py
ships no types.
"""
# ruff: noqa: ANN401

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from srcsnn.errors import RasterError
from srcsnn.files import replacing
from srcsnn.rasters.checks import LARGEST_CHUNK, Checked, damage_named, foreign, open_file
from srcsnn.rasters.layout import channels_of, packing_of, unpack
from srcsnn.rasters.validation import validate

_CLOSED = ("complete", "stopped at step ", "aborted at step ")  # how a status then begins
_BYTES_AT_ONCE = 16 * 1024**2

Totals = dict[str, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Salvage:
    """What was saved.

    Attributes:
        rows: Recorded steps in the new file.
        lost: Recorded steps that the old one promised beyond these.
        status: Of the new file.
    """

    rows: int
    lost: int
    status: str


def repair(path: str | Path, output: str | Path) -> Salvage | None:
    """Writes a valid file with all rows that are exact in every layer.

    Args:
        path: A `.part` that a killed run has left, or a damaged file; it stays as it is.
        output: The file to write; one that is there is replaced.

    Returns:
        What was saved; None, and nothing is written, if the file is valid and was closed.

    Raises:
        RasterError: If it cannot be opened, is no raster file, or nothing can be saved.
    """
    path = Path(path)
    with open_file(path) as file, damage_named(path):
        checked = Checked(file, path)
        checked.check_format()
        for where, problem in foreign(file):
            checked.refuse(f"cannot be repaired: {where} {problem}")
        promised = checked.small("steps_valid", (1,))[0]
        every = checked.whole(file, "every", 1)
        before = checked.status()
        if before.startswith(_CLOSED) and not validate(path).violations:
            return None
        rows, totals = _exact_rows(checked, promised, every)
    if rows == 0:
        raise RasterError(f"{path}: nothing can be saved: no step is whole in every layer")
    status = _status(before, rows, promised, every)
    with replacing(output, error=RasterError) as copy:
        shutil.copyfile(path, copy)
        with damage_named(path), h5py.File(copy, "r+") as file:
            _finish(file, rows, totals, status)
        wrong = validate(copy).violations
        if wrong:
            raise RasterError(f"{path}: cannot be repaired: {wrong[0]}")
    return Salvage(rows, promised - rows, status)


def _status(before: str, rows: int, promised: int, every: int) -> str:
    if rows == promised and before.startswith(_CLOSED):
        return before
    why = "later steps were lost" if rows < promised else "killed while recording"
    return f"aborted at step {(rows - 1) * every + 1}: {why}"


def _exact_rows(checked: Checked, promised: int, every: int) -> tuple[int, Totals]:
    """How many rows from the first on are exact, and the spikes of each neuron in them."""
    groups = dict(checked.group(checked.file, "layers"))
    if not groups:
        checked.refuse("nothing can be saved: holds no layer")
    layers = {name: checked.shape(group) for name, group in groups.items()}
    checked.small("counts_rows", (2,))  # all that `_finish` writes to
    checked.small("complete", (1,))
    if not checked.has_status():
        checked.refuse("damaged: status is not a text of up to 256 bytes")
    for name, shape in layers.items():
        checked.counts_n(groups[name], "counts_n", shape)  # as large in the file as it says
        checked.dataset(groups[name], "counts_ct", (channels_of(shape),), growing=True)
        if "bits" in groups[name]:
            packing = packing_of(shape)
            inner = (packing.rows, packing.row_bytes)
            checked.dataset(groups[name], "bits", inner, growing=True)
    totals: Totals = {
        name: np.zeros(shape, np.int64) for name, shape in layers.items() if "bits" in groups[name]
    }
    if len(totals) < len(layers):
        return _counted_rows(checked, groups, promised), {}
    rows = 0
    for part in _parts(groups, promised):
        blocks = {name: _spikes(groups[name], shape, part) for name, shape in layers.items()}
        exact = min(map(len, blocks.values()))
        if every > 1:
            steps = _read(checked.file["steps"], part)
            wrong = np.flatnonzero(steps != every * np.arange(rows, rows + len(steps)))
            exact = min(exact, wrong[0] if len(wrong) else len(steps))
        for name, spikes in blocks.items():
            totals[name] += spikes[:exact].sum(axis=0)
        rows += exact
        if rows < part.stop:
            break
    for name, total in totals.items():
        _check_totals(checked, groups[name], total, rows)
    return rows, totals


def _check_totals(checked: Checked, group: Any, total: npt.NDArray[np.int64], rows: int) -> None:
    """Refuses spikes that two of the file's counts contradict, those of channels and neurons."""
    if checked.small("counts_rows", (2,))[0] != rows:
        return  # the totals are of other rows
    noted = group["counts_n"][...].astype(np.int64)
    channels = channels_of(total.shape)
    agree = (noted.reshape(channels, -1).sum(1) == total.reshape(channels, -1).sum(1)).all()
    if agree and (noted != total).any():
        checked.refuse(
            f"cannot be repaired: spikes of {group.name} were moved to other neurons, as its "
            "counts of channels and of neurons agree, and its spikes with the former alone"
        )


def _counted_rows(checked: Checked, groups: dict[str, Any], promised: int) -> int:
    """Rows where only counts were kept: all or none, as totals of neurons cannot be cut."""
    for part in _parts(groups, promised):
        for name, group in groups.items():
            if len(_read(group["counts_ct"], part)) < part.stop - part.start:
                checked.refuse(
                    f"nothing can be saved: counts of layer {name} behind row {part.start} are "
                    "lost, and without spikes the totals of its neurons cannot be counted again"
                )
    return promised


def _parts(groups: dict[str, Any], promised: int) -> Iterator[slice]:
    """Rows a block or less at a time, so many as some megabytes of spikes have."""
    height = max(group["counts_ct"].chunks[0] for group in groups.values())
    largest = max(group["counts_n"].size for group in groups.values())
    length = max(1, min(height, _BYTES_AT_ONCE // largest))
    for first in range(0, promised, length):
        yield slice(first, min(promised, first + length))


def _spikes(group: Any, shape: tuple[int, ...], part: slice) -> npt.NDArray[np.bool_]:
    """Spikes of some rows, (T, *shape), up to the first that its counts do not confirm."""
    packed, counts = _read(group["bits"], part), _read(group["counts_ct"], part)
    length = min(len(packed), len(counts))
    spikes = unpack(packed[:length], shape)
    channels = channels_of(shape)
    found = spikes.reshape(length, channels, math.prod(shape) // channels).sum(axis=2)
    wrong = np.flatnonzero((found != counts[:length]).any(axis=1))
    return spikes[: wrong[0] if len(wrong) else length]


def _read(dataset: Any, part: slice) -> npt.NDArray[Any]:
    """Rows of a dataset up to the first chunk that is missing or cannot be read."""
    whole = [dataset[0:0]]
    for rows in _chunk_rows(dataset, part):
        try:
            whole.append(dataset[rows])
        except OSError:
            break
    return np.concatenate(whole)


def _chunk_rows(dataset: Any, part: slice) -> Iterator[slice]:
    """The part cut at the chunks' edges, as long as all chunks are in the file."""
    if math.prod(dataset.chunks) * dataset.dtype.itemsize > LARGEST_CHUNK:
        return
    height = dataset.chunks[0]
    inner = [range(0, n, c) for n, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)]
    stop = min(part.stop, dataset.shape[0])
    for first in range(part.start // height * height, stop, height):
        for corner in product(*inner):
            if dataset.id.get_chunk_info_by_coord((first, *corner)).byte_offset is None:
                return
        yield slice(max(first, part.start), min(first + height, stop))


def _finish(file: Any, rows: int, totals: Totals, status: str) -> None:
    """Does to a file what closing it would have done.

    Rows beyond those that count stay, to be ignored: to have HDF5 cut them off a damaged file may
    take for ever.
    """
    for name, group in file["layers"].items():
        if name in totals:
            group["counts_n"][...] = totals[name]
        elif file["counts_rows"][0] != rows:
            group["counts_n"][...] = group["counts_n_alt"][...]
    file["steps_valid"][0] = rows
    file["counts_rows"][...] = (rows, -1)
    file["complete"][0] = int(status == "complete")
    file["status"][()] = np.bytes_(status.encode())
