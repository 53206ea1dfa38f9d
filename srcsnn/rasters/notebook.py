"""What a notebook shows of a raster file: a table with sparklines."""

from html import escape

from srcsnn.rasters.reader import Raster
from srcsnn.rasters.summary import LayerSummary, summarize

_HEADINGS = ("layer", "shape", "spikes", "rate", "silent", "saturated", "population rate")


def table_of(raster: Raster) -> str:
    """A row for each layer, as HTML without style or script of its own.

    Raises:
        RasterError: If the file is damaged.
    """
    summaries = summarize(raster)
    planned = -(-raster.steps_planned // raster.every)
    caption = f"{raster.name}: {raster.status}, {raster.steps_valid:,} of {planned:,} steps"
    heads = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
    rows = "".join(f"<tr>{_cells(layer)}</tr>" for layer in summaries)
    notes = "".join(f"<li>{escape(text)}</li>" for layer in summaries for text in layer.warnings)
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table>{f'<ul>{notes}</ul>' if notes else ''}"
    )


def _cells(layer: LayerSummary) -> str:
    cells = (
        layer.name,
        "x".join(map(str, layer.shape)),
        f"{layer.spikes:,}",
        f"{layer.rate_mean:.4f}",
        f"{layer.silent_share:.1%}",
        f"{layer.saturated_share:.1%}",
        layer.sparkline,
    )
    return "".join(f"<td>{escape(cell)}</td>" for cell in cells)
