"""Sources of input spikes during sleep."""

from typing import Protocol

import torch
from torch import Tensor

from srcsnn.errors import ConfigError

__all__ = [
    "ClassMeans", "MovingWindow", "PoissonMean", "RealImages", "Replay", "UniformNoise",
]  # fmt: skip


class Replay(Protocol):
    """What the network sees while it sleeps."""

    def __call__(self, step: int, generator: torch.Generator) -> Tensor:
        """Input spikes (B, C, H, W) in {0, 1} of a time step.

        Args:
            step: number of the step, from 0.
            generator: on the CPU; draw from nothing else.
        """


class PoissonMean:
    """Noise shaped like an image: each pixel spikes on its own with a probability like its value.

    `P = rate_factor * dt_s * max_rate_hz * image` (Algorithm 1). Drawn on the CPU and moved, so
    that a seed means the same spikes on any device.

    Args:
        image: (C, H, W) in [0, 1], in the paper the mean of the training images; spikes come with
            its dtype, on its device.
        max_rate_hz: rate of a pixel of value 1.
        dt_s: duration of a step in seconds.
        rate_factor: 1 as printed in the paper; 2 is what the 2022 MATLAB code does.

    Raises:
        ConfigError: if a probability is above 1 or below 0.
    """

    def __init__(
        self, image: Tensor, *, max_rate_hz: float, dt_s: float, rate_factor: float = 1.0
    ) -> None:
        self._like = image.detach().unsqueeze(0)
        self.probability = _probability(self._like, max_rate_hz, dt_s, rate_factor)

    def __call__(self, step: int, generator: torch.Generator) -> Tensor:
        """See `Replay`; (1, C, H, W)."""
        return _spikes(self.probability, generator).to(self._like)


class RealImages:
    """Noise shaped like one image after another, drawn anew from all every few steps.

    What a network that hears its own memories would get; the paper's noise shows no image. Source:
    the input of a public Python port of SRC, which averages a few real images a step.

    Args:
        images: (N, C, H, W) in [0, 1].
        every: steps that an image stays.
        max_rate_hz: rate of a pixel of value 1.
        dt_s: duration of a step in seconds.
        rate_factor: as in `PoissonMean`.

    Raises:
        ConfigError: if a probability is above 1 or below 0, or `every` is not positive.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        every: int,
        max_rate_hz: float,
        dt_s: float,
        rate_factor: float = 1.0,
    ) -> None:
        if every < 1:
            raise ConfigError(f"every={every}: must be 1 or more steps")
        self._like, self._every = images.detach()[:1], every
        self._shown: Tensor | None = None
        self.probability = _probability(images.detach(), max_rate_hz, dt_s, rate_factor)

    def __call__(self, step: int, generator: torch.Generator) -> Tensor:
        """See `Replay`; (1, C, H, W)."""
        if self._shown is None or step % self._every == 0:
            chosen = int(torch.randint(len(self.probability), (), generator=generator))
            self._shown = self.probability[chosen : chosen + 1]
        return _spikes(self._shown, generator).to(self._like)


class ClassMeans(RealImages):
    """Noise shaped like the mean image of one class after another, drawn every few steps.

    Needs labels, which the paper's sleep does not. Source: `create_sleep_input.m` of the MATLAB
    code of Tadros et al. 2022.

    Args:
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class numbers.
        every: steps that a class stays.
        max_rate_hz: rate of a pixel of value 1.
        dt_s: duration of a step in seconds.
        rate_factor: as in `PoissonMean`.

    Raises:
        ConfigError: as `RealImages`.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        every: int,
        max_rate_hz: float,
        dt_s: float,
        rate_factor: float = 1.0,
    ) -> None:
        classes = sorted(set(labels.tolist()))
        means = torch.stack([images[labels == each].mean(0) for each in classes])
        super().__init__(
            means, every=every, max_rate_hz=max_rate_hz, dt_s=dt_s, rate_factor=rate_factor
        )


class MovingWindow(PoissonMean):
    """`PoissonMean` through a square window, at another place in every step; all else is silent.

    Source: `create_masked_input.m` of the MATLAB code of Tadros et al. 2022, where it is 11 x 11.

    Args:
        image: (C, H, W) in [0, 1].
        size: edge of the window in pixels, at most that of the image.
        max_rate_hz: rate of a pixel of value 1.
        dt_s: duration of a step in seconds.
        rate_factor: as in `PoissonMean`.

    Raises:
        ConfigError: if a probability is above 1 or below 0, or the window does not fit.
    """

    def __init__(
        self,
        image: Tensor,
        *,
        size: int,
        max_rate_hz: float,
        dt_s: float,
        rate_factor: float = 1.0,
    ) -> None:
        super().__init__(image, max_rate_hz=max_rate_hz, dt_s=dt_s, rate_factor=rate_factor)
        if not 1 <= size <= min(image.shape[-2:]):
            raise ConfigError(
                f"size={size}: the window must be 1 to {min(image.shape[-2:])} pixels wide"
            )
        self._size = size

    def __call__(self, step: int, generator: torch.Generator) -> Tensor:
        """See `Replay`; (1, C, H, W)."""
        height, width = self.probability.shape[-2:]
        top = int(torch.randint(height - self._size + 1, (), generator=generator))
        left = int(torch.randint(width - self._size + 1, (), generator=generator))
        spikes = super().__call__(step, generator)
        window = torch.zeros_like(spikes)
        window[..., top : top + self._size, left : left + self._size] = 1
        return spikes.mul_(window)


class UniformNoise(PoissonMean):
    """The same rate for every pixel: noise that knows nothing of the images, as a control.

    Args:
        shape: (C, H, W) of an image.
        rate_hz: of every pixel.
        dt_s: duration of a step in seconds.
        dtype: of the spikes, that of the network.
        device: of the spikes, that of the network.

    Raises:
        ConfigError: if `rate_hz * dt_s` is above 1 or below 0.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rate_hz: float,
        dt_s: float,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0 <= rate_hz * dt_s <= 1:
            raise ConfigError(
                f"rate_hz * dt_s = {rate_hz * dt_s:g}: must lie in [0, 1], as it is a probability"
            )
        ones = torch.ones(shape, dtype=dtype, device=device)
        super().__init__(ones, max_rate_hz=rate_hz, dt_s=dt_s)


def _probability(images: Tensor, max_rate_hz: float, dt_s: float, rate_factor: float) -> Tensor:
    """Of a spike of each pixel in a step.

    float32 on the CPU whatever the images' type, so that every dtype sees the same spikes.
    """
    probability = rate_factor * dt_s * max_rate_hz * images.cpu().float()
    lowest, highest = float(probability.min()), float(probability.max())
    if not (lowest >= 0 and highest <= 1):
        raise ConfigError(
            f"spike probabilities from {lowest:.3g} to {highest:.3g} (rate_factor * dt_s * "
            f"max_rate_hz * pixel = {rate_factor:g} * {dt_s:g} * {max_rate_hz:g} * pixel): "
            "they must lie in [0, 1]; lower max_rate_hz or dt_s"
        )
    return probability


def _spikes(probability: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(probability.shape, generator=generator).lt_(probability)
