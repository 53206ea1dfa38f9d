"""Which training images a search is for, fits to, and leaves for its finals."""

from dataclasses import dataclass

import torch
from torch import Tensor

from srcsnn.seeding import stream

__all__ = ["Split", "split"]

FIT_IMAGES = 10_000
"""Different training images that a head is fitted to, at most, none of them for validation; for
more it goes through them several times."""

_CLEAN = 2
"""Times as many more images on which clean accuracy is measured, where there are so many."""


@dataclass(frozen=True)
class Split:
    """Training images, by index, for what a search does with them.

    Attributes:
        distorted: for accuracy under distortions.
        clean: for clean accuracy: those, and others. It is cheap to measure, and a floor that many
            candidates try to pass is passed by luck where it is measured on few.
        fitting: for fitting heads and norms.
        unseen: what is left.
    """

    distorted: Tensor
    clean: Tensor
    fitting: Tensor
    unseen: Tensor


def split(count: int, validation: int, seed: int) -> Split:
    """Of so many training images, drawn by the seed."""
    validation = min(validation, 2 * count // 3)
    shuffled = torch.randperm(count, generator=stream(seed, "validation"))
    first, others = shuffled[:validation], shuffled[validation:]
    fitting, rest = others[:FIT_IMAGES], others[FIT_IMAGES:]
    more = _CLEAN * validation
    return Split(first, torch.cat([first, rest[:more]]), fitting, rest[more:])
