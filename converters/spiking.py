"""The spiking network: the CNN's own graph with neurons where its activations were."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

__all__ = [
    "Layer",
    "Listener",
    "Neuron",
    "Neurons",
    "SpikingNetwork",
    "Synapse",
    "Unit",
    "listening",
]


class Neuron(Protocol):
    """A neuron model, pure: state goes in and comes out, the network keeps it between steps."""

    # A state is whatever the model needs, a tensor or a tuple of them; only the model looks inside.
    def init_state(self, current: Tensor) -> Any:  # noqa: ANN401  # the neuron's own kind of state
        """The state before the first step, for neurons shaped like `current`."""

    # The neuron's own kind of state.
    def __call__(self, current: Tensor, state: Any) -> tuple[Tensor, Any]:  # noqa: ANN401
        """One time step.

        Args:
            current: (B, ...) input of each neuron, in units of the threshold's.
            state: what `init_state` or the last step gave. Its memory may be used again.

        Returns:
            Spikes in {0, 1} with the shape and dtype of `current`, and the new state.
        """


Listener = Callable[[Tensor], None]
"""A hook of our own: torch's cost a small network a tenth of a time step."""


@contextmanager
def listening(listeners: list[Listener], listener: Listener) -> Iterator[None]:
    """Inside this block, the listener is one of the listeners."""
    listeners.append(listener)
    try:
        yield
    finally:
        listeners.remove(listener)


class Synapse(nn.Module):
    """Weights from pre neurons to post neurons: `alpha * (W * s + b / below)`.

    The weights are in the CNN's own units and are the ones that sleep changes; alpha stays a
    factor beside them.

    Args:
        operator: the convolution or linear layer, without its bias.
        alpha: the factor of the data-based normalisation times the coefficient.
        bias: current added to every position of a channel, (channels, 1, ...), or None.

    Attributes:
        listeners: each is called with the spikes `pre` of every step.
    """

    bias: Tensor | None
    _factor: Tensor

    def __init__(self, operator: nn.Module, alpha: float, bias: Tensor | None) -> None:
        super().__init__()
        self.operator = operator
        self.alpha = alpha
        self.register_buffer("bias", bias)
        # Alpha as a tensor, which torch applies sooner.
        self.register_buffer("_factor", self.weight.detach().new_tensor(alpha), persistent=False)
        self.listeners: list[Listener] = []

    @property
    def weight(self) -> nn.Parameter:
        """W, of the shape it has in the CNN."""
        weight: nn.Parameter = self.operator.weight  # type: ignore[assignment]  # conv or linear
        return weight

    def forward(self, pre: Tensor, drive: Tensor | None = None) -> Tensor:
        """The current into the post neurons.

        Args:
            pre: spikes (B, ...), or the share of a pool that spiked. What plasticity sees.
            drive: what the weights are applied to, where that is not `pre` itself: the spikes
                behind the CNN's own mean/std normalisation.
        """
        for hear in self.listeners:
            hear(pre)
        # `forward`, and not a call, twice in this file: looking for hooks that nobody can have put
        # there costs a small network more than its additions.
        current: Tensor = self.operator.forward(pre if drive is None else drive).mul_(self._factor)
        return current if self.bias is None else current.add_(self.bias)


class Neurons(nn.Module):
    """A layer of neurons that keeps its state from one time step to the next.

    Args:
        neuron: the model that all of them follow.

    Attributes:
        listeners: each is called with the spikes of every step.
    """

    def __init__(self, neuron: Neuron) -> None:
        super().__init__()
        self.neuron = neuron
        self.listeners: list[Listener] = []
        # Of the neuron's own type. In a list, as a module looks into every attribute it is given.
        self._state: list[Any] = [None]

    def forward(self, current: Tensor) -> Tensor:
        """The spikes of this time step."""
        (state,) = self._state
        if state is None:
            state = self.neuron.init_state(current)
        spikes, self._state[0] = self.neuron(current, state)
        for hear in self.listeners:
            hear(spikes)
        return spikes

    def reset(self) -> None:
        """Forgets the state: the next call is the first step."""
        self._state[0] = None


@dataclass(frozen=True)
class Layer:
    """One layer of neurons.

    Attributes:
        name: qualified name in the CNN of the first convolution or linear layer that drives it;
            without any, that of the addition or ReLU in the graph.
        neurons: the neurons.
        largest: lambda, the scale that the normalisation measured.
        rectifies: whether the CNN has no ReLU there, so that spikes stand for the positive part
            of a signed activation.
    """

    name: str
    neurons: Neurons
    largest: float
    rectifies: bool


@dataclass(frozen=True)
class Unit:
    """One synapse and the layer of neurons that it drives, which several may drive together.

    Attributes:
        name: qualified name of its convolution or linear layer in the CNN.
        synapse: its weights and alpha.
        layer: what they drive.
        sleeps: whether sleep changes its weights.
        fold: the factor (out,) of a BatchNorm or a number that is in the weights; None without one.
    """

    name: str
    synapse: Synapse
    layer: Layer
    sleeps: bool
    fold: Tensor | None = None

    @property
    def neurons(self) -> Neurons:
        """The neurons of the layer."""
        return self.layer.neurons

    @property
    def largest(self) -> float:
        """Lambda of the layer."""
        return self.layer.largest

    @property
    def alpha(self) -> float:
        """The factor on the synapse."""
        return self.synapse.alpha


class SpikingNetwork(nn.Module):
    """A CNN as spiking neurons, up to its last layer that sleeps. One call is one time step.

    Attributes:
        layers: the layers of neurons in graph order.
        units: the synapses that drive them, each with its layer.
    """

    layers: tuple[Layer, ...]
    units: tuple[Unit, ...]

    def __init__(
        self, graph: fx.GraphModule, layers: Sequence[Layer], units: Sequence[Unit]
    ) -> None:
        super().__init__()
        self.graph = graph
        self.layers = tuple(layers)
        self.units = tuple(units)

    @property
    def sleeping(self) -> tuple[Unit, ...]:
        """The units whose weights sleep changes."""
        return tuple(unit for unit in self.units if unit.sleeps)

    def forward(self, spikes: Tensor) -> Tensor:
        """One time step: input spikes (B, C, H, W) in {0, 1} to the spikes of the last layer."""
        out: Tensor = self.graph.forward(spikes)
        return out

    def reset(self) -> None:
        """All neurons as before the first step."""
        for layer in self.layers:
            layer.neurons.reset()

    @contextmanager
    def observed(self, see: Callable[[str, Tensor], None]) -> Iterator[None]:
        """Inside this block, `see(name, spikes)` is called for every layer in every step."""
        with ExitStack() as watch:
            for layer in self.layers:
                watch.enter_context(listening(layer.neurons.listeners, partial(see, layer.name)))
            yield

    @torch.no_grad()
    def shapes(self, image: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The shape of every layer of neurons, for input of this shape (C, H, W).

        One silent step finds them; the neurons are reset before and after.
        """
        found: dict[str, tuple[int, ...]] = {}
        weight = self.units[0].synapse.weight
        self.reset()
        with self.observed(lambda name, spikes: found.update({name: tuple(spikes.shape[1:])})):
            self(weight.new_zeros(1, *image))
        self.reset()
        return found
