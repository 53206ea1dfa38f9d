"""Noise that belongs to an image, not to a batch: the same for any batch size, order or worker."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srcsnn.seeding import key

__all__ = ["Noise"]


@dataclass(frozen=True)
class Noise:
    """Random numbers for some images of a set, keyed by (seed, name, level, image index).

    Counter-based (Philox 4x64, Salmon et al. 2011): image i owns its own span of the counter, so
    the numbers of a batch of neighbours are one run of the generator. Drawn on the CPU. The same
    call gives the same numbers again; `uniform` and `normal` are independent of each other.

    Args:
        seed: of the evaluation.
        name: of the distortion.
        level: its intensity.
        indices: the images' numbers in their set, from 0.
    """

    seed: int
    name: str
    level: float
    indices: tuple[int, ...] | range

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Independent numbers in (0, 1), float32, (len(indices), *shape)."""
        numbers = _uniform(self._words("uniform", math.prod(shape)))
        return torch.from_numpy(numbers).view(-1, *shape)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Independent standard normal numbers, float32, (len(indices), *shape).

        By Box and Muller, up to 5.8 standard deviations, where 23-bit uniform numbers end.
        """
        count = math.prod(shape)
        half = (count + 1) // 2
        numbers = torch.from_numpy(_uniform(self._words("normal", 2 * half)))
        radius = numbers[:, :half].log().mul_(-2).sqrt_()
        angle = numbers[:, half:] * (2 * math.pi)
        pairs = torch.cat([angle.cos().mul_(radius), angle.sin().mul_(radius)], dim=1)
        return pairs[:, :count].reshape(-1, *shape)

    def _words(self, kind: str, count: int) -> npt.NDArray[np.uint32]:
        """`count` random 32-bit words for each image."""
        stream = key(self.seed, "distortion", self.name, float(self.level), kind)
        counters = -(-count // 8)  # a counter gives four words of 64 bits
        words = np.empty((len(self.indices), counters * 8), dtype=np.uint32)
        row = 0
        for first, length in _runs(self.indices):
            generator = np.random.Philox(key=stream)
            generator.advance(first * counters)
            drawn = generator.random_raw(length * counters * 4).astype("<u8", copy=False)
            words[row : row + length] = drawn.view("<u4").reshape(length, -1)
            row += length
        return words[:, :count]


def _runs(indices: tuple[int, ...] | range) -> Iterator[tuple[int, int]]:
    """(first, length) of each run of consecutive numbers."""
    if isinstance(indices, range) and indices.step == 1:
        yield indices.start, len(indices)
        return
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    for run in np.split(np.asarray(indices), breaks):
        yield int(run[0]), len(run)


def _uniform(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """The upper 23 bits, in the middle of their interval: exact in float32, never 0 or 1."""
    return ((words >> 9).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)
