"""What attributes and datasets of a raster file must be, and how it is told that one is not.

Each demand yields a violation for everything that is not so. `Any` throughout: h5py ships no types.
"""
# ruff: noqa: ANN401

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from srcsnn.rasters.checks import LARGEST_CHUNK

_NUMBERS = {"<i8": "int64", "<f8": "float64", "|u1": "uint8", "<u2": "uint16", "<u4": "uint32"}


@dataclass(frozen=True)
class Violation:
    """Something in a file that is not as specified.

    Attributes:
        where: Path of the group, dataset or attribute in the file.
        problem: What is there, and what the specification asks for.
    """

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


def attribute(
    item: Any,
    name: str,
    kind: str | type,
    smallest: float | None = None,
    largest: float = np.inf,
) -> Iterator[Violation]:
    """A text if `kind` is `str`, else a number of that type, finite and within the bounds."""
    where = f"{item.name} attribute {name}"
    value = item.attrs.get(name)
    if kind is str:
        if not isinstance(value, str):
            yield Violation(where, "must be a text")
        return
    number = np.asarray(value)
    if isinstance(value, h5py.Empty) or number.shape != () or dtype_of(item, name) != kind:
        yield Violation(where, f"must be a number, {_NUMBERS[str(kind)]}")
    elif smallest is not None and not np.isfinite(number):
        yield Violation(where, f"is {number}; it must be finite")
    elif smallest is not None and number < smallest:
        above = "above 0" if 0 < smallest < 1 else f"{smallest} or more"
        yield Violation(where, f"is {number}; it must be {above}")
    elif number > largest:
        yield Violation(where, f"is {number}; it must be at most {largest:g}")


def dtype_of(item: Any, name: str) -> str | None:
    """The type of an attribute in the file; its value comes in the byte order of this machine."""
    return item.attrs.get_id(name).dtype.str if name in item.attrs else None


def small(group: Any, name: str, dtype: str, shape: tuple[int, ...]) -> Iterator[Violation]:
    """A dataset of fixed size, contiguous and all there."""
    dataset, where = group.get(name), f"{group.name.rstrip('/')}/{name}"
    if not isinstance(dataset, h5py.Dataset):
        yield Violation(where, f"there must be a dataset {_NUMBERS[dtype]} {list(shape)}")
    elif dataset.dtype != np.dtype(dtype) or dataset.shape != shape:
        yield Violation(
            where, f"is {dataset.dtype} {list(dataset.shape)}, not {_NUMBERS[dtype]} {list(shape)}"
        )
    elif dataset.chunks is not None:
        yield Violation(where, "must be contiguous")
    elif (
        min(dataset.id.get_storage_size(), group.file.id.get_filesize())
        < math.prod(shape) * dataset.dtype.itemsize
    ):
        yield Violation(where, "is not there in full")


def growing(
    group: Any,
    name: str,
    dtypes: tuple[str, ...],
    inner: tuple[int, ...],
    rows: int,
    largest: int = LARGEST_CHUNK,
) -> Iterator[Violation]:
    """A dataset of rows: chunked, compressed, and with all chunks that its rows need."""
    dataset, where = group.get(name), f"{group.name.rstrip('/')}/{name}"
    types = " or ".join(_NUMBERS[dtype] for dtype in dtypes)
    if not isinstance(dataset, h5py.Dataset):
        yield Violation(where, f"there must be a dataset {types} of rows {list(inner)}")
        return
    if dataset.dtype not in [np.dtype(dtype) for dtype in dtypes]:
        yield Violation(where, f"is {dataset.dtype}, not {types}")
    if dataset.shape[1:] != inner or not dataset.shape:
        yield Violation(where, f"has rows {list(dataset.shape[1:])}; they must be {list(inner)}")
        return
    if dataset.shape[0] < rows:
        yield Violation(where, f"has {dataset.shape[0]} rows, fewer than the {rows} that count")
        return
    if dataset.chunks is None or list(dataset._filters) != ["gzip"]:
        yield Violation(where, "must be chunked and compressed by deflate (gzip) alone")
        return
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if size > largest:
        yield Violation(where, f"has chunks of {size:,} bytes; {largest:,} are allowed")
        return
    need = math.prod(
        -(-n // chunk) for n, chunk in zip((rows, *inner), dataset.chunks, strict=True)
    )
    there = 0

    def see(chunk: Any) -> None:
        nonlocal there
        there += chunk.chunk_offset[0] < rows  # further ones may be left of a run that was killed

    dataset.id.chunk_iter(see)
    if there < need:
        yield Violation(where, f"has {there} chunks; its rows need {need}")


def first_of(dataset: Any, default: int) -> int:
    """The first number of a dataset, or the default if there is none."""
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iu":
        return default
    return int(dataset[0]) if len(dataset.shape) == 1 and dataset.shape[0] else default


def number_of(item: Any, name: str) -> int | None:
    """An attribute that is a whole number, or None."""
    value = np.asarray(item.attrs.get(name))
    return int(value) if value.shape == () and value.dtype.kind in "iu" else None
