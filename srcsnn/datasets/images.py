"""Images with their classes, and what they must be like."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from srcsnn.errors import DatasetError

__all__ = ["NO_LABEL", "Array", "ImageSet", "Split", "check_images", "scaled"]

Split = Literal["train", "test"]

# numpy arrays of any element type: what a file holds is only known once it is read
Array = np.ndarray[Any, np.dtype[Any]]


NO_LABEL = -1
"""The label of an image whose class nobody has said."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their classes, and what is to be said about them.

    Args:
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, numbers into `classes`; `NO_LABEL` where a file has none.
        name: short, as in tables of results.
        split: which part of the data it is.
        classes: names by class number.
        note: what must be said wherever results are reported, such as a lossy copy; often "".
        source: where the images come from.
    """

    images: Tensor
    labels: Tensor
    name: str
    split: Split
    classes: tuple[str, ...]
    note: str
    source: str


def check_images(
    images: Tensor,
    shape: tuple[int, int, int] | None = None,
    *,
    flat: bool = True,
) -> None:
    """Raises unless the images are what every function here expects.

    Args:
        images: to be (N, C, H, W), floating-point, finite, in [0, 1], and at least one.
        shape: (C, H, W) that the network takes, if that is known.
        flat: whether they must be images, and not lines (N, C, L) or volumes (N, C, D, H, W).

    Raises:
        DatasetError: that says which of these does not hold, and what is likely to mend it.

    >>> check_images(torch.rand(2, 1, 28, 28), shape=(1, 28, 28))
    >>> check_images(torch.zeros(2, 1, 28, 28) - 0.5)
    Traceback (most recent call last):
    srcsnn.errors.DatasetError: images have values from -0.5 to -0.5, outside [0, 1]; ...
    """
    if not isinstance(images, Tensor):
        raise DatasetError(f"images are a {type(images).__name__}; right would be a torch.Tensor")
    found = tuple(images.shape)
    if len(found) != 4 and (flat or len(found) not in (3, 5)):
        right = "(N, C, H, W)" if flat else "(N, C, H, W), (N, C, L) or (N, C, D, H, W)"
        raise DatasetError(f"images have the shape {found}; right would be {right}")
    if not images.numel():
        raise DatasetError(f"there are no images, or none with pixels: their shape is {found}")
    if shape is not None and found[1:] != tuple(shape):
        raise DatasetError(
            f"images are {_times(found[1:])} (channels x height x width), the network takes "
            f"{_times(shape)}"
        )
    if not images.is_floating_point():
        raise DatasetError(f"images are {images.dtype}; right would be floats in [0, 1]")
    low, high = (float(extreme) for extreme in torch.aminmax(images))
    if not np.isfinite([low, high]).all():
        raise DatasetError("images have NaN or infinite values; right would be [0, 1]")
    if low < 0 or high > 1:
        raise DatasetError(
            f"images have values from {low:g} to {high:g}, outside [0, 1]; {_remedy(low, high)}"
        )


def _remedy(low: float, high: float) -> str:
    if low >= 0 and 2 < high <= 255:
        return "they look like 0..255: divide them by 255"
    if low < 0 and high - low < 20:
        return (
            "they look normalised by mean and standard deviation: give them before that, and let "
            "the network normalise them in its first layer"
        )
    return "scale them into it"


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def scaled(pixels: Array) -> Tensor:
    """Bytes (N, C, H, W) from 0 to 255, in any order of memory, as float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)) / 255
