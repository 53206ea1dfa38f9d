"""Checks of what a classifier takes and gives: images, labels, scores."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from srcsnn.datasets.images import NO_LABEL
from srcsnn.errors import DatasetError, SrcsnnError

__all__ = ["check_scores", "check_takes", "evaluating", "scores_of", "without_labels"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside this block the network is in eval mode; after it each module is in its own again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def check_scores(scores: object, images: int) -> Tensor:
    """What a network gave for so many images, if that is a score for each image and class.

    Raises:
        SrcsnnError: if it is anything else.
    """
    if isinstance(scores, Tensor) and scores.dim() == 2 and len(scores) == images:
        return scores
    found = tuple(scores.shape) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
    raise SrcsnnError(
        f"the network gives {found} for {images} images; scores of shape (images, classes) are "
        "needed"
    )


def without_labels(labels: Tensor) -> str:
    """The end of a complaint about labels: that there were none, if so."""
    return "; the images came without labels" if (labels == NO_LABEL).all() else ""


def scores_of(model: nn.Module, images: Tensor) -> Tensor:
    """The scores (B, classes) of images (B, C, H, W) of any type, in the mode the network is in.

    Raises:
        SrcsnnError: if the network gives anything else.
    """
    # A copy, as a network may write to its input.
    return check_scores(model(images.to(next(model.parameters(), images), copy=True)), len(images))


@torch.no_grad()
def check_takes(model: nn.Module, images: Tensor, labels: Tensor | None = None) -> None:
    """Raises unless the network can classify such images; tried with the first of them.

    Args:
        model: maps (B, C, H, W) to scores (B, classes). Left in the mode it was in.
        images: (N, C, H, W).
        labels: (N,) class numbers, if they are to be learnt.

    Raises:
        DatasetError: if the network fails on such images, or there is not a label for each image
            that is one of the network's classes.
        SrcsnnError: if there are labels, and the network gives no scores (images, classes).
    """
    size = "x".join(map(str, images.shape[1:]))
    try:
        with evaluating(model):
            scores = model(images[:1].to(next(model.parameters(), images), copy=True))
    except Exception as cause:  # whatever a forward that is not ours may raise
        kind = "" if isinstance(cause, RuntimeError) else f"{type(cause).__name__}: "
        why = kind + (str(cause).splitlines() or [type(cause).__name__])[0]
        raise DatasetError(
            f"the network cannot take images of {size} (channels x height x width): {why}; are "
            "they the kind of images it was made for?"
        ) from cause
    if labels is None:
        return
    if labels.shape != (len(images),):
        raise DatasetError(f"{tuple(labels.shape)} labels for {len(images)} images; one each")
    classes, lowest, highest = check_scores(scores, 1).shape[1], *map(int, labels.aminmax())
    if lowest < 0 or highest >= classes:
        raise DatasetError(
            f"labels from {lowest} to {highest}, but the network has {classes} classes, numbered "
            f"from 0{without_labels(labels)}"
        )
