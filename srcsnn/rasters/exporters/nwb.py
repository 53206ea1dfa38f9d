"""Spikes in NWB, the format of neurophysiology: every neuron a unit with its spike times.

A raster is ordered by time, NWB by unit. As the number of spikes of each neuron is known before,
so is the place of every spike: events are collected up to a fixed number, sorted by neuron, and
each neuron's are written behind those it has already. `Any`: h5py, hdmf and pynwb ship no types.
"""
# ruff: noqa: ANN401

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import h5py
import numpy as np
import numpy.typing as npt

from srcsnn.errors import RasterError
from srcsnn.rasters.events import Events
from srcsnn.rasters.layer import LayerRaster
from srcsnn.rasters.reader import Raster

_COLLECTED = 2**20
"""Events in memory at a time, 16 bytes each, and about as much again to sort them."""

_PLACES = {
    "channel": "channel in its layer",
    "z": "position along the depth of the map",
    "y": "position along the height of the map",
    "x": "position along the width of the map",
}


def write_nwb(raster: Raster, layers: Sequence[LayerRaster], path: Path) -> None:
    """Writes an NWB file whose table of units has a row for every neuron, silent ones too.

    Spike times are in seconds: the step times `dt_s`, the `resolution` of the table; the step is
    `round(time / resolution)`, exactly. Columns say the layer, the number of the neuron in C order
    of the layer's shape, and its place, -1 along an axis that its layer does not have. The notes
    are JSON: how the recording ended, shapes, and its provenance.

    Args:
        raster: The open raster.
        layers: The layers to write.
        path: Where to write; nothing is there.

    Raises:
        RasterError: If the raster is damaged.
        OSError: If the disk has no room.
    """
    from pynwb import NWBHDF5IO, NWBFile

    counts = [layer.neuron_counts().ravel() for layer in layers]
    ends = np.concatenate(counts).cumsum()
    nwb = NWBFile(
        session_description=f"Spikes of {len(layers)} layers of a spiking neural network",
        identifier=str(uuid4()),
        session_start_time=_created(raster),
        notes=json.dumps(_notes(raster, layers), ensure_ascii=False),
    )
    nwb.units = _units(raster, layers, ends)
    with h5py.File(path, "w") as file, NWBHDF5IO(file=file, mode="w") as io:
        io.write(nwb)
        times, first = file["units/spike_times"], 0
        for layer in layers:
            _fill(times, raster, layer, ends[first : first + layer.neurons])
            first += layer.neurons


def _created(raster: Raster) -> datetime:
    try:
        created = datetime.fromisoformat(raster.created)
    except ValueError as error:
        raise RasterError(
            f"{raster.path}: damaged: created is {raster.created!r}, not an ISO 8601 time"
        ) from error
    return created if created.tzinfo else created.replace(tzinfo=UTC)


def _notes(raster: Raster, layers: Sequence[LayerRaster]) -> dict[str, Any]:
    """What JSON can hold; Any for that."""
    return {
        "status": raster.status,
        "steps_valid": raster.steps_valid,
        "steps_planned": raster.steps_planned,
        "every": raster.every,
        "dt_s": raster.dt_s,
        "shapes": {layer.name: layer.shape for layer in layers},
        "provenance": raster.provenance,
    }


def _units(raster: Raster, layers: Sequence[LayerRaster], ends: npt.NDArray[np.int64]) -> Any:
    """The table, with room for the spike times; pynwb ships no types."""
    from hdmf.common import ElementIdentifiers, VectorData, VectorIndex
    from pynwb import H5DataIO
    from pynwb.misc import Units

    times = VectorData(
        name="spike_times",
        description="times of spikes: step times resolution",
        data=H5DataIO(shape=(int(ends[-1]),), dtype=np.dtype("<f8")),
    )
    # Neo opens no unit without.
    begin, end = raster.steps[0] * raster.dt_s, (raster.steps[-1] + 1) * raster.dt_s
    observed = VectorData(
        name="obs_intervals",
        description="from the first recorded step to the end of the last",
        data=np.tile((begin, end), (len(ends), 1)),
    )
    columns = [
        times,
        VectorIndex(name="spike_times_index", target=times, data=ends.astype(np.uint64)),
        observed,
        VectorIndex(name="obs_intervals_index", target=observed, data=np.arange(1, len(ends) + 1)),
        *(
            VectorData(name=name, description=text, data=data)
            for name, text, data in _whose(layers)
        ),
    ]
    return Units(
        name="units",
        description="every neuron of every layer, those without a spike too",
        id=ElementIdentifiers(name="id", data=np.arange(len(ends))),
        columns=columns,
        resolution=raster.dt_s,
    )


