"""Accuracy under distortions, as counts."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from srcsnn.classifiers import check_scores, check_takes, evaluating, without_labels
from srcsnn.datasets import check_images
from srcsnn.distortions import Distortion, default_distortions
from srcsnn.errors import ConfigError, DatasetError, SrcsnnError
from srcsnn.memory import images_at_once, keep_freed, quick_layout
from srcsnn.noise import Noise

__all__ = ["CLEAN", "Cell", "Robustness", "evaluate"]

CLEAN = "clean"
"""Name of the undistorted images; its only level is 0."""


@dataclass(frozen=True)
class Cell:
    """How many of the images were classified right at one level of one distortion."""

    distortion: str
    level: float
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.correct / self.total


@dataclass(frozen=True)
class Robustness:
    """The counts of one network.

    Attributes:
        cells: clean first, then every level of every distortion.
        seed: of the noise.
    """

    cells: tuple[Cell, ...]
    seed: int

    @property
    def distortions(self) -> tuple[str, ...]:
        """Names, clean left out."""
        return tuple(dict.fromkeys(c.distortion for c in self.cells if c.distortion != CLEAN))

    @property
    def clean(self) -> float:
        """Accuracy on undistorted images, in [0, 1]."""
        return self.cells[0].accuracy

    def levels(self, distortion: str) -> tuple[Cell, ...]:
        """The cells of a distortion, weakest level first."""
        return tuple(cell for cell in self.cells if cell.distortion == distortion)

    def mean(self, distortion: str | None = None) -> float:
        """Mean accuracy over the levels of a distortion, or over the distortions' means.

        The clean images are in neither. NaN if there are no distortions.
        """
        if distortion is None and not self.distortions:
            return math.nan
        if distortion is None:
            return math.fsum(map(self.mean, self.distortions)) / len(self.distortions)
        cells = self.levels(distortion)
        return math.fsum(cell.accuracy for cell in cells) / len(cells)

    def to_dict(self) -> dict[str, Any]:  # Any: JSON
        """Counts, for JSON."""
        return {"seed": self.seed, "cells": [asdict(cell) for cell in self.cells]}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "Robustness":  # Any: JSON
        """Back from `to_dict`."""
        return cls(tuple(Cell(**cell) for cell in found["cells"]), found["seed"])


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    distortions: Sequence[Distortion] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Robustness:
    """Counts what a classifier gets right, clean and at every level of every distortion.

    The noise of an image depends on the seed, the distortion, the level and the image's index, so
    two networks see the same images, and the batch size changes nothing.

    Args:
        model: maps (B, C, H, W) to scores (B, classes). Evaluated in eval mode; left as it was.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class numbers.
        distortions: the paper's four without speckle for grey images, if not given.
        seed: of the noise.
        batch_size: images at a time; a number that is quick for their size, if not given.
        progress: called with the cells done and the cells in all.

    Raises:
        ConfigError: if the batch size is below 1, or distortions have one name.
        DatasetError: if the images are malformed, the network fails on them, or the labels do not
            fit them.
        SrcsnnError: if the scores are malformed or not finite.
    """
    check_images(images)
    if labels.shape != (len(images),):
        raise DatasetError(f"{tuple(labels.shape)} labels for {len(images)} images; one each")
    if distortions is None:
        distortions = default_distortions(images.shape[1])
    keep_freed()
    batch_size = images_at_once(images) if batch_size is None else batch_size
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: must be 1 or more")
    if words := [each for each in distortions if isinstance(each, str)]:
        raise ConfigError(
            f"distortions: {words[0]!r} is a word; right would be "
            f"parse_distortions({','.join(words)!r})"
        )
    names = [CLEAN, *(distortion.name for distortion in distortions)]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ConfigError(
            f"distortions: more than one is called {', '.join(twice)}; give each a name of its own"
        )
    plan: list[tuple[Distortion | None, float]] = [(None, 0.0)]
    plan += [(distortion, level) for distortion in distortions for level in distortion.levels]
    check_takes(model, images)
    cells = []
    with evaluating(model):
        layout = quick_layout(model, images)
        for distortion, level in plan:
            correct = _count(model, images, labels, distortion, level, seed, batch_size, layout)
            name = CLEAN if distortion is None else distortion.name
            cells.append(Cell(name, level, correct, len(images)))
            if progress is not None:
                progress(len(cells), len(plan))
    return Robustness(tuple(cells), seed)


def _count(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    distortion: Distortion | None,
    level: float,
    seed: int,
    batch_size: int,
    layout: torch.memory_format,
) -> int:
    like = next(model.parameters(), images)
    correct = 0
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size].to(like, copy=True)  # a network may write to it
        if distortion is not None:
            indices = range(start, start + len(batch))
            batch = distortion(batch, level, Noise(seed, distortion.name, level, indices))
        target = labels[start : start + batch_size].to(like.device)
        batch = batch.contiguous(memory_format=layout)
        correct += int((_scores(model, batch, target).argmax(1) == target).sum())
    return correct


def _scores(model: nn.Module, batch: Tensor, target: Tensor) -> Tensor:
    try:
        scores = check_scores(model(batch), len(batch))
    except RuntimeError as cause:
        raise SrcsnnError(
            f"the network cannot take images of shape {tuple(batch.shape[1:])}: {cause}"
        ) from cause
    if not torch.isfinite(scores).all():
        raise SrcsnnError("the network's scores are not finite; check its weights")
    if not (int(target.min()) >= 0 and int(target.max()) < scores.shape[1]):
        raise DatasetError(
            f"labels from {int(target.min())} to {int(target.max())} for {scores.shape[1]} classes"
            f"{without_labels(target)}"
        )
    return scores
