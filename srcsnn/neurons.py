"""Neuron models: snnTorch's Leaky, and a fast in-place LIF with the same spikes.

Both follow Algorithm 1 of the paper: `v <- decay * v + current`, a spike where `v > threshold`
(strictly), then `v <- 0` where it spiked. Voltages are held in float32 at least.
"""

from collections.abc import Callable, Mapping

import snntorch
import torch
from torch import Tensor

from converters import Neuron
from srcsnn.errors import ConfigError

__all__ = ["LIF", "NEURONS", "Leaky", "Neuron"]


class Leaky:
    """`snntorch.Leaky` with reset to zero, as a pure function of current and voltage.

    snnTorch resets at the start of the next step; the spikes are the same. Its input in the step
    after a spike is kept (facts of snnTorch 0.9 and 1.0: Lapicque, Synaptic and others drop it).

    Args:
        threshold: voltage that must be exceeded.
        decay: share of the voltage kept from step to step, in [0, 1].
    """

    def __init__(self, threshold: float, decay: float) -> None:
        _check(threshold, decay)
        self.threshold, self.decay = threshold, decay
        # float64 scalars: in a float64 network the numbers must not have gone through float32.
        self._leaky = snntorch.Leaky(
            beta=torch.tensor(decay, dtype=torch.float64),
            threshold=torch.tensor(threshold, dtype=torch.float64),
            reset_mechanism="zero",
            surrogate_disable=True,  # nothing is trained through it
        )
        # The class keeps every instance alive for its global reset; this one has no hidden state.
        snntorch.SpikingNeuron.instances.remove(self._leaky)

    def __repr__(self) -> str:
        return f"Leaky(threshold={self.threshold}, decay={self.decay})"

    def init_state(self, current: Tensor) -> Tensor:
        """Voltages of zero."""
        return _zero_voltage(current)

    def __call__(self, current: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step; the state is the voltage before the reset.

        Raises:
            ValueError: if the current has another shape than the state (snnTorch would silently
                start again from zero).
        """
        if current.shape != state.shape:
            raise ValueError(
                f"current of shape {tuple(current.shape)} for neurons of shape {tuple(state.shape)}"
            )
        spikes, voltage = self._leaky(current, state)
        self._leaky.mem = self._leaky.reset = None  # the network owns the state
        return spikes.to(current.dtype), voltage


class LIF:
    """The same neuron in four operations that reuse the state's memory; spikes equal to `Leaky`'s.

    Args:
        threshold: voltage that must be exceeded.
        decay: share of the voltage kept from step to step, in [0, 1].
    """

    def __init__(self, threshold: float, decay: float) -> None:
        _check(threshold, decay)
        self.threshold, self.decay = threshold, decay

    def __repr__(self) -> str:
        return f"LIF(threshold={self.threshold}, decay={self.decay})"

    def init_state(self, current: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Voltages of zero; decay and threshold as tensors, which torch applies sooner."""
        voltage = _zero_voltage(current)
        return voltage, voltage.new_tensor(self.decay), voltage.new_tensor(self.threshold)

    def __call__(
        self, current: Tensor, state: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """One step, in place: the voltage in the state is that after the reset."""
        voltage, decay, threshold = state
        voltage.mul_(decay).add_(current)
        spikes = torch.gt(voltage, threshold, out=torch.empty_like(voltage))
        voltage.addcmul_(voltage, spikes, value=-1)  # v - v where it spiked: exactly zero
        return spikes if spikes.dtype == current.dtype else spikes.to(current.dtype), state


NEURONS: Mapping[str, Callable[[float, float], Neuron]] = {"leaky": Leaky, "lif": LIF}
"""Built-in models by name: each makes a neuron of a threshold and a decay."""


def _check(threshold: float, decay: float) -> None:
    if not threshold > 0:
        raise ConfigError(f"threshold={threshold}: must be above 0")
    if not 0 <= decay <= 1:
        raise ConfigError(f"decay={decay}: must lie in [0, 1]")


def _zero_voltage(current: Tensor) -> Tensor:
    return torch.zeros_like(current, dtype=torch.promote_types(current.dtype, torch.float32))