def _whose(layers: Sequence[LayerRaster]) -> Iterator[tuple[str, str, npt.ArrayLike]]:
    """Name, description and contents of the columns that say which neuron a unit is."""
    names = [name for layer in layers for name in [layer.name] * layer.neurons]
    yield "layer", "qualified name in the network", names
    numbers = np.concatenate([np.arange(layer.neurons, dtype=np.int32) for layer in layers])
    yield "neuron", "number in C order of the layer", numbers
    places = [_places(layer.shape) for layer in layers]
    for axis, meaning in _PLACES.items():
        place = np.concatenate([of_layer[axis] for of_layer in places])
        if place.max() >= 0:
            yield axis, f"{meaning}; -1 without", place


def _places(shape: tuple[int, ...]) -> dict[str, npt.NDArray[np.int32]]:
    """Where each neuron is, (N,) for each axis; -1 along one that the layer does not have."""
    neurons = math.prod(shape)
    places = dict.fromkeys(_PLACES, np.full(neurons, -1, np.int32))
    if len(shape) > 1:
        axes = ["channel", *list(_PLACES)[1 - len(shape) :]]
        found = np.unravel_index(np.arange(neurons), shape)
        places |= {axis: at.astype(np.int32) for axis, at in zip(axes, found, strict=True)}
    return places


def _fill(times: Any, raster: Raster, layer: LayerRaster, ends: npt.NDArray[np.int64]) -> None:
    """Writes the spike times of a layer; `ends` is where those of each neuron end, (N,)."""
    place = ends - layer.neuron_counts().ravel()
    blocks = (block for slab in layer.slabs() for block in layer.event_blocks(channels=slab))
    for events in _collected(blocks):
        fired = np.bincount(events.neurons, minlength=layer.neurons)
        if (place + fired > ends).any():
            break
        _append(times, place, events, raster.dt_s)
        place += fired
    if (place != ends).any():
        neuron = int(np.flatnonzero(place != ends)[0])
        raise RasterError(
            f"{raster.path}: damaged: neuron {neuron} of layer {layer.name} has not the number of "
            "spikes that its counts say"
        )


def _append(times: Any, place: npt.NDArray[np.int64], events: Events, dt_s: float) -> None:
    """Writes spike times, those of neuron n from `place[n]` on."""
    near = events.neurons - events.neurons.min(initial=len(place))
    # Numbers of up to two bytes NumPy sorts in linear time.
    by_neuron = np.argsort(near.astype(np.min_scalar_type(near.max(initial=0))), kind="stable")
    who, when = events.neurons[by_neuron], events.steps[by_neuron] * dt_s
    begins = np.flatnonzero(np.diff(who, prepend=-1))
    trains = np.diff(begins, append=len(who))
    where = np.arange(len(who)) + np.repeat(place[who[begins]] - begins, trains)
    # A neuron's spikes touch the next one's unless some of them come later.
    cuts = np.flatnonzero(np.diff(where, prepend=-2) != 1)
    for first, last in pairwise((*cuts, len(who))):
        _put(times.id, int(where[first]), when[first:last])


def _put(dataset: Any, at: int, values: npt.NDArray[np.floating[Any]]) -> None:
    """Assigns a slice of a dataset ten times as fast as h5py does by brackets."""
    place = dataset.get_space()
    place.select_hyperslab((at,), values.shape)
    dataset.write(h5py.h5s.create_simple(values.shape), place, values)


def _collected(blocks: Iterable[Events]) -> Iterator[Events]:
    """Joins consecutive blocks until they hold a fixed number of events, or none are left."""
    held: list[Events] = []
    for block in blocks:
        held.append(block)
        if sum(len(each.steps) for each in held) >= _COLLECTED:
            joined, held = _joined(held), []
            yield joined
    if held:
        yield _joined(held)


def _joined(blocks: Sequence[Events]) -> Events:
    return Events(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
