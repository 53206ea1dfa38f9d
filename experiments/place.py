"""Where a worker finds what it needs: data, networks, and what a cell's settings stand for."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from experiments.cells import Cell
from experiments.images import Images, images_of
from experiments.store import Models
from srcsnn.distortions import DISTORTIONS, Distortion
from srcsnn.models import ARCHITECTURES

__all__ = ["Place", "distortions_of"]


@dataclass(frozen=True)
class Place:
    """Where a worker finds what it needs.

    Attributes:
        source: the data set, for `srcsnn.load_images`.
        folder: for networks and decoded images; the same for all workers.
    """

    source: str
    folder: Path

    @property
    def models(self) -> Models:
        """The networks of finished cells."""
        return Models(self.folder)

    @property
    def images(self) -> Images:
        """The data set."""
        return images_of(self.source, self.folder)

    def network(self, cell: Cell) -> nn.Module:
        """The network of a finished cell."""
        return self.models.load(cell, ARCHITECTURES[cell.settings["architecture"]]())


def distortions_of(cell: Cell) -> list[Distortion]:
    """Those of the settings, at the levels of the settings."""
    settings = cell.settings
    levels = settings.get("distortions") or {settings["distortion"]: settings["levels"]}
    # Any: replace keeps the type, which the protocol cannot say.
    known: Mapping[str, Any] = DISTORTIONS
    return [replace(known[name], levels=tuple(found)) for name, found in levels.items()]
