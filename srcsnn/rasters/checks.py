"""Checks a raster file before anything is read from it, so that a bad file cannot do harm.

What a file says about itself is compared with what it holds; only sizes that are backed by
allocated chunks are believed, so that no lie leads to a huge allocation. `Any` throughout: h5py
ships no types.
"""
# ruff: noqa: ANN401

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np

from srcsnn.errors import RasterError, SrcsnnError
from srcsnn.rasters.layout import FORMAT, FORMAT_VERSION, channels_of, packing_of

LARGEST_CHUNK = 64 * 1024**2
"""Bytes of a chunk that is read at all."""

LARGEST_CONFIG = 64 * 1024**2
_RETRY = "copy the file again, or record again"


def check_there(path: Path) -> None:
    """Raises a RasterError if there is no file to open."""
    part = Path(f"{path}.part")
    if not path.exists():
        hint = f"; there is {part.name}, of a run that was killed or goes on: open that"
        raise RasterError(f"{path}: no such file{hint if part.exists() else ''}")
    if path.is_dir():
        raise RasterError(f"{path}: is a folder, not a raster file")
    if path.stat().st_size == 0:
        raise RasterError(f"{path}: is empty; a raster file is HDF5 of format {FORMAT!r}")


def why_not_opened(path: Path, error: Exception) -> str:
    """What to say of a file that HDF5 could not open."""
    if isinstance(error, PermissionError):
        return f"{path}: may not be read; ask its owner for permission"
    if "truncated file" in str(error):
        return f"{path}: is cut short, a part of it is missing; {_RETRY}"
    if not h5py.is_hdf5(path):
        return f"{path}: is not HDF5; a raster file is HDF5 of format {FORMAT!r}"
    return f"{path}: is damaged and HDF5 cannot open it; {_RETRY}"


def open_file(path: Path) -> Any:
    """The file, open for reading; what hinders it is a RasterError."""
    check_there(path)
    try:
        return h5py.File(path, "r")
    except BlockingIOError as error:
        raise RasterError(
            f"{path}: is being written by another process; wait until it ends, or read a copy"
        ) from error
    except (OSError, RuntimeError) as error:
        raise RasterError(why_not_opened(path, error)) from error


