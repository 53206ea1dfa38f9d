"""Checks a raster file against `docs/reference/raster-format.md` and says all that is wrong.

Written from that page alone: but for opening the file it shares no code with what writes and reads
such files, so that a mistake of theirs is not its own. Structure first; contents only of what has
its structure. `Any` throughout: h5py ships no types.
"""
# ruff: noqa: ANN401

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from srcsnn.rasters.checks import LARGEST_CONFIG, Checked, damage_named, foreign, open_file
from srcsnn.rasters.violations import (
    Violation,
    attribute,
    dtype_of,
    first_of,
    growing,
    number_of,
    small,
)

_CHUNK = 256 * 1024
_ROWS_AT_ONCE_BYTES = 4 * 1024**2
_KINDS = ("input", "conv", "linear", "sum")
_STATUS = re.compile(
    r"complete|recording|(stopped) at step (\d+) of (\d+)|(aborted) at step (\d+):.*"
)


@dataclass(frozen=True)
class Validation:
    """What came out.

    Attributes:
        violations: All that were found; none if the file is valid.
        version: Major and minor, as the file says.
        layers: Number of layers.
        rows: Recorded steps that count.
    """

    violations: tuple[Violation, ...]
    version: tuple[int, int]
    layers: int
    rows: int


def validate(path: str | Path) -> Validation:
    """Compares a file with the specification, its contents too, in bounded memory.

    Args:
        path: A finished file, or the `.part` that a killed run has left.

    Raises:
        RasterError: If it cannot be opened, is no raster file, or of a newer version.
    """
    path = Path(path)
    with open_file(path) as file, damage_named(path):
        Checked(file, path).check_format()
        version = tuple(int(number) for number in file.attrs["format_version"])
        linked = [Violation(*each) for each in foreign(file)]
        if linked:
            return Validation(tuple(linked), (version[0], version[1]), 0, 0)
        found = list(_root(file))
        rows = first_of(file.get("steps_valid"), 1)
        layers = file.get("layers")
        groups = dict(layers) if isinstance(layers, h5py.Group) else {}
        found += _indices(groups)
        for name, group in groups.items():
            found += _layer(group, name, rows, file)
        return Validation(tuple(found), (version[0], version[1]), len(groups), rows)


def _root(file: Any) -> Iterator[Violation]:
    superblock = file.id.get_create_plist().get_version()[0]
    if superblock != 0:
        yield Violation("/", f"superblock version {superblock}; it must be 0")
    if dtype_of(file, "format_version") != "<i8":
        yield Violation("/ attribute format_version", "must be two numbers, int64")
    yield from attribute(file, "dt_s", "<f8", smallest=np.nextafter(0, 1), largest=1e9)
    yield from attribute(file, "steps_planned", "<i8", smallest=0)
    yield from attribute(file, "every", "<i8", smallest=1, largest=10**9)
    yield from attribute(file, "software", str)
    yield from _created(file)
    yield from small(file, "steps_valid", "<i8", (1,))
    yield from small(file, "complete", "|u1", (1,))
    yield from small(file, "counts_rows", "<i8", (2,))
    yield from _provenance(file)
    if not isinstance(file.get("layers"), h5py.Group) or not len(file["layers"]):
        yield Violation("/layers", "there must be a group with a layer or more")
    rows, every = first_of(file.get("steps_valid"), 1), number_of(file, "every") or 1
    if rows < 1:
        yield Violation("/steps_valid", f"is {rows}; no row counts")
    yield from _steps(file, rows, every)
    yield from _ending(file, rows, every)


def _created(file: Any) -> Iterator[Violation]:
    yield from attribute(file, "created", str)
    text = file.attrs.get("created", "")
    try:
        offset = datetime.fromisoformat(str(text)).utcoffset()
    except ValueError:
        offset = None
    if offset is None or offset.total_seconds():
        yield Violation("/ attribute created", f"is {text!r}, not a time in ISO 8601, UTC")


