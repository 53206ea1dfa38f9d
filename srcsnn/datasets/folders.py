"""A folder of class folders of images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from srcsnn.datasets.images import Array, ImageSet, Split, scaled
from srcsnn.errors import DatasetError

__all__ = ["from_folder"]


def from_folder(path: Path, split: Split) -> ImageSet:
    """The images of `train/` or `test/`, with a class for each folder in it."""
    from torchvision.datasets import ImageFolder  # takes two seconds, and most runs do without

    classes = {part: _class_folders(path, part) for part in ("train", "test")}
    if classes["train"] != classes["test"]:
        different = sorted(set(classes["train"]) ^ set(classes["test"]))
        raise DatasetError(
            f"{path}: train/ and test/ have different classes; only one of them has "
            f"{', '.join(different)}"
        )
    try:
        listing = ImageFolder(str(path / split))
    except FileNotFoundError as cause:
        raise DatasetError(f"{path / split}: {_without_images(path / split)}") from cause
    files = [file for file, _ in listing.samples]
    pixels, formats = _decode(files)
    lossy = sorted({"JPEG", "WEBP"} & formats)
    return ImageSet(
        images=scaled(pixels.transpose(0, 3, 1, 2)),
        labels=torch.tensor(listing.targets, dtype=torch.int64),
        name=path.resolve().name,
        split=split,
        classes=tuple(listing.classes),
        note=f"lossy {' and '.join(lossy)} copy, not the original pixels" if lossy else "",
        source=f"folder {path}",
    )


def _without_images(part: Path) -> str:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    classes = [each for each in sorted(part.iterdir()) if each.is_dir()]
    if not classes:
        return "holds no folders; right would be one folder of images for each class"
    empty = [
        each.name for each in classes
        if not any(file.suffix.lower() in IMG_EXTENSIONS for file in each.rglob("*"))
    ]  # fmt: skip
    return (
        f"there is no image in {', '.join(empty)}; right would be files ending in "
        f"{', '.join(IMG_EXTENSIONS)}"
    )


def _class_folders(path: Path, part: str) -> list[str]:
    if not (path / part).is_dir():
        inside = ", ".join(sorted(each.name for each in path.iterdir())[:10]) or "nothing"
        raise DatasetError(
            f"{path}: there is no {part}/ in it but {inside}; right would be train/ and test/ with "
            "one folder of images per class in each"
        )
    return sorted(each.name for each in (path / part).iterdir() if each.is_dir())


def _decode(files: Sequence[str]) -> tuple[Array, set[str]]:
    """Pixels (N, H, W, C) as uint8, and the formats of the files.

    In one thread: of the 0.2 ms for a small image, PIL holds the interpreter for all but 0.04, and
    two threads that wait for each other took a third longer than one.
    """
    first, format_ = _pixels(files[0])
    pixels = np.empty((len(files), *first.shape), dtype=np.uint8)
    pixels[0] = first
    formats = {format_}
    for index, file in enumerate(files[1:], start=1):
        image, format_ = _pixels(file)
        if image.shape != first.shape:
            raise DatasetError(
                f"{file} is {_picture(image)}, but the first image, {files[0]}, is "
                f"{_picture(first)}; right would be one size and mode for all"
            )
        pixels[index] = image
        formats.add(format_)
    return pixels, formats


def _pixels(file: str) -> tuple[Array, str]:
    from PIL import Image

    try:
        with Image.open(file) as image:
            mode, format_ = image.mode, str(image.format)
            pixels = np.asarray(image)
    except Exception as cause:  # bytes that are no image make PIL raise almost anything
        raise DatasetError(f"{file} cannot be decoded as an image: {cause}") from cause
    if mode not in ("L", "RGB"):
        raise DatasetError(f"{file} has the mode {mode}; right would be L (grey) or RGB")
    return (pixels[..., None] if mode == "L" else pixels), format_


def _picture(pixels: Array) -> str:
    height, width, channels = pixels.shape
    return f"{'grey' if channels == 1 else 'RGB'} {height}x{width}"
