"""Spike rasters in HDF5."""

from srcsnn.rasters.layout import LayerLayout, RasterLayout, estimate_bytes
from srcsnn.rasters.policy import RecordPolicy
from srcsnn.rasters.recorder import HDF5Recorder

__all__ = ["HDF5Recorder", "LayerLayout", "RasterLayout", "RecordPolicy", "estimate_bytes"]
