"""The four distortions of the paper (Delanois et al. 2023, Section "Distortions") and their levels.

Every distortion maps images in [0, 1] to images in [0, 1]; level 0, the clean image, is not listed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from srcsnn.errors import ConfigError
from srcsnn.noise import Noise
from srcsnn.plugins import nearest

__all__ = [
    "DISTORTIONS", "Distortion", "GaussianBlur", "GaussianNoise", "SaltAndPepper", "Speckle",
    "default_distortions", "parse_distortions",
]  # fmt: skip

_TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


class Distortion(Protocol):
    """A way to make images worse. Pure: whatever is random comes out of `noise`."""

    @property
    def name(self) -> str:
        """As in tables and as the key of its noise."""

    @property
    def levels(self) -> tuple[float, ...]:
        """Intensities, weakest first, in the distortion's own unit."""

    def __call__(self, images: Tensor, level: float, noise: Noise) -> Tensor:
        """Distorted images, clamped to [0, 1]; shape, dtype and device as given.

        Args:
            images: (B, C, H, W) in [0, 1].
            level: intensity.
            noise: of these B images.
        """


@dataclass(frozen=True)
class GaussianNoise:
    """`x + N(0, level)`, the level a standard deviation."""

    name: str = "gaussian-noise"
    levels: tuple[float, ...] = _TENTHS

    def __call__(self, images: Tensor, level: float, noise: Noise) -> Tensor:
        """See `Distortion`."""
        return noise.normal(images.shape[1:]).to(images).mul_(level).add_(images).clamp_(0, 1)


@dataclass(frozen=True)
class GaussianBlur:
    """Gaussian blur, the level its sigma in pixels.

    Replicated border, radius `int(4 sigma + 0.5)`: the same as scipy's `gaussian_filter` with
    `mode="nearest"` and its default truncation. As two matrix products, one for each axis.
    """

    name: str = "gaussian-blur"
    levels: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)

    def __post_init__(self) -> None:
        if not all(0 < level < math.inf for level in self.levels):
            raise ConfigError(f"{self.name}: levels {self.levels}: a sigma must be above 0")

    def __call__(self, images: Tensor, level: float, noise: Noise) -> Tensor:
        """See `Distortion`; draws nothing."""
        rows, columns = (_blur_matrix(size, level).to(images) for size in images.shape[-2:])
        return (rows @ images @ columns.T).clamp_(0, 1)


@dataclass(frozen=True)
class SaltAndPepper:
    """A share of the pixels set to 1 or 0 with equal chance.

    Args:
        per_channel: whether each colour channel of a pixel is hit on its own; the paper does not
            say, and all channels together is our default.
    """

    name: str = "salt-and-pepper"
    levels: tuple[float, ...] = _TENTHS
    per_channel: bool = False

    def __call__(self, images: Tensor, level: float, noise: Noise) -> Tensor:
        """See `Distortion`."""
        channels = images.shape[1] if self.per_channel else 1
        drawn = noise.uniform((channels, *images.shape[2:])).to(images.device)
        salted = torch.where(drawn < level / 2, 1.0, images)
        return torch.where(drawn >= 1 - level / 2, 0.0, salted)


@dataclass(frozen=True)
class Speckle:
    """`x + x * N(0, level)`, the level a standard deviation. Black pixels stay black."""

    name: str = "speckle"
    levels: tuple[float, ...] = (0.25, 0.50, 0.60, 0.75, 0.90, 1.0)

    def __call__(self, images: Tensor, level: float, noise: Noise) -> Tensor:
        """See `Distortion`."""
        factor = noise.normal(images.shape[1:]).to(images).mul_(level).add_(1)
        return factor.mul_(images).clamp_(0, 1)


_ABBREVIATIONS: Mapping[str, Distortion] = {
    "gn": GaussianNoise(),
    "gb": GaussianBlur(),
    "sp": SaltAndPepper(),
    "se": Speckle(),
}
DISTORTIONS: Mapping[str, Distortion] = {d.name: d for d in _ABBREVIATIONS.values()}
"""The paper's four, at the paper's levels, by name."""


def default_distortions(channels: int) -> tuple[Distortion, ...]:
    """All four for colour images; the paper leaves speckle out on grey ones (MNIST)."""
    return tuple(d for d in DISTORTIONS.values() if channels > 1 or d.name != "speckle")


def parse_distortions(words: str) -> tuple[Distortion, ...]:
    """The distortions named in a comma-separated list of names or abbreviations, each once.

    Raises:
        ConfigError: for a name that there is not.

    >>> print(*(distortion.name for distortion in parse_distortions("gn,speckle")))
    gaussian-noise speckle
    """
    known = {**_ABBREVIATIONS, **DISTORTIONS}
    found = []
    for word in words.split(","):
        name = word.strip().lower()
        if name not in known:
            raise ConfigError(
                f"no distortion {word.strip()!r}{nearest(name, known)}; there are "
                f"{', '.join(_ABBREVIATIONS)} ({', '.join(DISTORTIONS)})"
            )
        found.append(known[name])
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=64)
def _blur_matrix(size: int, sigma: float) -> Tensor:
    """(size, size): each row the blur's weights on a line of pixels, the border folded in."""
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    taps = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    taps /= taps.sum()
    positions = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, positions, taps.expand(size, -1))
