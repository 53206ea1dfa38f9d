"""Spikes in SONATA, the format of large-scale network simulators: one population per layer.

Nothing is compressed: the HDF5 inside libsonata has no filters. Types are those of the
specification, which readers other than libsonata take for granted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from srcsnn.errors import RasterError
from srcsnn.rasters.layer import LayerRaster
from srcsnn.rasters.reader import Raster

_MAGIC = 0x0A7A
_VERSION = (0, 1)
_SORTING = {"none": 0, "by_id": 1, "by_time": 2}  # libsonata refuses a text


def write_sonata(raster: Raster, layers: Sequence[LayerRaster], path: Path) -> None:
    """Writes a SONATA file of spikes.

    `/spikes/<layer>/node_ids` are the numbers of the neurons in C order of the layer's shape, which
    is an attribute of the population; `/spikes/<layer>/timestamps` are step times `dt_ms`, an
    attribute beside them; the step is `round(timestamp / dt_ms)`, exactly. Sorted by time.

    Args:
        raster: The open raster.
        layers: The layers to write.
        path: Where to write; nothing is there.

    Raises:
        RasterError: If the raster is damaged.
        OSError: If the disk has no room.
    """
    with h5py.File(path, "w") as file:
        file.attrs["magic"] = np.uint32(_MAGIC)
        file.attrs["version"] = np.array(_VERSION, np.uint32)
        for layer in layers:
            _write_population(file.create_group(f"spikes/{layer.name}"), raster, layer)


def _write_population(group: Any, raster: Raster, layer: LayerRaster) -> None:  # noqa: ANN401  # h5py's
    spikes, dt_ms = int(layer.population_counts().sum()), 1000 * raster.dt_s
    group.attrs["shape"] = layer.shape
    group.attrs.create("sorting", _SORTING["by_time"], dtype=h5py.enum_dtype(_SORTING, "u1"))
    who = group.create_dataset("node_ids", (spikes,), "<u8")
    when = group.create_dataset("timestamps", (spikes,), "<f8")
    when.attrs["units"], when.attrs["dt_ms"] = "ms", dt_ms
    done = 0
    for events in layer.event_blocks():
        part = slice(done, done + len(events.steps))
        done = part.stop
        if done <= spikes:
            who[part], when[part] = events.neurons, events.steps * dt_ms
    if done != spikes:
        raise RasterError(
            f"{raster.path}: damaged: layer {layer.name} has {done} spikes, its counts say {spikes}"
        )
