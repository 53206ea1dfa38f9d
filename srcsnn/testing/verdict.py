"""How a check concludes: everything that was found, in one error."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from srcsnn.errors import ConformanceError

__all__ = ["Faults", "judging"]


class Faults(list[str]):
    """What was found so far, in words; each is told once."""

    def add(self, fault: str) -> None:
        """Notes a fault."""
        if fault not in self:
            self.append(fault)


@contextmanager
def judging(thing: object, noun: str, *methods: str) -> Iterator[Faults]:
    """Inside this block an author's object is tried; in the end it is judged.

    Args:
        thing: the object.
        noun: what it should be.
        methods: that it must have; without them, or if it is a class, the block is not entered.

    Raises:
        ConformanceError: with all faults, one line each; or with what the object itself raised.
    """
    name = thing.__name__ if isinstance(thing, type) else type(thing).__name__
    faults = Faults()
    if isinstance(thing, type):
        faults.add(f"it is a class: give an object, {name}(...)")
    for method in methods:
        if not callable(getattr(thing, method, None)):
            faults.add(f"it has no {method}(...)")
    _conclude(name, noun, faults)
    random_state = torch.get_rng_state()
    try:
        with torch.no_grad():
            yield faults
    except Exception as error:  # whatever the author's code raises
        raise ConformanceError(
            f"{name} is no {noun} yet: it fails with {type(error).__name__}: {error}"
        ) from error
    if not torch.equal(torch.get_rng_state(), random_state):
        faults.add("it draws from torch's global generator: no seed would reach it")
    _conclude(name, noun, faults)


def _conclude(name: str, noun: str, faults: Faults) -> None:
    if faults:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise ConformanceError(f"{name} is no {noun} yet:{listed}")
