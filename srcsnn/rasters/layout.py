"""The geometry of a raster file: which neuron is which bit, and how the bits are cut into chunks.

Pure functions and values; nothing here touches a file. The specification is
`docs/reference/raster-format.md`.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from srcsnn.errors import RasterError
from srcsnn.rasters.policy import RecordPolicy

FORMAT = "srcsnn-spikes"
FORMAT_VERSION = (1, 0)
"""Major and minor; a reader refuses a newer major and reads any minor."""

CHUNK_BYTES = 256 * 1024
"""Upper limit of a chunk before compression."""

SMALL_MAP = 64
"""Maps with fewer positions share one row, as padding each to whole bytes would waste too much."""

LayerKind = Literal["input", "conv", "linear", "sum"]

_LARGEST_BLOCK = 256
_SMALLEST_BLOCK = 4
_BUFFER_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class LayerLayout:
    """One layer of neurons.

    Attributes:
        name: Qualified name in the network, such as `"features.0"`; no slash.
        shape: Of one step without batch: (N,), (C, L), (C, H, W) or (C, D, H, W).
        kind: What drives the neurons.
        threshold: Membrane threshold, if there is one.
        decay: Factor by which the membrane decays in a step, if there is one.

    Raises:
        RasterError: If the name or the shape cannot be stored.
    """

    name: str
    shape: tuple[int, ...]
    kind: LayerKind
    threshold: float | None = None
    decay: float | None = None

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or "\0" in self.name or self.name in (".", ".."):
            raise RasterError(
                f"a layer cannot be recorded as {self.name!r}: names are not empty, '.' or '..' "
                "and have no slash"
            )
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        if not 1 <= len(self.shape) <= 4 or min(self.shape) < 1:
            raise RasterError(
                f"layer {self.name}: shape {self.shape} cannot be recorded; it must be (N,), "
                "(C, L), (C, H, W) or (C, D, H, W) with sizes from 1 on"
            )
        if self.kind not in get_args(LayerKind):
            raise RasterError(
                f"layer {self.name}: kind {self.kind!r} is none of {', '.join(get_args(LayerKind))}"
            )

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class RasterLayout:
    """Everything a recorder must know before the first step.

    Attributes:
        layers: In network order, the input first.
        steps_planned: How many steps the run is meant to have.
        dt_s: Length of a step in seconds.
        provenance: Configuration, seeds, versions; anything that JSON can hold.

    Raises:
        RasterError: If there is no layer, two have the same name, or a number is out of range.
    """

    layers: tuple[LayerLayout, ...]
    steps_planned: int
    dt_s: float
    provenance: dict[str, Any] = field(default_factory=dict)  # Any: whatever JSON can hold

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        names = [layer.name for layer in self.layers]
        if not names:
            raise RasterError("a raster needs at least one layer")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RasterError(f"two layers have the same name: {', '.join(twice)}")
        if self.steps_planned < 0:
            raise RasterError(f"steps_planned must not be negative, got {self.steps_planned}")
        if not 0 < self.dt_s <= 1e9:
            raise RasterError(f"dt_s must be above 0 and at most 1e9 seconds, got {self.dt_s}")

    def selected(self, policy: RecordPolicy) -> tuple[LayerLayout, ...]:
        """The layers that the policy records, in network order."""
        names = set(policy.select([layer.name for layer in self.layers]))
        return tuple(layer for layer in self.layers if layer.name in names)


@dataclass(frozen=True)
class Packing:
    """How the neurons of one step become rows of bits.

    Attributes:
        rows: C if each channel has its own row, else 1.
        bits: Neurons in a row; the last byte of a row is filled up with zeros.
        per_channel: Whether each channel has its own row.
    """

    rows: int
    bits: int
    per_channel: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return -(-self.bits // 8)


def packing_of(shape: tuple[int, ...]) -> Packing:
    """One row per channel; a single row for (N,) and for maps of fewer than 64 positions."""
    positions = math.prod(shape[1:])
    if len(shape) > 1 and positions >= SMALL_MAP:
        return Packing(rows=shape[0], bits=positions, per_channel=True)
    return Packing(rows=1, bits=math.prod(shape), per_channel=False)


def pack(spikes: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Packs spikes (T, *shape) into bytes (T, rows, row_bytes), lowest bit first."""
    packing = packing_of(spikes.shape[1:])
    rows = spikes.reshape(len(spikes), packing.rows, packing.bits)
    return np.packbits(rows, axis=-1, bitorder="little")


