"""Layers of every rank, known spikes, and a function that records them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srcsnn.rasters import HDF5Recorder, LayerLayout, RasterLayout, RecordPolicy, open_raster

Spikes = dict[str, np.ndarray]

LAYERS = (
    LayerLayout("input", (1, 12, 12), "input"),
    LayerLayout("features.0", (5, 9, 11), "conv", threshold=0.7, decay=0.9),
    LayerLayout("small", (6, 3, 3), "conv"),
    LayerLayout("line", (3, 70), "conv"),
    LayerLayout("volume", (2, 4, 5, 6), "conv"),
    LayerLayout("fc", (21,), "linear", threshold=1.0),
)


@pytest.fixture
def layers() -> tuple[LayerLayout, ...]:
    return LAYERS


@pytest.fixture
def draw() -> Callable[..., Spikes]:
    def draw(
        steps: int,
        layers: tuple[LayerLayout, ...] = LAYERS,
        rate: float = 0.1,
        seed: int = 0,
    ) -> Spikes:
        rng = np.random.default_rng(seed)
        return {layer.name: rng.random((steps, *layer.shape)) < rate for layer in layers}

    return draw


@pytest.fixture
def record() -> Callable[..., None]:
    def record(
        path: Path,
        spikes: Spikes,
        layers: tuple[LayerLayout, ...] = LAYERS,
        policy: RecordPolicy = RecordPolicy(),  # noqa: B008
        **layout: Any,
    ) -> None:
        steps = len(next(iter(spikes.values())))
        with HDF5Recorder(path, policy) as recorder:
            recorder.begin(RasterLayout(layers, **{"steps_planned": steps, "dt_s": 1e-3} | layout))
            for step in range(steps):
                for name, values in spikes.items():
                    recorder.record(name, values[step])

    return record


@pytest.fixture
def raster_of(tmp_path, record):
    opened = []

    def raster_of(spikes, policy=RecordPolicy()):  # noqa: B008
        path = tmp_path / f"{len(opened)}.h5"
        record(path, {"x": spikes}, (LayerLayout("x", spikes.shape[1:], "conv"),), policy)
        opened.append(open_raster(path))
        return opened[-1]

    yield raster_of
    for raster in opened:
        raster.close()
