"""What `converters.to_snn` needs of a neuron model."""

from typing import Any

import torch
from torch import Tensor

from converters import Neuron
from srcsnn.testing.verdict import Faults, judging

__all__ = ["check_neuron"]

_STEPS = 50
_STRONG = 1e6
"""A current at which every neuron fires, whatever its threshold."""


def check_neuron(neuron: Neuron, shape: tuple[int, ...] = (1, 3, 4, 5)) -> None:
    """Checks that a neuron model is what `converters.to_snn` needs, on small random currents.

    It must be pure: spikes and state depend on current and state alone. State lives outside, so
    that one object can serve all layers; what is drawn comes from no global generator.

    Args:
        neuron: an object with `init_state` and `__call__`, see `converters.Neuron`.
        shape: (B, ...) of the layer that it is for, if it does not fit every layer.

    Raises:
        ConformanceError: with everything that was found, one line each.

    >>> from srcsnn import LIF
    >>> check_neuron(LIF(threshold=1.0, decay=0.9))
    """
    with judging(neuron, "neuron model", "init_state", "__call__") as faults:
        generator = torch.Generator().manual_seed(0)
        currents = [torch.rand(shape, generator=generator) for _ in range(_STEPS)]
        for dtype in (torch.float32, torch.float64):
            _look_at_a_step(neuron, currents[0].to(dtype), faults)
        if not faults:  # what a step does wrong would show again in many
            _look_at_many(neuron, currents, faults)


def _look_at_a_step(neuron: Neuron, current: Tensor, faults: Faults) -> None:
    given = current.clone()
    stepped: Any = neuron(given, neuron.init_state(given))
    if not (isinstance(stepped, tuple) and len(stepped) == 2):
        faults.add("a step must return a pair, (spikes, state)")
        return
    spikes = stepped[0]
    if not isinstance(spikes, Tensor):
        faults.add(f"spikes must be a tensor, not {type(spikes).__name__}")
        return
    if spikes.shape != current.shape:
        faults.add(f"spikes have shape {tuple(spikes.shape)} for current of {tuple(current.shape)}")
    if spikes.dtype != current.dtype:
        faults.add(
            f"spikes are {spikes.dtype} for current of {current.dtype}: end with .to(current.dtype)"
        )
    if not torch.equal(current, given):
        faults.add("it writes into its current, which belongs to the network")


def _look_at_many(neuron: Neuron, currents: list[Tensor], faults: Faults) -> None:
    """What shows over many steps: values, whether it fires at all, and whether it is pure."""
    strong = [_STRONG * each for each in currents]
    first, strongly = _spikes(neuron, currents), _spikes(neuron, strong)
    found = torch.cat([first, strongly])
    if found.isnan().any():
        faults.add("spikes are NaN")
    elif not ((found == 0) | (found == 1)).all():
        strange = found[(found != 0) & (found != 1)]
        faults.add(f"spikes must be 0 or 1; there is {float(strange[0]):.4g}")
    elif not found.any():
        faults.add(f"it never fires, not in {_STEPS} steps of currents up to {_STRONG:g}")
    if not torch.equal(_spikes(neuron, currents), first):
        faults.add("the same currents give other spikes the second time: it keeps state on itself")
    elif not torch.equal(_spikes(neuron, currents, beside=strong), first):
        faults.add("a second layer of the same object changes the first: it keeps state on itself")


def _spikes(neuron: Neuron, currents: list[Tensor], beside: list[Tensor] | None = None) -> Tensor:
    """The spikes of a layer; with another one that the same object runs beside it."""
    found = []
    state = neuron.init_state(currents[0])
    other = neuron.init_state(beside[0]) if beside else None
    for step, current in enumerate(currents):
        spikes, state = neuron(current.clone(), state)
        found.append(spikes.clone())
        if beside:
            _, other = neuron(beside[step].clone(), other)
    return torch.stack(found)