def foreign(parent: Any, depth: int = 3) -> Iterator[tuple[str, str]]:
    """What a file does not hold itself, by name and in words; nothing specified lies deeper.

    A link, or a dataset with its values elsewhere, could lead to any file of the reader's, and
    who repairs would write there.
    """
    for name in parent:
        where = f"{parent.name.rstrip('/')}/{name}"
        if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
            yield where, "is a link to somewhere else"
            continue
        item = parent[name]
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            yield where, "has its values in another file"
        elif depth > 1 and isinstance(item, h5py.Group):
            yield from foreign(item, depth - 1)


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turns what h5py raises on damaged contents into a RasterError that names the file."""
    try:
        yield
    except SrcsnnError:
        raise
    except (
        OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, AttributeError,
    ) as error:  # fmt: skip
        detail = " ".join(str(error).split())[:200]
        raise RasterError(f"{path}: is damaged and cannot be read ({detail}); {_RETRY}") from error


class Checked:
    """Typed access to the contents of an open file; every complaint names the file.

    Args:
        file: An open `h5py.File`.
        path: Its name, for messages.
    """

    def __init__(self, file: Any, path: Path) -> None:
        self.file = file
        self.path = path

    def refuse(self, problem: str) -> NoReturn:
        """Raises a RasterError about the file."""
        raise RasterError(f"{self.path}: {problem}")

    def check_format(self) -> None:
        """Refuses what is not a raster file, or one of a newer major version."""
        if self.text(self.file, "format", "") != FORMAT:
            self.refuse(f"HDF5, but not a raster file: its format is not {FORMAT!r}")
        version = np.asarray(self.file.attrs.get("format_version", ()))
        if version.shape != (2,) or version.dtype.kind not in "iu":
            self.refuse("damaged: format_version is not a pair of whole numbers")
        if version[0] < 1:
            self.refuse(f"damaged: format_version is {version[0]}.{version[1]}, the first was 1.0")
        if version[0] > FORMAT_VERSION[0]:
            self.refuse(
                f"written in format version {version[0]}.{version[1]}, this reader knows up to "
                f"{FORMAT_VERSION[0]}; update srcsnn"
            )

    def text(self, item: Any, name: str, default: str) -> str:
        """A text attribute."""
        value = item.attrs.get(name, default)
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    def number(self, item: Any, name: str) -> float | None:
        """A numeric attribute, or None if there is none."""
        value = np.asarray(item.attrs.get(name, np.nan))
        if value.shape != () or value.dtype.kind not in "iuf":
            self.refuse(f"damaged: attribute {name} of {item.name} is not a number")
        return None if np.isnan(value) else float(value)

    def whole(self, item: Any, name: str, smallest: int) -> int:
        """An integer attribute."""
        value = np.asarray(item.attrs.get(name, ""))
        if value.shape != () or value.dtype.kind not in "iu" or value < smallest:
            self.refuse(
                f"damaged: attribute {name} of {item.name} is not a number from {smallest} on"
            )
        return int(value)

    def shape(self, group: Any) -> tuple[int, ...]:
        """The shape of a layer."""
        value = np.asarray(group.attrs.get("shape", ()))
        if value.ndim != 1 or not 1 <= value.size <= 4 or value.dtype.kind not in "iu":
            self.refuse(f"damaged: attribute shape of {group.name} is not a list of 1 to 4 numbers")
        if value.min() < 1:
            self.refuse(f"damaged: attribute shape of {group.name} has a size below 1")
        return tuple(int(size) for size in value)

    def group(self, parent: Any, name: str) -> Any:
        """A group that must be there."""
        group = self._linked(parent, name)
        if not isinstance(group, h5py.Group):
            self.refuse(f"damaged: there is no group {name}")
        return group

    def small(self, name: str, shape: tuple[int, ...]) -> list[int]:
        """A dataset of a few integers that must be there."""
        dataset = self._linked(self.file, name)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape != shape:
            self.refuse(f"damaged: there is no dataset {name} of shape {shape}")
        if dataset.dtype.kind not in "iu":
            self.refuse(f"damaged: dataset {name} does not hold integers")
        return [int(value) for value in dataset[...].ravel()]

    def status(self) -> str:
        """The status text, empty if there is no place for one."""
        if not self.has_status():
            return ""
        return bytes(self.file["status"][()]).decode(errors="replace")

    def has_status(self) -> bool:
        """Whether there is a place for a status, of a size that a text may have."""
        dataset = self._linked(self.file, "status")
        if not isinstance(dataset, h5py.Dataset) or dataset.shape != ():
            return False
        return bool(dataset.dtype.kind == "S" and dataset.dtype.itemsize <= 4096)

    def provenance(self) -> dict[str, Any]:
        """The configuration; any damage to it is an error of its own."""
        group = self._linked(self.file, "provenance")
        dataset = self._linked(group, "config") if isinstance(group, h5py.Group) else None
        if dataset is None:
            return {}
        text = h5py.check_string_dtype(getattr(dataset, "dtype", None))
        if text is None or dataset.shape != () or (text.length or 0) > LARGEST_CONFIG:
            self.refuse("damaged: provenance/config is not a text")
        try:
            config = json.loads(dataset[()])
        except (ValueError, RecursionError) as error:
            self.refuse(f"damaged: provenance/config is not JSON ({error})")
        if not isinstance(config, dict):
            self.refuse("damaged: provenance/config is not a JSON object")
        return config

    def counts_ct(self, group: Any, shape: tuple[int, ...], rows: int) -> Any:
        """Spikes per step and channel."""
        return self._growing(group, "counts_ct", (channels_of(shape),), rows)

    def bits(self, group: Any, shape: tuple[int, ...], rows: int) -> Any | None:
        """The packed spikes, or None if only counts were kept."""
        if self.text(group, "record", "full") == "counts":
            return None
        if self.text(group, "bit_order", "little") != "little":
            self.refuse(f"{group.name}: bit order is not 'little', which this reader cannot read")
        packing = packing_of(shape)
        bits = self._growing(group, "bits", (packing.rows, packing.row_bytes), rows)
        if bits.dtype != np.uint8:
            self.refuse(f"damaged: {bits.name} does not hold bytes")
        return bits

    def counts_n(self, group: Any, name: str, shape: tuple[int, ...]) -> Any:
        """Spikes per neuron, completely allocated."""
        dataset = self.dataset(group, name, shape)
        need = math.prod(shape) * dataset.dtype.itemsize
        there = min(dataset.id.get_storage_size(), self.path.stat().st_size)
        if dataset.chunks is not None or there < need:
            self.refuse(f"damaged: {dataset.name} is not there in full; {_RETRY}")
        return dataset

    def steps(self, rows: int) -> Any:
        """Step numbers of a gated recording."""
        return self._growing(self.file, "steps", (), rows)

    def _linked(self, parent: Any, name: str) -> Any:
        """What is in this file under a name, see `foreign`."""
        if not isinstance(parent.get(name, getlink=True), h5py.HardLink | None):
            self.refuse(f"damaged: {name} is a link to somewhere else")
        item = parent.get(name)
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            self.refuse(f"damaged: {name} has its values in another file")
        return item

    def _growing(self, group: Any, name: str, shape: tuple[int, ...], rows: int) -> Any:
        dataset = self.dataset(group, name, shape, growing=True)
        if dataset.shape[0] < rows:
            self.refuse(
                f"damaged: {dataset.name} has {dataset.shape[0]} rows, not the {rows} that "
                f"steps_valid promises; {_RETRY}"
            )
        chunks = dataset.chunks
        if chunks is None or math.prod(chunks) * dataset.dtype.itemsize > LARGEST_CHUNK:
            self.refuse(f"damaged: {dataset.name} is not in chunks of up to 64 MiB")
        need = math.prod(
            -(-size // chunk) for size, chunk in zip((rows, *shape), chunks, strict=True)
        )
        if dataset.id.get_num_chunks() < need:
            self.refuse(
                f"damaged: {dataset.name} has {dataset.id.get_num_chunks()} chunks of the {need} "
                f"for its {rows} rows; {_RETRY}"
            )
        return dataset

    def dataset(
        self,
        group: Any,
        name: str,
        shape: tuple[int, ...],
        growing: bool = False,
    ) -> Any:
        """A dataset of integers of this shape, or of rows of this shape."""
        dataset = self._linked(group, name)
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iu":
            self.refuse(f"damaged: there is no dataset {name} of integers in {group.name}")
        inner = dataset.shape[1:] if growing else dataset.shape
        if inner != shape or (growing and dataset.shape == ()):
            self.refuse(
                f"damaged: {dataset.name} has shape {dataset.shape}, which does not fit the "
                f"layer's {shape}"
            )
        return dataset
