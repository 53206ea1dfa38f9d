"""Two neuron models beside snnTorch's Leaky, plugged in as any user's would be."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Adaptive", "Synaptic"]

State = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _Neuron:
    """What the two have in common.

    Args:
        threshold: voltage that must be exceeded, of a rested neuron.
        decay: share of the voltage kept from step to step, in [0, 1].
    """

    threshold: float
    decay: float

    def init_state(self, current: Tensor) -> State:
        """Two variables of zero for each neuron."""
        return torch.zeros_like(current), torch.zeros_like(current)


class Adaptive(_Neuron):
    """A leaky neuron whose threshold rises by a fifth with each spike and falls back.

    `v <- decay * v + current`, a spike where `v > threshold * (1 + a)`, then `v <- 0` and
    `a <- 0.9 * a + 0.2 * spike`. Source: the adaptive neurons of Bellec et al. 2018, NeurIPS,
    with the rise in units of the threshold.
    """

    rise, recovery = 0.2, 0.9

    def __call__(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of voltage and adaptation."""
        voltage, adaptation = state
        voltage = self.decay * voltage + current
        spikes = (voltage > self.threshold * (1 + adaptation)).to(current.dtype)
        adaptation = self.recovery * adaptation + self.rise * spikes
        return spikes, (voltage * (1 - spikes), adaptation)


class Synaptic(_Neuron):
    """A leaky neuron whose input current fades instead of ending: half of it comes a step later.

    `i <- 0.5 * i + 0.5 * current`, `v <- decay * v + i`, a spike where `v > threshold`, then
    `v <- 0`. The charge of a spike is that of `Leaky`. Source: the current-based neuron in discrete
    time of Neftci et al. 2019, IEEE Signal Processing Magazine 36(6).
    """

    fading = 0.5

    def __call__(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of voltage and current."""
        voltage, flowing = state
        flowing = self.fading * flowing + (1 - self.fading) * current
        voltage = self.decay * voltage + flowing
        spikes = (voltage > self.threshold).to(current.dtype)
        return spikes, (voltage * (1 - spikes), flowing)
