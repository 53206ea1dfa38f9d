"""What a network does before anything is learnt: thresholds for a rate, and where weights drift."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor

from converters import Layer, SpikingNetwork
from srcsnn.config import AutoConfig, SleepConfig
from srcsnn.errors import DatasetError
from srcsnn.neurons import Neuron
from srcsnn.night import run
from srcsnn.plasticity import IncDec
from srcsnn.preparation import replay_for
from srcsnn.replay import Replay
from srcsnn.seeding import stream
from srcsnn.synapses import Synapse

__all__ = ["Calibration", "calibrate", "relative"]

_STEPS = 50
_SAMPLE = 20_000
"""Neurons of a layer whose rate stands for the layer's."""


@dataclass(frozen=True)
class Calibration:
    """What is known of a network when nothing has been learnt yet.

    Attributes:
        config: with thresholds, without inc and dec.
        rates: spikes per neuron and step of each layer.
        drift: relative change in a step of each layer that sleeps, if inc + dec were 1.
    """

    config: SleepConfig
    rates: dict[str, float]
    drift: dict[str, float]


def calibrate(
    snn: SpikingNetwork,
    auto: AutoConfig,
    make: Callable[[float, float], Neuron],
    image: Tensor,
    seed: int,
) -> Calibration:
    """Thresholds, rates and drift under the replay of an image.

    Args:
        snn: whose neurons get the thresholds; its weights do not change.
        auto: the rate to reach, and what else the settings say.
        make: makes a neuron of a threshold and a decay.
        image: (C, H, W) in [0, 1], the mean training image.
        seed: of the input spikes; a night of the same seed has others.

    Raises:
        DatasetError: if the image is black.
    """
    config = _undosed(auto, image, len(snn.layers))
    replay = replay_for(snn, config, image)
    thresholds, rates = [], {}
    for layer in snn.layers:  # from the input up, as a layer's currents are spikes of those below
        currents = _currents(snn, layer, replay, stream(seed, "calibration"))
        threshold, rates[layer.name] = _bisect(currents, make, auto)
        layer.neurons.neuron = make(threshold, auto.decay)
        thresholds.append(threshold)
    config = config.with_changes(thresholds=thresholds)
    return Calibration(config, rates, _drift(snn, auto, replay, stream(seed, "calibration")))


def _undosed(auto: AutoConfig, image: Tensor, layers: int) -> SleepConfig:
    """The settings that do not depend on weights; thresholds, inc and dec are yet to be found."""
    brightest = float(image.max())
    if not brightest > 0:
        raise DatasetError("the mean of the training images is black: there is nothing to replay")
    return SleepConfig(
        steps=auto.steps,
        coefficient=1.0,
        thresholds=(1.0,) * layers,
        decay=auto.decay,
        inc=0.0,
        dec=0.0,
        gate=auto.gate,
        dt_s=0.001,
        max_rate_hz=1000 * auto.brightest / brightest,
        layers=auto.layers,
        bias=auto.bias,
        neuron=auto.neuron,
    )


class _Heard(Exception):  # noqa: N818  # no error: how a step ends in the middle of the network
    """A layer got its current."""


class _Probe:
    """A neuron that keeps the currents into a sample of its layer, and ends the step with them."""

    def __init__(self) -> None:
        self.currents: list[Tensor] = []

    def init_state(self, current: Tensor) -> None:
        """None."""

    def __call__(self, current: Tensor, state: None) -> tuple[Tensor, None]:
        """Nothing: half of the work, over all layers of a deep network, is above them."""
        flat = current.flatten()
        self.currents.append(flat[:: -(-len(flat) // _SAMPLE)].clone())
        raise _Heard


def _currents(
    snn: SpikingNetwork, layer: Layer, replay: Replay, generator: torch.Generator
) -> Tensor:
    """The currents into a sample of a layer's neurons, (steps, neurons), while nothing learns."""
    probe, neuron = _Probe(), layer.neurons.neuron
    layer.neurons.neuron = probe
    snn.reset()
    try:
        with torch.inference_mode():
            for step in range(_STEPS):
                with suppress(_Heard):
                    snn(replay(step, generator))
    finally:
        snn.reset()
        layer.neurons.neuron = neuron
    return torch.stack(probe.currents)


@torch.inference_mode()
def _bisect(
    currents: Tensor, make: Callable[[float, float], Neuron], auto: AutoConfig
) -> tuple[float, float]:
    """The threshold at which such neurons fire at the target rate, and the rate that they have."""

    def rate_at(threshold: float) -> float:
        neuron = make(threshold, auto.decay)
        state, spikes = neuron.init_state(currents[0]), 0.0
        for current in currents:
            fired, state = neuron(current.clone(), state)
            spikes += float(fired.sum())
        return spikes / currents.numel()

    # The rate falls with the threshold. Outside these bounds no threshold makes sense: one below a
    # millionth of the largest current is none, and no voltage is above the sum of all.
    largest = float(currents.max())
    if not 0 < largest < math.inf:
        return 1.0, 0.0
    low, high = 1e-6 * largest, 2 * largest * len(currents)
    while True:
        middle = math.sqrt(low * high)
        rate = rate_at(middle)
        if abs(rate / auto.rate - 1) <= auto.tolerance or high / low < 1.001:
            return middle, rate
        low, high = (middle, high) if rate > auto.rate else (low, middle)


@dataclass(frozen=True)
class _Tally(IncDec):
    """A rule that changes nothing and adds up what it would change in one part of a layer.

    A large layer has several parts, and totals of all would take as much memory as the network:
    the first part that anything drives stands for them.
    """

    totals: list[tuple[Synapse, Tensor]] = field(default_factory=list)

    def update(
        self, synapse: Synapse, pre: Tensor, post: Tensor, state: None
    ) -> tuple[Tensor, None]:
        """No change."""
        if self.totals and self.totals[0][0] is not synapse:
            return synapse.weight.new_zeros(()), None
        change, _ = super().update(synapse, pre, post, None)
        if self.totals:
            self.totals[0][1].add_(change)
        elif change.any():
            kind = torch.promote_types(change.dtype, torch.float32)
            self.totals.append((synapse, change.to(kind, copy=True)))
        return change.zero_(), None

    @property
    def drift(self) -> float:
        """The total beside the weights that it would have changed."""
        return relative(self.totals[0][1], self.totals[0][0].weight) if self.totals else 0.0


def _drift(
    snn: SpikingNetwork, auto: AutoConfig, replay: Replay, generator: torch.Generator
) -> dict[str, float]:
    """The relative change of each sleeping layer in a step, if inc + dec were 1."""
    gate = None if auto.gate == "off" else auto.gate
    tallies = [_Tally(1 - auto.dec_share, auto.dec_share, gate) for _ in snn.sleeping]
    run(snn, replay, tallies, steps=_STEPS, generator=generator)
    return {
        unit.name: tally.drift / _STEPS for tally, unit in zip(tallies, snn.sleeping, strict=True)
    }


def relative(change: Tensor, weights: Tensor) -> float:
    """How large a change is beside the weights, by Frobenius norms; 0 beside none."""
    norm = float(weights.norm())
    return float(change.norm()) / norm if norm else 0.0
