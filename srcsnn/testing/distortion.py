"""What `srcsnn.evaluate` needs of a distortion."""

import torch
from torch import Tensor

from srcsnn.distortions import Distortion
from srcsnn.noise import Noise
from srcsnn.testing.verdict import Faults, judging

__all__ = ["check_distortion"]


def check_distortion(distortion: Distortion, channels: int = 3) -> None:
    """Checks that a distortion is what `srcsnn.evaluate` needs, on a few random images.

    What is random must come out of the noise it is given, which belongs to an image: the same for
    any size of batch.

    Args:
        distortion: an object with `name`, `levels` and `__call__`, see `Distortion`.
        channels: of the images that it is for.

    Raises:
        ConformanceError: with everything that was found, one line each.

    >>> from srcsnn.distortions import GaussianBlur
    >>> check_distortion(GaussianBlur())
    """
    with judging(distortion, "distortion", "__call__") as faults:
        if not isinstance(getattr(distortion, "name", None), str):
            faults.add("its name is no text")
        if not all(isinstance(level, float) for level in getattr(distortion, "levels", ["none"])):
            faults.add("its levels are no tuple of floats")
        if not faults:
            generator = torch.Generator().manual_seed(0)
            images = torch.rand(4, channels, 12, 10, generator=generator)
            for level in distortion.levels:
                _look(distortion, images, level, faults)


def _look(distortion: Distortion, images: Tensor, level: float, faults: Faults) -> None:
    given = images.clone()
    found = distortion(given, level, Noise(0, distortion.name, level, range(len(images))))
    if found.shape != images.shape or found.dtype != images.dtype:
        faults.add(
            f"level {level}: images {tuple(found.shape)} of {found.dtype} for "
            f"{tuple(images.shape)} of {images.dtype}"
        )
        return
    if not torch.equal(given, images):
        faults.add("it writes into the images")
    if not ((found >= 0) & (found <= 1)).all():
        faults.add(
            f"level {level}: values from {found.min():.3g} to {found.max():.3g}, not in 0..1"
        )
    alone = [
        distortion(images[i : i + 1], level, Noise(0, distortion.name, level, (i,)))
        for i in range(len(images))
    ]
    if not torch.allclose(torch.cat(alone), found, atol=1e-6):
        faults.add("an image alone comes out otherwise than in a batch: draw from the noise")
