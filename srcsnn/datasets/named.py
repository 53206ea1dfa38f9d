"""The data sets that have a name."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from srcsnn.datasets.images import ImageSet, Split, scaled
from srcsnn.errors import DatasetError

__all__ = ["NAMES", "from_scikit_learn", "from_torchvision"]

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10")
"""The data sets that have a name; every other is given by its path."""


def from_scikit_learn(split: Split) -> ImageSet:
    """The digits that scikit-learn ships."""
    from sklearn.datasets import load_digits  # takes a second, and most runs do without

    digits = load_digits()
    is_test = np.arange(len(digits.target)) % 4 == 3
    part = is_test if split == "test" else ~is_test
    small = torch.from_numpy(digits.images[part]).float()[:, None] / 16
    images = F.interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
    return ImageSet(
        images=images.clamp_(0, 1),  # interpolation may round past 1
        labels=torch.from_numpy(digits.target[part]).long(),
        name="digits",
        split=split,
        classes=tuple(map(str, digits.target_names)),
        note="",
        source="scikit-learn's load_digits, 8x8, enlarged bilinearly to 28x28",
    )


def from_torchvision(data: str, split: Split, root: str | Path | None, download: bool) -> ImageSet:
    """MNIST, Fashion-MNIST or CIFAR-10 in torchvision's layout of folders."""
    from torchvision import datasets  # takes two seconds, and most runs do without

    # Any: torchvision ships no types
    reader: Any
    reader, folder = {
        "mnist": (datasets.MNIST, "MNIST/raw"),
        "fashion-mnist": (datasets.FashionMNIST, "FashionMNIST/raw"),
        "cifar10": (datasets.CIFAR10, "cifar-10-batches-py"),
    }[data]
    root = root or os.environ.get("SRCSNN_DATA")
    if not root:
        raise DatasetError(
            f"{data}: not told where it is; give the folder (--data-root) or set SRCSNN_DATA"
        )
    try:
        found = reader(root, train=split == "train", download=download)
    except Exception as cause:  # whatever a missing file, a damaged one or the network leads to
        raise DatasetError(_absent(data, Path(root), folder, download, cause)) from cause
    pixels = np.asarray(found.data)
    grey = pixels.ndim == 3
    return ImageSet(
        images=scaled(pixels[:, None] if grey else pixels.transpose(0, 3, 1, 2)),
        labels=torch.as_tensor(found.targets).long(),
        name=data,
        split=split,
        classes=tuple(found.classes),
        note="",
        source=f"torchvision {reader.__name__}",
    )


def _absent(data: str, root: Path, folder: str, download: bool, cause: Exception) -> str:
    where, why = root / folder, " ".join(str(cause).split())  # torchvision takes four lines
    if download:
        return f"{data}: could not be downloaded to {root}: {why}"
    if where.is_dir():
        return (
            f"{data}: {where} is incomplete or damaged; ask for the download (--download), which "
            "fetches what is missing"
        )
    also = (
        "; a folder with train/ and test/ of class folders of images works as well, by its path"
        if data == "cifar10"
        else ""
    )
    return (
        f"{data}: there is no {where}; right would be torchvision's layout in that folder, or to "
        f"ask for the download (--download){also}"
    )
