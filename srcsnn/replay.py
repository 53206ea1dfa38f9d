"""Sources of input spikes during sleep."""

from typing import Protocol

import torch
from torch import Tensor

from srcsnn.errors import ConfigError

__all__ = ["PoissonMean", "Replay"]


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
        # float32 on the CPU whatever the image's type, so that every dtype sees the same spikes.
        image = image.detach().unsqueeze(0)
        self.probability = rate_factor * dt_s * max_rate_hz * image.cpu().float()
        lowest, highest = float(self.probability.min()), float(self.probability.max())
        if not (lowest >= 0 and highest <= 1):
            raise ConfigError(
                f"spike probabilities from {lowest:.3g} to {highest:.3g} (rate_factor * dt_s * "
                f"max_rate_hz * pixel = {rate_factor:g} * {dt_s:g} * {max_rate_hz:g} * pixel): "
                "they must lie in [0, 1]; lower max_rate_hz or dt_s"
            )
        self._like = image

    def __call__(self, step: int, generator: torch.Generator) -> Tensor:
        """See `Replay`; (1, C, H, W)."""
        drawn = torch.rand(self.probability.shape, generator=generator)
        return drawn.lt_(self.probability).to(self._like)
