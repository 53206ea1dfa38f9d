"""Creates the groups and datasets of an empty raster file.

`docs/reference/raster-format.md` is the specification.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from srcsnn.errors import RasterError
from srcsnn.rasters.layout import (
    FORMAT,
    FORMAT_VERSION,
    LayerLayout,
    RasterLayout,
    channels_of,
    chunk_shape,
    counts_dtype,
    packing_of,
)
from srcsnn.rasters.policy import RecordPolicy

STATUS_BYTES = 256
"""Longest status text, in bytes of UTF-8."""

METADATA_BYTES = 16 * 1024
METADATA_BYTES_PER_LAYER = 16 * 1024
METADATA_BYTES_PER_CHUNK = 256
"""More than what HDF5 itself needs for a new file, and for another block."""

_GZIP_LEVEL = 1


@dataclass(frozen=True)
class LayerDatasets:
    """Where the spikes of one layer go. `Any`: h5py ships no types; all are `DatasetID`.

    Attributes:
        layout: The layer.
        counts: `counts_ct`, (T, C).
        counts_chunk: Steps, channels and bytes of a count in a chunk of it.
        bits: `bits`, (T, rows, row_bytes), unless only counts are kept.
        bits_chunk: Steps, rows and bytes in a chunk of it.
        totals: `counts_n`, and `counts_n_alt` if only counts are kept; each of the layer's shape.
    """

    layout: LayerLayout
    counts: Any
    counts_chunk: tuple[int, int, int]
    bits: Any | None
    bits_chunk: tuple[int, int, int]
    totals: tuple[Any, ...]


@dataclass(frozen=True)
class Datasets:
    """The datasets that a writer fills. `Any`: h5py ships no types; all are `DatasetID`."""

    steps_valid: Any
    complete: Any
    counts_rows: Any
    status: Any
    steps: Any | None
    layers: tuple[LayerDatasets, ...]


def create_schema(
    file: Any, layout: RasterLayout, policy: RecordPolicy, block_steps: int, config: str
) -> Datasets:
    """Creates everything in an empty file. `Any`: an `h5py.File`.

    Args:
        file: Open for writing.
        layout: Of the run.
        policy: What is recorded.
        block_steps: Rows written at once.
        config: The provenance as JSON.
    """
    _attribute(file.id, "format", FORMAT)
    _attribute(file.id, "format_version", np.asarray(FORMAT_VERSION, "<i8"))
    _attribute(file.id, "dt_s", float(layout.dt_s))
    _attribute(file.id, "steps_planned", layout.steps_planned)
    _attribute(file.id, "every", policy.every)
    _attribute(file.id, "created", datetime.now(UTC).isoformat(timespec="seconds"))
    _attribute(file.id, "software", _software())
    text = _dataset(_group(file.id, "provenance"), "config", h5py.string_dtype(), _space(()), None)
    fill(text, np.asarray(config, h5py.string_dtype()))
    layers = _group(file.id, "layers", track_order=True)
    datasets = Datasets(
        steps_valid=_in_place(file.id, "steps_valid", (1,), np.dtype("<i8")),
        complete=_in_place(file.id, "complete", (1,), np.dtype("u1")),
        counts_rows=_in_place(file.id, "counts_rows", (2,), np.dtype("<i8")),
        status=_in_place(file.id, "status", (), h5py.string_dtype("utf-8", STATUS_BYTES)),
        steps=(
            _growing(file.id, "steps", (), np.dtype("<i8"), (block_steps,))
            if policy.every > 1
            else None
        ),
        layers=tuple(
            _create_layer(_group(layers, layer.name), index, layer, policy, block_steps)
            for index, layer in enumerate(layout.selected(policy))
        ),
    )
    fill(datasets.counts_rows, np.asarray((-1, -1), "<i8"))
    fill_status(datasets, "recording")
    return datasets


def fill(dataset: Any, values: npt.NDArray[Any]) -> None:
    """Writes a whole dataset of fixed size; `Any`: an `h5py.h5d.DatasetID`."""
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)


def fill_status(datasets: Datasets, text: str) -> None:
    """Writes the status, cut to the bytes there are for it."""
    short = text.encode()[:STATUS_BYTES].decode(errors="ignore").encode()
    fill(datasets.status, np.asarray(short, h5py.string_dtype("utf-8", STATUS_BYTES)))


def schema_bytes(layers: tuple[LayerLayout, ...], config: str) -> int:
    """Upper limit of what an empty file takes."""
    totals = sum(2 * 4 * layer.neurons for layer in layers)
    return totals + 4 * len(config) + METADATA_BYTES + METADATA_BYTES_PER_LAYER * len(layers)


def provenance_json(provenance: dict[str, Any]) -> str:
    """The provenance as JSON that any language reads. `Any`: whatever JSON can hold.

    Raises:
        RasterError: If it holds NaN, an infinity or an object.
    """
    try:
        return json.dumps(provenance, allow_nan=False, ensure_ascii=False, indent=1)
    except (TypeError, ValueError) as error:
        raise RasterError(
            f"the provenance of a raster must be plain JSON (no NaN, no objects): {error}"
        ) from error


@cache
def _software() -> str:
    try:
        return f"srcsnn {version('srcsnn')}"
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "srcsnn"


def _create_layer(
    group: Any, index: int, layer: LayerLayout, policy: RecordPolicy, block_steps: int
) -> LayerDatasets:
    packing = packing_of(layer.shape)
    _attribute(group, "index", index)
    _attribute(group, "shape", np.asarray(layer.shape, "<i8"))
    _attribute(group, "kind", layer.kind)
    if layer.threshold is not None:
        _attribute(group, "threshold", float(layer.threshold))
    if layer.decay is not None:
        _attribute(group, "decay", float(layer.decay))
    _attribute(group, "bit_order", "little")
    _attribute(group, "packing", "channel" if packing.per_channel else "layer")
    _attribute(group, "record", "counts" if policy.counts_only else "full")
    _attribute(group, "NX_class", "NXdata")  # viewers plot the signal when the group is opened
    _attribute(group, "signal", "counts_ct")
    channels = channels_of(layer.shape)
    counts_type = counts_dtype(layer.shape).newbyteorder("<")
    counts_chunk = chunk_shape(block_steps, channels, counts_type.itemsize)
    bits_shape = (packing.rows, packing.row_bytes)
    bits_chunk = chunk_shape(block_steps, *bits_shape)
    names = ("counts_n", "counts_n_alt") if policy.counts_only else ("counts_n",)
    return LayerDatasets(
        layout=layer,
        counts=_growing(group, "counts_ct", (channels,), counts_type, counts_chunk[:2]),
        counts_chunk=counts_chunk,
        bits=(
            None
            if policy.counts_only
            else _growing(group, "bits", bits_shape, np.dtype("u1"), bits_chunk)
        ),
        bits_chunk=bits_chunk,
        totals=tuple(_in_place(group, name, layer.shape, np.dtype("<u4")) for name in names),
    )


# Below the low-level interface of h5py, several times faster than `create_dataset` and `attrs`,
# as a short sleep takes hardly longer than these. `Any`: h5py ships no types.
# ruff: noqa: ANN401


def _attribute(parent: Any, name: str, value: str | float | npt.NDArray[np.int64]) -> None:
    is_text = isinstance(value, str)
    array = np.asarray(value, h5py.string_dtype() if is_text else None)
    on_disk, in_memory = _types("text" if is_text else array.dtype.str)
    attribute = h5py.h5a.create(parent, name.encode(), on_disk, _space(array.shape))
    attribute.write(array, mtype=in_memory)


def _group(parent: Any, name: str, track_order: bool = False) -> Any:
    properties = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    if track_order:
        order = h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED
        properties.set_link_creation_order(order)
    return h5py.h5g.create(parent, name.encode(), gcpl=properties)


def _growing(
    parent: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], chunk: tuple[int, ...]
) -> Any:
    """A compressed dataset (T, *shape) with no rows yet."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk(chunk)
    properties.set_deflate(_GZIP_LEVEL)
    space = h5py.h5s.create_simple((0, *shape), (h5py.h5s.UNLIMITED, *shape))
    return _dataset(parent, name, dtype, space, properties)


def _in_place(parent: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """A dataset of fixed size whose place on the disk exists from now on, filled with zeros."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    return _dataset(parent, name, dtype, _space(shape), properties)


@cache
def _types(name: str) -> tuple[Any, Any]:
    """Types of a value on the disk and in memory."""
    dtype = h5py.string_dtype() if name == "text" else np.dtype(name)
    return h5py.h5t.py_create(dtype, logical=True), h5py.h5t.py_create(dtype)


def _space(shape: tuple[int, ...]) -> Any:
    return h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)


def _dataset(parent: Any, name: str, dtype: np.dtype[Any], space: Any, properties: Any) -> Any:
    kind = h5py.h5t.py_create(dtype, logical=True)
    return h5py.h5d.create(parent, name.encode(), kind, space, properties)
