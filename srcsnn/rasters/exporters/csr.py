"""Spikes as a sparse matrix in the `.npz` that `scipy.sparse.load_npz` reads; needs no SciPy."""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from srcsnn.errors import RasterError
from srcsnn.rasters.layer import LayerRaster
from srcsnn.rasters.reader import Raster

_AT_ONCE = 2**20


def write_csr(raster: Raster, layers: Sequence[LayerRaster], path: Path) -> None:
    """Writes a layer as a matrix of ones (T, N): recorded steps by neurons in C order, uint8.

    Beside what `load_npz` reads, and for which it does not look, the archive holds `steps`, the
    step number in the run of each row, (T,), `dt_s` and `layer_shape`: `numpy.load` gives them.

    Args:
        raster: The open raster.
        layers: The one layer to write.
        path: Where to write; nothing is there.

    Raises:
        RasterError: If the raster is damaged.
        OSError: If the disk has no room.
    """
    (layer,) = layers
    spikes = int(layer.population_counts().sum())
    # What SciPy would choose: it copies whatever is of another type.
    narrow = max(spikes, layer.neurons, layer.recorded) <= np.iinfo(np.int32).max
    index = np.dtype("<i4" if narrow else "<i8")
    ends = np.zeros(layer.recorded + 1, index)

    def columns() -> Iterable[npt.NDArray[np.integer]]:
        row = 0
        for block in layer.binned():
            rows, neurons = np.nonzero(block.reshape(len(block), -1))
            fired = np.bincount(rows, minlength=len(block))
            ends[row + 1 : row + 1 + len(block)] = ends[row] + fired.cumsum()
            row += len(block)
            yield neurons.astype(index)

    ones = (np.ones(min(_AT_ONCE, spikes - at), np.uint8) for at in range(0, spikes, _AT_ONCE))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        _add(archive, "indices", index, (spikes,), columns())
        if ends[-1] != spikes:
            raise RasterError(
                f"{raster.path}: damaged: layer {layer.name} has {ends[-1]} spikes, its counts "
                f"say {spikes}"
            )
        _add(archive, "data", np.dtype(np.uint8), (spikes,), ones)
        for name, value in {
            "indptr": ends,
            "shape": np.array((layer.recorded, layer.neurons), np.int64),
            "format": np.array(b"csr"),
            "_is_array": np.array(True),
            "steps": layer.steps,
            "dt_s": np.array(raster.dt_s),
            "layer_shape": np.array(layer.shape, np.int64),
        }.items():
            _add(archive, name, value.dtype, value.shape, [value])


def _add(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[np.generic],
    shape: tuple[int, ...],
    parts: Iterable[npt.NDArray[np.generic]],
) -> None:
    """Adds an array whose size is known before its contents."""
    # Its size is known to NumPy's header only: zip would give up beyond 2 GiB.
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False,
                  "shape": shape}  # fmt: skip
        np.lib.format.write_array_header_1_0(member, header)
        for part in parts:
            member.write(part.tobytes())
