"""Compresses chunks exactly as HDF5's gzip filter would, but in any thread and faster.

zlib releases the GIL, so the network goes on computing meanwhile; and the match search of plain
gzip level 1 is wasted on independent spikes, where run lengths do better in half the time.
"""

import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_LEVEL = 1
_SAMPLE_SHARE = 16
_SMALLEST_SAMPLE = 2 * 1024


def deflate(raw: bytes) -> bytes:
    """A zlib stream of `raw`.

    Run lengths do well on independent spikes; where the same neurons fire step after step, the
    match search does much better, so that a sixteenth is compressed both ways to find out.
    """
    sample = raw[: len(raw) // _SAMPLE_SHARE]
    if len(sample) < _SMALLEST_SAMPLE:
        return _compress(raw, zlib.Z_RLE)
    by_runs = len(_compress(sample, zlib.Z_RLE))
    by_matches = len(_compress(sample, zlib.Z_DEFAULT_STRATEGY))
    return _compress(raw, zlib.Z_RLE if by_runs <= by_matches else zlib.Z_DEFAULT_STRATEGY)


def _compress(raw: bytes, strategy: int) -> bytes:
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    return stream.compress(raw) + stream.flush()


def deflated_chunks(
    table: npt.NDArray[np.uint8], chunk: tuple[int, int, int]
) -> Iterator[tuple[tuple[int, int, int], bytes]]:
    """Cuts bytes (T, rows, row_bytes) into chunks; those at the edges are filled up with zeros.

    Yields:
        Offset of the chunk in the table, and its compressed bytes.
    """
    steps, height, width = chunk
    for t in range(0, table.shape[0], steps):
        for row in range(0, table.shape[1], height):
            for byte in range(0, table.shape[2], width):
                part = table[t : t + steps, row : row + height, byte : byte + width]
                if part.shape != chunk:
                    whole = np.zeros(chunk, np.uint8)
                    whole[: part.shape[0], : part.shape[1], : part.shape[2]] = part
                    part = whole
                yield (t, row, byte), deflate(part.tobytes())
