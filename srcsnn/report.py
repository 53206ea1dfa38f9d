"""What a night did to each layer: firing, weight change, and warnings in words."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from converters import Unit

__all__ = ["LayerReport", "Report", "SpikeCounter", "report_layer"]

SATURATED_RATE = 0.5
"""Spikes per step above which a neuron counts as saturated, in reports and in raster summaries."""


class SpikeCounter:
    """Counts the spikes of every neuron of every layer that it is shown; memory stays constant.

    Attributes:
        counts: spikes so far, (B, ...) for each layer.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Tensor] = {}

    def see(self, name: str, spikes: Tensor) -> None:
        """Adds one step of spikes (B, ...) in {0, 1} of a layer."""
        if name not in self.counts:
            self.counts[name] = torch.zeros_like(spikes, dtype=torch.float32)  # whole up to 2**24
        self.counts[name].add_(spikes)


@dataclass(frozen=True)
class LayerReport:
    """One layer's night.

    Attributes:
        name: qualified name in the CNN.
        neurons: how many.
        sleeps: whether its weights could change.
        rate: mean spikes per neuron and step, in [0, 1].
        rate_hz: the same in spikes per second.
        silent: share of neurons that never fired.
        saturated: share of neurons that fired in more than half of the steps.
        change: relative weight change, Frobenius norm of the change over that of the weights.
    """

    name: str
    neurons: int
    sleeps: bool
    rate: float
    rate_hz: float
    silent: float
    saturated: float
    change: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should look at."""
        found = []
        if self.silent == 1:
            found.append(
                f"{self.name}: no neuron fired, so nothing changed; "
                "lower its threshold or raise the coefficient"
            )
        elif self.silent > 0.9:
            found.append(f"{self.name}: {self.silent:.0%} of the neurons never fired")
        if self.saturated > 0.5:
            found.append(
                f"{self.name}: {self.saturated:.0%} of the neurons fired in more than half of the "
                "steps; raise its threshold"
            )
        if self.change > 3:  # the paper's own settings reach 1.5
            found.append(
                f"{self.name}: the change ({self.change:.1f} times) is larger than the weights; "
                "lower inc and dec or the number of steps"
            )
        return tuple(found)


@dataclass(frozen=True)
class Report:
    """A whole night.

    Attributes:
        layers: in network order.
        steps: time steps slept.
        seconds: wall time of the loop.
        choices: in words, the settings that were found in the network itself, if they were.
        misses: in words, what they could not reach.
    """

    layers: tuple[LayerReport, ...]
    steps: int
    seconds: float
    choices: tuple[str, ...] = ()
    misses: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was missed, and those of all layers."""
        return (*self.misses, *(words for layer in self.layers for words in layer.warnings))

    def to_dict(self) -> dict[str, object]:
        """Plain numbers and words, for JSON."""
        return asdict(self) | {"warnings": list(self.warnings)}


def report_layer(unit: Unit, before: Tensor, rates: Tensor, dt_s: float) -> LayerReport:
    """The report of a unit that has slept.

    Args:
        unit: with its weights after.
        before: its weights before.
        rates: spikes per step of each neuron, (B, ...) in [0, 1].
        dt_s: length of a step.
    """
    norm, change = float(before.norm()), float((unit.synapse.weight.detach() - before).norm())
    rate = float(rates.mean())
    return LayerReport(
        name=unit.name,
        neurons=rates[0].numel(),
        sleeps=unit.sleeps,
        rate=rate,
        rate_hz=rate / dt_s,
        silent=float((rates == 0).float().mean()),
        saturated=float((rates > SATURATED_RATE).float().mean()),
        change=change / norm if norm else (float("inf") if change else 0.0),
    )