def _provenance(file: Any) -> Iterator[Violation]:
    where, dataset = "/provenance/config", file.get("provenance/config")
    if not isinstance(dataset, h5py.Dataset) or dataset.shape != ():
        yield Violation(where, "there must be a text")
        return
    text = h5py.check_string_dtype(dataset.dtype)
    if text is None or (text.length or 0) > LARGEST_CONFIG:
        yield Violation(where, "there must be a text")
        return
    try:
        config = json.loads(dataset[()], parse_constant=_refuse)
    except (ValueError, TypeError, RecursionError) as error:
        yield Violation(where, f"is not JSON ({error})")
        return
    if not isinstance(config, dict):
        yield Violation(where, "is not a JSON object")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _steps(file: Any, rows: int, every: int) -> Iterator[Violation]:
    if every == 1:
        if "steps" in file:
            yield Violation("/steps", "is only to be there if every is above 1")
        return
    yield from (wrong := list(growing(file, "steps", ("<i8",), (), rows)))
    if not wrong:
        odd = np.flatnonzero(file["steps"][:rows] != every * np.arange(rows))
        if len(odd):
            yield Violation("/steps", f"row {odd[0]} is not step {every * odd[0]} (every {every})")


def _ending(file: Any, rows: int, every: int) -> Iterator[Violation]:
    """How the recording ended: three places say it, and the number of rows."""
    planned = number_of(file, "steps_planned") or 0
    complete = first_of(file.get("complete"), 0)
    status = file.get("status")
    if not isinstance(status, h5py.Dataset) or status.shape != () or status.dtype.kind != "S":
        yield Violation("/status", "there must be a text of up to 256 bytes")
        return
    if status.dtype.itemsize > 256:
        yield Violation("/status", f"has room for {status.dtype.itemsize} bytes; 256 are allowed")
        return
    text = bytes(status[()]).decode(errors="replace")
    known = _STATUS.fullmatch(text)
    if not known:
        yield Violation("/status", f"is {text!r}, which means nothing")
        return
    if (complete == 1) != (text == "complete") or complete not in (0, 1):
        yield Violation("/complete", f"is {complete}, but the status is {text!r}")
    if text == "complete" and rows < -(-planned // every):
        yield Violation("/steps_valid", f"is {rows}; a complete run has {-(-planned // every)}")
    step = known[2] or known[5]
    if step and rows != -(-int(step) // every):
        yield Violation("/status", f"is {text!r}, but {rows} rows count")
    if known[1] and int(known[3]) != planned:
        yield Violation("/status", f"is {text!r}, but {planned} steps were planned")
    counted = file.get("counts_rows")
    if text != "recording" and first_of(counted, -1) != rows:
        yield Violation("/counts_rows", f"does not cover the {rows} rows of a closed file")


def _indices(groups: dict[str, Any]) -> Iterator[Violation]:
    indices = sorted(number_of(group, "index") or 0 for group in groups.values())
    if indices != list(range(len(groups))):
        yield Violation("/layers", f"have indices {indices}; they must be 0 to {len(groups) - 1}")
    for name in groups:
        if name in (".", "..") or "/" in name:
            yield Violation(f"/layers/{name}", "is no name of a layer")


def _layer(group: Any, name: str, rows: int, file: Any) -> Iterator[Violation]:
    where = f"/layers/{name}"
    if not isinstance(group, h5py.Group):
        yield Violation(where, "is not a group")
        return
    wrong = list(_layer_attributes(group))
    shape = np.asarray(group.attrs.get("shape", ()))
    if shape.dtype != "<i8" or shape.ndim != 1 or not 1 <= shape.size <= 4 or shape.min() < 1:
        yield from wrong
        yield Violation(f"{where} attribute shape", "must be int64, 1 to 4 sizes from 1 on")
        return
    sizes = tuple(int(size) for size in shape)
    by_channel = len(sizes) > 1 and math.prod(sizes[1:]) >= 64
    packing = "channel" if by_channel else "layer"
    if group.attrs.get("packing") != packing:
        wrong.append(Violation(f"{where} attribute packing", f"must be {packing!r} for {sizes}"))
    counts_only = group.attrs.get("record") == "counts"
    wrong += _datasets(group, sizes, by_channel, counts_only, rows)
    yield from wrong
    if wrong or rows < 1:
        return
    try:
        yield from _contents(group, sizes, by_channel, counts_only, rows, file)
    except OSError as error:
        yield Violation(where, f"has rows that cannot be read ({' '.join(str(error).split())})")


def _layer_attributes(group: Any) -> Iterator[Violation]:
    yield from attribute(group, "index", "<i8", smallest=0)
    for name, allowed in {
        "kind": _KINDS, "bit_order": ("little",), "record": ("full", "counts"),
        "NX_class": ("NXdata",), "signal": ("counts_ct",),
    }.items():  # fmt: skip
        if group.attrs.get(name) not in allowed:
            yield Violation(
                f"{group.name} attribute {name}",
                f"is {group.attrs.get(name)!r}; it must be {' or '.join(allowed)}",
            )
    for name in ("threshold", "decay"):
        if name in group.attrs:
            yield from attribute(group, name, "<f8", smallest=-np.inf)


def _datasets(
    group: Any, shape: tuple[int, ...], by_channel: bool, counts_only: bool, rows: int
) -> Iterator[Violation]:
    channels = shape[0] if len(shape) > 1 else 1
    bits = math.prod(shape[1:]) if by_channel else math.prod(shape)
    inner = (channels if by_channel else 1, -(-bits // 8))
    if counts_only and "bits" in group:
        yield Violation(f"{group.name}/bits", "must not be there if record is 'counts'")
    if not counts_only:
        yield from growing(group, "bits", ("|u1",), inner, rows, _CHUNK)
    yield from growing(group, "counts_ct", ("|u1", "<u2", "<u4"), (channels,), rows, _CHUNK)
    yield from small(group, "counts_n", "<u4", shape)
    if counts_only:
        yield from small(group, "counts_n_alt", "<u4", shape)
    elif "counts_n_alt" in group:
        yield Violation(f"{group.name}/counts_n_alt", "is only to be there if record is 'counts'")


def _contents(
    group: Any,
    shape: tuple[int, ...],
    by_channel: bool,
    counts_only: bool,
    rows: int,
    file: Any,
) -> Iterator[Violation]:
    """Whether counts and spikes agree, and unused bits are 0."""
    channels = shape[0] if len(shape) > 1 else 1
    neurons = math.prod(shape)
    used = neurons // channels if by_channel else neurons
    totals = np.zeros(neurons if not counts_only else channels, np.int64)
    padded, differing = _Rows(), _Rows()
    length = max(1, _ROWS_AT_ONCE_BYTES // neurons)
    for first in range(0, rows, length):
        counts = group["counts_ct"][first : min(rows, first + length)].astype(np.int64)
        if counts_only:
            totals += counts.sum(axis=0)
            continue
        packed = group["bits"][first : min(rows, first + length)]
        spikes = np.unpackbits(packed, axis=-1, bitorder="little")
        padded.note(first, spikes[..., used:].any(axis=(1, 2)))
        spikes = spikes[..., :used].reshape(len(counts), channels, -1)
        differing.note(first, (spikes.sum(axis=2, dtype=np.int64) != counts).any(axis=1))
        totals += spikes.reshape(len(counts), -1).sum(axis=0, dtype=np.int64)
    if padded:
        yield Violation(f"{group.name}/bits", f"{padded}: bits behind the last neuron are not 0")
    if differing:
        yield Violation(f"{group.name}/counts_ct", f"{differing}: other numbers than bits are set")
    yield from _totals(group, totals, channels, counts_only, rows, file)


def _totals(
    group: Any, totals: Any, channels: int, counts_only: bool, rows: int, file: Any
) -> Iterator[Violation]:
    if any(small(file, "counts_rows", "<i8", (2,))):
        return  # which is said already
    covered = [int(number) for number in file["counts_rows"][...]]
    if counts_only and rows not in covered:
        yield Violation("/counts_rows", f"neither of {covered} is {rows}, and there are no bits")
    for name, of in zip(("counts_n", "counts_n_alt"), covered, strict=True):
        if of != rows or name not in group:
            continue
        found = group[name][...].astype(np.int64)
        if found.max() > rows:
            yield Violation(f"{group.name}/{name}", f"a neuron has {found.max()} in {rows} rows")
        compared = found.reshape(channels, -1).sum(axis=1) if counts_only else found.ravel()
        odd = np.flatnonzero(compared != totals)
        if len(odd):
            unit = "channel" if counts_only else "neuron"
            yield Violation(
                f"{group.name}/{name}",
                f"{unit} {odd[0]} has {compared[odd[0]]}, its rows hold {totals[odd[0]]}"
                + (f"; {len(odd) - 1} more differ" if len(odd) > 1 else ""),
            )


class _Rows:
    """Rows with the same fault: the first, and how many."""

    def __init__(self) -> None:
        self.first, self.number = -1, 0

    def note(self, start: int, faulty: Any) -> None:
        where = np.flatnonzero(faulty)
        if len(where) and not self.number:
            self.first = start + int(where[0])
        self.number += len(where)

    def __bool__(self) -> bool:
        return self.number > 0

    def __str__(self) -> str:
        more = f" and {self.number - 1} more" if self.number > 1 else ""
        return f"row {self.first}{more}"
