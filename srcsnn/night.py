"""The time loop of a sleep: noise replays, layers fire, weights change (Algorithm 1)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from converters import SpikingNetwork
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
        observers: after every step each is called with a layer's name and its spikes (B, ...),
            "input" first, then every layer in network order. Tensors are made in inference mode.
        progress: called after every step with the steps done and the steps in all.
        until: asked after every step whether that was the last.

    Returns:
        The number of steps done.
    """
    spikes: dict[str, Tensor] = {}
    done = 0
    keep_freed()
    snn.reset()
    with plastic(snn, rule), snn.observed(spikes.__setitem__):
        for step in range(steps):
            spikes[INPUT] = replay(step, generator)
            snn(spikes[INPUT])
            for observer in observers:
                for name, fired in spikes.items():
                    observer(name, fired)
            done = step + 1
            if progress is not None:
                progress(done, steps)
            if until():
                break
    snn.reset()
    return done