def unpack(packed: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The inverse of `pack`: bytes (T, rows, row_bytes) to spikes (T, *shape)."""
    bits = np.unpackbits(packed, axis=-1, count=packing_of(shape).bits, bitorder="little")
    return bits.view(np.bool_).reshape(len(packed), *shape)


def channels_of(shape: tuple[int, ...]) -> int:
    """Columns of the counts per channel: C, or 1 for a layer of shape (N,)."""
    return shape[0] if len(shape) > 1 else 1


def counts_dtype(shape: tuple[int, ...]) -> np.dtype[np.unsignedinteger[Any]]:
    """The smallest unsigned type that holds the spikes of a whole channel in one step."""
    return np.min_scalar_type(math.prod(shape) // channels_of(shape))


def block_steps(neurons: int) -> int:
    """Recorded steps in a block, a power of two between 4 and 256.

    The fewer blocks, the fewer times the network waits for HDF5, which holds the interpreter.
    Large networks take short ones, so that the two blocks in memory, a byte per neuron and step,
    stay within 64 MB while they can.

    Args:
        neurons: Number of neurons in all recorded layers.
    """
    steps = _LARGEST_BLOCK
    while steps > _SMALLEST_BLOCK and 2 * steps * neurons > _BUFFER_BYTES:
        steps //= 2
    return steps


def chunk_shape(steps: int, rows: int, row_bytes: int) -> tuple[int, int, int]:
    """Cuts (T, rows, row_bytes) into chunks of at most 256 KiB.

    Time is cut only when a single row is long, and then into powers of two, so that a block of
    `steps` (a power of two) is always a whole number of chunks.

    Returns:
        Steps, rows and bytes of a chunk.
    """
    width = min(row_bytes, CHUNK_BYTES)
    while steps > 1 and steps * width > CHUNK_BYTES:
        steps //= 2
    height = max(1, min(rows, CHUNK_BYTES // (steps * width)))
    # Even chunks: 17 rows at 16 a chunk would store the padding of 15 rows.
    height = -(-rows // -(-rows // height))
    return steps, height, width


def estimate_bytes(layout: RasterLayout, policy: RecordPolicy, rate: float | None = None) -> int:
    """About how many bytes the file will have.

    Args:
        layout: Of the run.
        policy: What is recorded.
        rate: Expected spikes per neuron and step in [0, 1]; without it, the upper limit.

    Raises:
        ConfigError: If a glob of the policy matches no layer.
    """
    rows = policy.rows(layout.steps_planned)
    total = 0
    for layer in layout.selected(policy):
        packing = packing_of(layer.shape)
        bits = 0 if policy.counts_only else rows * packing.rows * packing.row_bytes
        counts = rows * channels_of(layer.shape) * counts_dtype(layer.shape).itemsize
        totals = 4 * layer.neurons * (2 if policy.counts_only else 1)
        total += math.ceil(bits * _compressed_share(rate)) + counts + totals + 16 * 1024
    return total


def _compressed_share(rate: float | None) -> float:
    """Compressed size of packed bits over raw size; measured: 1.0 to 1.6 times the entropy."""
    if rate is None:
        return 1.0
    if rate <= 0 or rate >= 1:
        return 0.01
    entropy = -rate * math.log2(rate) - (1 - rate) * math.log2(1 - rate)
    return min(1.0, 1.5 * entropy + 0.01)
