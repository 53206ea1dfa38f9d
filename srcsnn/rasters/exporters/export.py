"""An export: which layers of a raster go to which file, and how large that will be."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from srcsnn.errors import ConfigError, RasterError
from srcsnn.files import replacing
from srcsnn.rasters.disk import require_space
from srcsnn.rasters.exporters.csr import write_csr
from srcsnn.rasters.exporters.nwb import write_nwb
from srcsnn.rasters.exporters.sonata import write_sonata
from srcsnn.rasters.layer import LayerRaster
from srcsnn.rasters.reader import Raster

_FIXED_BYTES = 256 * 1024


@dataclass(frozen=True)
class Format:
    """What can be written.

    Attributes:
        suffix: By which a file of this format is recognised.
        write: Writes layers of a raster to a path where nothing is.
        spike_bytes: What a spike takes in the file.
        neuron_bytes: What a neuron takes, about.
        one_layer: Whether a file holds a single layer.
        needs: Library without which it cannot be written, of the extra `srcsnn[nwb]`.
    """

    suffix: str
    write: Callable[[Raster, Sequence[LayerRaster], Path], None]
    spike_bytes: int
    neuron_bytes: int = 0
    one_layer: bool = False
    needs: str | None = None


FORMATS = {
    "nwb": Format(".nwb", write_nwb, spike_bytes=8, neuron_bytes=104, needs="pynwb"),
    "sonata": Format(".sonata.h5", write_sonata, spike_bytes=16),
    # Compressed; measured: 1.4 if one neuron in ten fires or more, 2.5 if one in a thousand does.
    "csr": Format(".npz", write_csr, spike_bytes=2, one_layer=True),
}
"""By name."""


@dataclass(frozen=True)
class Export:
    """A file to be written.

    Attributes:
        path: Of the file.
        raster: An open raster.
        layers: Those of its layers that go into the file, in network order.
        format: Of the file.
        spikes: Spikes of the layers.
    """

    path: Path
    raster: Raster
    layers: tuple[LayerRaster, ...]
    format: Format
    spikes: int

    @property
    def bytes(self) -> int:
        """Size that the file will have, about."""
        neurons = sum(layer.neurons for layer in self.layers)
        varying = self.format.spike_bytes * self.spikes + self.format.neuron_bytes * neurons
        return varying + _FIXED_BYTES

    def write(self) -> None:
        """Writes the file, completely or not at all; replaces one that is there.

        Raises:
            RasterError: If the raster is damaged, or the file cannot be written.
        """
        with replacing(self.path, error=RasterError) as temporary:
            require_space(temporary.parent, 0, self.bytes)
            self.format.write(self.raster, self.layers, temporary)


def plan_exports(
    raster: Raster, output: Path, to: str | None = None, layers: Sequence[str] | None = None
) -> list[Export]:
    """What has to be written to export a raster.

    One file; of a format that holds a single layer one for each, if they are several: `OUT.npz`
    becomes `OUT.<layer>.npz`.

    Args:
        raster: An open file.
        output: The file to write.
        to: "nwb", "sonata" or "csr"; without it, the suffix of `output` decides.
        layers: Names; without it, all.

    Raises:
        ConfigError: If the format or a layer is not known, or the library that writes it is
            missing.
        RasterError: If only counts were recorded, or the raster does not say how long a step is.
    """
    format = _format_of(output, to)
    if format.needs and find_spec(format.needs) is None:
        raise ConfigError(
            f'writing {format.suffix} needs {format.needs}: pip install "srcsnn[nwb]"'
        )
    if not (raster.dt_s > 0 and math.isfinite(raster.dt_s * raster.every * raster.steps_valid)):
        raise RasterError(
            f"{raster.path}: damaged: dt_s is {raster.dt_s}, not a positive number of seconds "
            "that a step may last"
        )
    names = list(raster) if layers is None else [raster[name].name for name in layers]
    chosen = tuple(raster[name] for name in raster if name in names)
    for layer in chosen:
        if layer.counts_only:
            raise RasterError(
                f"{raster.path}: layer {layer.name} was recorded as counts only; there are no "
                "spikes to export, record without counts only"
            )
    if not format.one_layer or len(chosen) == 1:
        files = {output: chosen}
    else:
        stem, end = output.name.removesuffix(format.suffix), format.suffix
        files = {output.with_name(f"{stem}.{layer.name}{end}"): (layer,) for layer in chosen}
    return [
        Export(path, raster, held, format, sum(int(one.population_counts().sum()) for one in held))
        for path, held in files.items()
    ]


def _format_of(output: Path, to: str | None) -> Format:
    if to is not None:
        if to not in FORMATS:
            raise ConfigError(f"there is no format {to!r}; there are {', '.join(FORMATS)}")
        return FORMATS[to]
    for format in FORMATS.values():
        if output.name.endswith(format.suffix):
            return format
    suffixes = ", ".join(format.suffix for format in FORMATS.values())
    raise ConfigError(
        f"{output}: its suffix names no format; use {suffixes}, or --to {', '.join(FORMATS)}"
    )
