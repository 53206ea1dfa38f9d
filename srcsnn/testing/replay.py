"""What `srcsnn.sleep` needs of a source of input spikes."""

import torch
from torch import Tensor

from srcsnn.replay import Replay
from srcsnn.testing.verdict import judging

__all__ = ["check_replay"]

_STEPS = 20


def check_replay(replay: Replay) -> None:
    """Checks that a source of input spikes is what `srcsnn.sleep` needs.

    What it draws must come from the generator that it is given, so that a seed means the same
    night every time.

    Args:
        replay: an object that is called with a step and a generator, see `srcsnn.Replay`.

    Raises:
        ConformanceError: with everything that was found, one line each.

    >>> from srcsnn import PoissonMean
    >>> check_replay(PoissonMean(torch.rand(1, 8, 8), max_rate_hz=100.0, dt_s=0.001))
    """
    with judging(replay, "source of input spikes", "__call__") as faults:
        first = _night(replay, seed=0)
        shapes = {tuple(spikes.shape) for spikes in first}
        if len(shapes) > 1:
            faults.add(f"its shape changes from step to step: {', '.join(map(str, shapes))}")
        elif min(map(len, shapes)) < 3:
            faults.add(f"spikes have shape {shapes.pop()}: (B, C, ...) is needed")
        if not all(spikes.is_floating_point() for spikes in first):
            faults.add(f"spikes are {first[0].dtype}: convolutions need floating point")
        if not all(((spikes == 0) | (spikes == 1)).all() for spikes in first):
            faults.add("spikes must be 0 or 1")
        second = _night(replay, seed=0)
        if not all(map(torch.equal, first, second)):
            faults.add("the same seed gives other spikes the second time: draw from the generator")


def _night(replay: Replay, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [replay(step, generator).clone() for step in range(_STEPS)]
