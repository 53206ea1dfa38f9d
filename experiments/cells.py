"""What a study is made of: cells, each named by everything that its result depends on."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

__all__ = ["MODELS", "Cell", "Kind", "in_order"]

Kind = Literal[
    "train", "sleep", "fit-head", "fine-tune", "expand",
    "evaluate", "gradients", "attention", "trajectory",
]  # fmt: skip
MODELS: tuple[Kind, ...] = ("train", "sleep", "fit-head", "fine-tune", "expand")
"""The kinds whose result is a network; that of the others is some numbers."""


@dataclass(frozen=True)
class Cell:
    """One computation: the same key means the same result.

    Attributes:
        kind: what is computed.
        data: name of the data set.
        sha256: of its images and labels.
        trial: which network, from 0; its seed.
        settings: everything else that the result depends on, as JSON can hold it.
        inputs: the cells whose networks it starts from.
        method: the row of the paper's tables that it belongs to; a label, not part of the key.
    """

    kind: Kind
    data: str
    sha256: str
    trial: int
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)  # Any: JSON
    inputs: "tuple[Cell, ...]" = ()
    method: str = field(default="", compare=False)

    @cached_property
    def key(self) -> str:
        """The first 20 digits of the SHA-256 of kind, data, trial, settings and inputs' keys."""
        named = [self.kind, self.data, self.sha256, self.trial, self.settings]
        text = json.dumps([*named, [cell.key for cell in self.inputs]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @property
    def gives_model(self) -> bool:
        """Whether its result is a network."""
        return self.kind in MODELS

    def __str__(self) -> str:
        what = self.settings.get("distortion", "")
        return f"{self.data} trial {self.trial}: {self.method} {self.kind} {what}".rstrip()


def in_order(cells: Iterable[Cell]) -> Iterator[Cell]:
    """The cells and all that they need, once each, inputs first."""
    seen: set[str] = set()

    def walk(cell: Cell) -> Iterator[Cell]:
        if cell.key not in seen:
            seen.add(cell.key)
            for below in cell.inputs:
                yield from walk(below)
            yield cell

    for cell in cells:
        yield from walk(cell)
