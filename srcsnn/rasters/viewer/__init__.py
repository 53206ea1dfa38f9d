"""The raster viewer: one page that needs no network, with the spikes in it or served beside it."""

from srcsnn.rasters.viewer.page import BUDGET_BYTES, Embedded, write_page
from srcsnn.rasters.viewer.server import serve

__all__ = ["BUDGET_BYTES", "Embedded", "serve", "write_page"]
