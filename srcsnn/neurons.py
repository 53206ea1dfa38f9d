"""Neuron models: snnTorch's, and a fast in-place LIF with the same spikes as its Leaky.

`Leaky` and `LIF` follow Algorithm 1 of the paper: `v <- decay * v + current`, a spike where
`v > threshold` (strictly), then `v <- 0` where it spiked. Voltages are held in float32 at least.
"""

from collections.abc import Callable, Mapping

import snntorch
import torch
from torch import Tensor

from converters import Neuron
from srcsnn.errors import ConfigError

__all__ = ["LIF", "NEURONS", "Leaky", "Neuron", "SnnTorch"]

_STATES: Mapping[type[snntorch.SpikingNeuron], tuple[str, ...]] = {
    snntorch.Leaky: ("mem",),
    snntorch.Lapicque: ("mem",),
    snntorch.Synaptic: ("syn", "mem"),
    snntorch.Alpha: ("syn_exc", "syn_inh", "mem"),
    snntorch.RLeaky: ("spk", "mem"),
    snntorch.RSynaptic: ("spk", "syn", "mem"),
    snntorch.DeltaLeaky: ("mem", "mem_prev"),
}
"""The variables of the models that go step by step, in the order they are passed."""

_LAYER = "is a whole layer with weights of its own, not a neuron"
_SEQUENCE = "takes whole sequences and never resets, while a sleeping network goes step by step"
_REFUSED = {
    "SLSTM": _LAYER, "SConv2dLSTM": _LAYER, "LeakyParallel": _SEQUENCE, "StateLeaky": _SEQUENCE,
    "LinearLeaky": _SEQUENCE, "AssociativeLeaky": _SEQUENCE,
}  # fmt: skip
_OTHER = "its state is not known"


class SnnTorch:
    """A neuron of snnTorch as a pure function of current and state, for `to_snn` and `sleep`.

    For Leaky, Lapicque, Synaptic, Alpha, RLeaky, RSynaptic and DeltaLeaky. All fire where the
    voltage is strictly above the threshold, DeltaLeaky where its change is; they differ in what
    `reset_mechanism="zero"` does in the step after a spike. Leaky keeps that step's input.
    Lapicque, Synaptic, Alpha, RLeaky and RSynaptic drop it with the voltage, so that they are
    silent for a step. DeltaLeaky has no reset (snnTorch 1.0, checked by running it).

    >>> import snntorch
    >>> SnnTorch(snntorch.Synaptic(alpha=0.5, beta=0.9, reset_mechanism="zero"))
    SnnTorch(Synaptic)

    Args:
        neuron: built with `init_hidden=False`, as the network keeps the state.

    Raises:
        ConfigError: for a class that takes whole sequences or has weights between its inputs and
            its spikes, or with hidden state.
    """

    def __init__(self, neuron: snntorch.SpikingNeuron) -> None:
        cls = next((c for c in type(neuron).__mro__ if c in _STATES), None)
        if cls is None:
            raise ConfigError(
                f"snnTorch's {type(neuron).__name__}: {_REFUSED.get(type(neuron).__name__, _OTHER)}"
                f"; use one of {', '.join(c.__name__ for c in _STATES)}"
            )
        if neuron.init_hidden:
            raise ConfigError(
                f"snnTorch's {cls.__name__}: build it with init_hidden=False, as the network keeps "
                "the state"
            )
        self._neuron, self._names = neuron, _STATES[cls]
        self._packed = cls is snntorch.DeltaLeaky  # its state is one tuple
        # The class keeps every instance alive for its global reset; this one has no hidden state.
        instances = snntorch.SpikingNeuron.instances
        instances[:] = [each for each in instances if each is not neuron]

    def __repr__(self) -> str:
        return f"SnnTorch({type(self._neuron).__name__})"

    def init_state(self, current: Tensor) -> tuple[Tensor, ...]:
        """All variables zero."""
        return tuple(_zero_voltage(current) for _ in self._names)

    def __call__(
        self, current: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step; the voltage in the state is that before the reset.

        Raises:
            ValueError: if the current has another shape than the state (snnTorch would silently
                start again from zero).
        """
        if current.shape != state[-1].shape:
            raise ValueError(
                f"current of shape {tuple(current.shape)} for neurons of shape "
                f"{tuple(state[-1].shape)}"
            )
        spikes, *variables = self._neuron(current, *((state,) if self._packed else state))
        for name in (*self._names, "reset"):  # the network owns the state
            setattr(self._neuron, name, None)
        if self._packed:
            (variables,) = variables
        recurrent = (spikes,) if self._names[0] == "spk" else ()
        return spikes.to(current.dtype), (*recurrent, *variables)


class Leaky(SnnTorch):
    """`snntorch.Leaky` with reset to zero.

    snnTorch resets at the start of the next step; the spikes are the same.

    Args:
        threshold: voltage that must be exceeded.
        decay: share of the voltage kept from step to step, in [0, 1].
    """

    def __init__(self, threshold: float, decay: float) -> None:
        _check(threshold, decay)
        self.threshold, self.decay = threshold, decay
        # float64 scalars: in a float64 network the numbers must not have gone through float32.
        super().__init__(
            snntorch.Leaky(
                beta=torch.tensor(decay, dtype=torch.float64),
                threshold=torch.tensor(threshold, dtype=torch.float64),
                reset_mechanism="zero",
                surrogate_disable=True,  # nothing is trained through it
            )
        )

    def __repr__(self) -> str:
        return f"Leaky(threshold={self.threshold}, decay={self.decay})"


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
