"""Writes the page: what the file says of itself, counts of all steps, and spikes up to a budget.

Everything goes into one HTML file, as a page that is opened from the file system may read nothing
else. Numbers are packed, compressed with gzip, which browsers undo, and written in base64.
"""

import gzip
import html
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from srcsnn.files import json_text
from srcsnn.rasters.density import channel_bins
from srcsnn.rasters.layer import LayerRaster
from srcsnn.rasters.layout import channels_of
from srcsnn.rasters.reader import Raster
from srcsnn.rasters.summary import summarize

BUDGET_BYTES = 25_000_000
"""Of spikes in a page, if nobody asks for more: opened within two seconds."""

_LARGEST_TOTALS = 4_000_000  # neurons of a layer whose totals are in the page
_OVERVIEW = 2048  # bins of steps in the counts of each channel
_BLOCK_BYTES = 8 * 1024**2
_BLOCK_STEPS = 512
_SCRIPTS = (
    "layer.js", "picture.js", "page.js", "moves.js", "about.js", "saving.js", "controls.js",
)  # fmt: skip


@dataclass(frozen=True)
class Embedded:
    """What a page holds.

    Attributes:
        steps: Recorded steps whose spikes are in it; the counts are of all.
        of: Recorded steps in the file.
        bytes: Of spikes, as compressed and written.
    """

    steps: int
    of: int
    bytes: int


def write_page(
    raster: Raster,
    file: BinaryIO,
    budget_bytes: int = BUDGET_BYTES,
    windows: Sequence[slice] | None = None,
) -> Embedded:
    """Writes the page for a raster file.

    Memory does not grow with the file: spikes are read and written in blocks.

    Args:
        raster: An open file.
        file: Where the page goes; UTF-8.
        budget_bytes: Of spikes; when it is spent, the rest is in the page as counts alone.
        windows: Recorded steps whose spikes are wanted; without it, from the first on.

    Raises:
        RasterError: If the file is damaged.
    """
    wanted = [slice(0, raster.steps_valid)] if windows is None else windows
    head, tail = _template(raster, served=False)
    file.write(head.encode())
    for index, layer in enumerate(raster.values()):
        for what, values in _counts(layer):
            file.write(_element(what, index, 0, values).encode())
    spent = 0
    steps = 0
    size = block_steps(raster)
    for first in _blocks(wanted, size, raster.steps_valid):
        block = [
            _element("bits", index, first, packed_bits(layer, first, first + size))
            for index, layer in enumerate(raster.values())
            if not layer.counts_only
        ]
        length = sum(map(len, block))
        if not block or spent + length > budget_bytes:
            break
        file.write("".join(block).encode())
        spent += length
        steps += min(size, raster.steps_valid - first)
    file.write(tail.encode())
    return Embedded(steps, raster.steps_valid, spent)


def served_page(raster: Raster) -> str:
    """The page without spikes, which it asks `srcsnn.rasters.viewer.server` for."""
    head, tail = _template(raster, served=True)
    counts = [
        _element(what, index, 0, values)
        for index, layer in enumerate(raster.values())
        for what, values in _counts(layer)
    ]
    return "".join([head, *counts, tail])


def block_steps(raster: Raster) -> int:
    """Recorded steps in a block: a power of two from 8 to 512, some megabytes of all layers."""
    row = sum(4 * -(-layer.neurons // 32) for layer in raster.values())
    steps = _BLOCK_STEPS
    while steps > 8 and steps * row > _BLOCK_BYTES:
        steps //= 2
    return steps


def packed_bits(layer: LayerRaster, first: int, last: int) -> npt.NDArray[np.uint8]:
    """Spikes of some recorded steps: a row each, neurons in C order, filled up to 32 bits."""
    spikes = layer.spikes(slice(first, last))
    packed = np.packbits(spikes.reshape(len(spikes), -1), axis=1, bitorder="little")
    return np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4)))


def _blocks(windows: Sequence[slice], size: int, valid: int) -> Iterator[int]:
    """First steps of the blocks that the windows touch, each once."""
    seen = set()
    for window in windows:
        start, stop, _ = window.indices(valid)
        for first in range(start // size * size, stop, size):
            if first not in seen:
                seen.add(first)
                yield first


def _template(raster: Raster, served: bool) -> tuple[str, str]:
    """The page up to its data, and what follows them."""
    folder = files(__package__)

    def text(name: str) -> str:
        return folder.joinpath(name).read_text("utf-8")

    contents = {
        "TITLE": html.escape(raster.name),
        "STYLE": text("page.css"),
        "ABOUT": json_text(_about(raster, served)).replace("<", "\\u003c"),  # no end of the element
        "SCRIPT": "\n".join(map(text, _SCRIPTS)),
    }
    head, tail = (
        re.sub(r"\{\{([A-Z]+)\}\}", lambda place: contents[place[1]], part)
        for part in text("page.html").split("{{DATA}}")
    )
    return head, tail


def _about(raster: Raster, served: bool) -> dict[str, Any]:  # Any: whatever JSON can hold
    """What the page is told in words and small numbers."""
    layers = []
    for summary, layer in zip(summarize(raster), raster.values(), strict=True):
        channels = channels_of(layer.shape)
        layers.append(
            asdict(summary)
            | {
                "channels": channels,
                "countsOnly": layer.counts_only,
                "threshold": layer.threshold,
                "decay": layer.decay,
                "overviewBin": _overview_bin(layer),
            }
        )
    return {
        "file": raster.name,
        "status": raster.status,
        "steps": raster.steps_valid,
        "planned": -(-raster.steps_planned // raster.every),
        "every": raster.every,
        "dt": raster.dt_s,
        "block": block_steps(raster),
        "served": served,
        "layers": layers,
    }


def _overview_bin(layer: LayerRaster) -> int:
    return -(-layer.recorded // _OVERVIEW)


def _counts(layer: LayerRaster) -> Iterator[tuple[str, npt.NDArray[np.uint32]]]:
    """Counts of all steps: of each neuron, of each channel in bins, of the layer in each step."""
    if layer.neurons <= _LARGEST_TOTALS:
        yield "totals", layer.neuron_counts().ravel().astype("<u4")
    bin = _overview_bin(layer)
    overview = [counts.astype("<u4") for counts in channel_bins(layer, bin)]
    yield "overview", np.concatenate(overview)
    yield "population", layer.population_counts().astype("<u4")


def _element(what: str, layer: int, first: int, values: npt.NDArray[Any]) -> str:
    text = b64encode(gzip.compress(values.tobytes(), compresslevel=1, mtime=0)).decode()
    return f'<script type="text/plain" id="{what}-{layer}-{first}">{text}</script>\n'
