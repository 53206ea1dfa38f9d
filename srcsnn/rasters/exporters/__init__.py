"""Rasters in the formats of other tools: NWB, SONATA, and sparse matrices of SciPy.

`plan_exports` checks what is asked for and tells what would be written; `Export.write` writes it,
in memory that does not grow with the number of steps. Only NWB needs a library, pynwb.
"""

from srcsnn.rasters.exporters.export import FORMATS, Export, plan_exports

__all__ = ["FORMATS", "Export", "plan_exports"]
