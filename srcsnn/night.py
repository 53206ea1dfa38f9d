"""The time loop of a sleep: noise replays, layers fire, weights change (Algorithm 1)."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from converters import SpikingNetwork
from srcsnn.errors import ConformanceError
from srcsnn.memory import keep_freed
from srcsnn.plasticity import Rule, plastic
from srcsnn.replay import Replay

__all__ = ["INPUT", "run"]

INPUT = "input"
"""Name of the input in rasters."""


@torch.inference_mode()
def run(
    snn: SpikingNetwork,
    replay: Replay,
    rule: Rule | Sequence[Rule],
    *,
    steps: int,
    generator: torch.Generator,
    observers: Sequence[Callable[[str, Tensor], None]] = (),
    progress: Callable[[int, int], None] | None = None,
    until: Callable[[], bool] = lambda: False,
) -> int:
    """The time loop: changes the weights of the network's sleeping units in place.

    Args:
        snn: a spiking network; all its neurons are reset before and after.
        replay: where input spikes come from.
        rule: how weights change, or one rule for each synapse that sleeps.
        steps: number of time steps, at most.
        generator: of the input spikes, on the CPU.
        observers: each is called with a layer's name and its spikes (B, ...) as soon as it has
            fired, "input" first, unless a layer is called that, then every layer in network order.
            Tensors are made in inference mode.
        progress: called after every step with the steps done and the steps in all.
        until: asked after every step whether that was the last.

    Returns:
        The number of steps done.

    Raises:
        ConformanceError: if the replay's first spikes are not what the network takes.
    """
    done = 0
    of_images = () if any(layer.name == INPUT for layer in snn.layers) else observers
    keep_freed()
    snn.reset()
    first = replay(0, generator)
    _check_spikes(snn, first)
    with ExitStack() as hooks:
        hooks.callback(snn.reset)
        hooks.enter_context(plastic(snn, rule))
        for observer in observers:
            hooks.enter_context(snn.observed(observer))
        for step in range(steps):
            spikes = replay(step, generator) if step else first
            for observer in of_images:
                observer(INPUT, spikes)
            snn(spikes)
            del spikes  # before the next are drawn
            done = step + 1
            if progress is not None:
                progress(done, steps)
            if until():
                break
    return done


def _check_spikes(snn: SpikingNetwork, spikes: Tensor) -> None:
    """Looks at what came from the replay, which may be somebody's own, before anything learns."""
    weight = snn.units[0].synapse.weight
    if not isinstance(spikes, Tensor):
        raise ConformanceError(f"replay: gives a {type(spikes).__name__}, not a tensor of spikes")
    if (spikes.dtype, spikes.device) != (weight.dtype, weight.device):
        raise ConformanceError(
            f"replay: spikes are {spikes.dtype} on {spikes.device}, the network is {weight.dtype} "
            f"on {weight.device}"
        )
    if not ((spikes == 0) | (spikes == 1)).all():
        raise ConformanceError("replay: spikes must be 0 or 1")
    try:
        snn(spikes)
    except RuntimeError as error:
        raise ConformanceError(
            f"replay: the network does not take spikes of shape {tuple(spikes.shape)}: {error}"
        ) from error
    snn.reset()
