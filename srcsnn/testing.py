"""Checks that authors run on their own class: what is wrong with it, in words."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from converters import Neuron
from srcsnn.errors import ConformanceError

__all__ = ["check_neuron"]

_STEPS = 50


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
    try:
        problems = list(dict.fromkeys(_problems(neuron, shape)))
    except Exception as error:  # whatever the author's code raises
        raise ConformanceError(
            f"{_name(neuron)}: a step fails with {type(error).__name__}: {error}"
        ) from error
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise ConformanceError(f"{_name(neuron)} is no neuron model yet:{listed}")


def _name(neuron: object) -> str:
    return neuron.__name__ if isinstance(neuron, type) else type(neuron).__name__


@torch.no_grad()
def _problems(neuron: Neuron, shape: tuple[int, ...]) -> Iterator[str]:
    if isinstance(neuron, type):
        yield f"it is a class: give an object, {neuron.__name__}(...)"
        return
    for method in ("init_state", "__call__"):
        if not callable(getattr(neuron, method, None)):
            yield f"it has no {method}(...)"
            return
    faults = [
        fault
        for dtype in (torch.float32, torch.float64)
        for fault in _one_step(neuron, torch.rand(shape, generator=_generator(), dtype=dtype))
    ]
    # What a step does wrong would show again in many.
    yield from faults or _in_the_long_run(neuron, shape)


def _one_step(neuron: Neuron, current: Tensor) -> Iterator[str]:
    given = current.clone()
    stepped: Any = neuron(current, neuron.init_state(current))
    if not (isinstance(stepped, tuple) and len(stepped) == 2):
        yield "a step must return a pair, (spikes, state)"
        return
    spikes = stepped[0]
    if not isinstance(spikes, Tensor):
        yield f"spikes must be a tensor, not {type(spikes).__name__}"
        return
    if spikes.shape != given.shape:
        yield f"spikes have shape {tuple(spikes.shape)} for current of {tuple(given.shape)}"
    if spikes.dtype != given.dtype:
        yield f"spikes are {spikes.dtype} for current of {given.dtype}: end with .to(current.dtype)"
    if not torch.equal(current, given):
        yield "it writes into its current; that belongs to the network"


def _in_the_long_run(neuron: Neuron, shape: tuple[int, ...]) -> Iterator[str]:
    """What shows over many steps: values, purity, generators, and whether it fires at all."""
    generator = _generator()
    currents = [torch.rand(shape, generator=generator) for _ in range(_STEPS)]
    strong = [100 * each for each in currents]
    random_state = torch.get_rng_state()
    first, strongly = _spikes(neuron, currents), _spikes(neuron, strong)
    if not torch.equal(torch.get_rng_state(), random_state):
        yield "it draws from torch's global generator: no seed of a sleep would reach it"
    found = torch.cat([first, strongly])
    if found.isnan().any():
        yield "spikes are NaN"
    elif not ((found == 0) | (found == 1)).all():
        strange = found[(found != 0) & (found != 1)]
        yield f"spikes must be 0 or 1; there is {float(strange[0]):.4g}"
    elif not found.any():
        yield f"it never fires, not in {_STEPS} steps of currents up to 100 (too high a threshold?)"
    if not torch.equal(_spikes(neuron, currents), first):
        yield "the same currents give other spikes the second time: it keeps state on itself"
    elif not torch.equal(_spikes(neuron, currents, beside=strong), first):
        yield "a second layer of the same object changes the first: it keeps state on itself"


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


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
