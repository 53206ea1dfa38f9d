"""Training images whose classes a night should keep."""

import torch
from torch import Tensor, nn

from srcsnn.classifiers import evaluating, scores_of
from srcsnn.errors import SrcsnnError
from srcsnn.memory import images_at_once
from srcsnn.seeding import stream

__all__ = ["Watched"]

_MOST = 1000
"""Images, at most."""


class Watched:
    """Training images whose classes a night should keep, as they are and shifted by a pixel.

    A network may know its training images by heart, and keep their classes where those of others
    go. Shifted, they are images that it has not seen.

    Args:
        model: the network before sleep: maps (B, C, H, W) to scores (B, classes).
        images: (N, C, H, W), (N, C, L) or (N, C, D, H, W) in [0, 1]; at most 1,000 are watched.
        seed: of which.

    Raises:
        SrcsnnError: if the network gives no scores (images, classes).
    """

    def __init__(self, model: nn.Module, images: Tensor, seed: int) -> None:
        chosen = torch.randperm(len(images), generator=stream(seed, "watched"))[:_MOST]
        self.images = images[chosen]
        axes = range(2, images.dim())
        self.shifted = self.images.roll([1] * len(axes), list(axes))
        try:
            self.classes = self._classes(model, self.images)
            self.shifted_classes = self._classes(model, self.shifted)
        except SrcsnnError as cause:
            raise SrcsnnError(f"{cause}, or keep = 0, with which no classes are watched") from cause

    def kept(self, model: nn.Module) -> tuple[float, float]:
        """Shares of the images, and of the shifted, that it puts where the first one did."""
        both = (self.images, self.classes), (self.shifted, self.shifted_classes)
        kept, shifted = (
            float((self._classes(model, images) == before).float().mean())
            for images, before in both
        )
        return kept, shifted

    @torch.inference_mode()
    def _classes(self, model: nn.Module, images: Tensor) -> Tensor:
        batches = torch.split(images, images_at_once(images))
        with evaluating(model):
            scores = [scores_of(model, batch) for batch in batches]
        return torch.cat(scores).argmax(1)
