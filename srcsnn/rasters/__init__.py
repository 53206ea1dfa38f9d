"""Spike rasters: recorded to HDF5 while a network runs, read back and summarised.

`HDF5Recorder` streams the spikes of every layer to a file with constant memory; `open_raster`
reads parts of it; `summarize` says in a line per layer what happened; `fano_factor`, `synchrony`
and `correlations` say how regularly and how much together neurons fired. The format is specified in
`docs/reference/raster-format.md`. Needs only NumPy and h5py; isal makes recording faster.
"""

from srcsnn.rasters.events import Events, Intervals
from srcsnn.rasters.layer import LayerRaster
from srcsnn.rasters.layout import LayerKind, LayerLayout, RasterLayout, estimate_bytes
from srcsnn.rasters.policy import RecordPolicy
from srcsnn.rasters.reader import Raster, open_raster
from srcsnn.rasters.recorder import HDF5Recorder, Recorder
from srcsnn.rasters.statistics import Correlations, correlations, fano_factor, synchrony
from srcsnn.rasters.summary import LayerSummary, summarize

__all__ = [
    "Correlations",
    "Events",
    "HDF5Recorder",
    "Intervals",
    "LayerKind",
    "LayerLayout",
    "LayerRaster",
    "LayerSummary",
    "Raster",
    "RasterLayout",
    "RecordPolicy",
    "Recorder",
    "correlations",
    "estimate_bytes",
    "fano_factor",
    "open_raster",
    "summarize",
    "synchrony",
]
