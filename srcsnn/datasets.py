"""Names and paths to tensors of images in [0, 1]."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from srcsnn.errors import DatasetError
from srcsnn.plugins import nearest

__all__ = ["NAMES", "ImageSet", "Split", "check_images", "load_images"]

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10")
"""The data sets that have a name; every other is given by its path."""

Split = Literal["train", "test"]

# numpy arrays of any element type: what a file holds is only known once it is read
_Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their classes, and what is to be said about them.

    Args:
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, numbers into `classes`.
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


def load_images(
    data: str, split: Split, root: str | Path | None = None, download: bool = False
) -> ImageSet:
    """The training or test images that a name or a path stands for.

    - `digits`: the 1797 handwritten digits that scikit-learn ships, 8x8 with values from 0 to 16,
      enlarged bilinearly to 28x28. Every fourth is for testing (449), so both splits hold digits of
      every writer.
    - `mnist`, `fashion-mnist`, `cifar10`: through torchvision, in its layout of folders.
    - a folder with `train/` and `test/`, and in each one folder of PNG or JPEG images per class,
      all of one size, and grey or RGB.
    - an `.npz` or HDF5 (`.h5`, `.hdf5`) file with `train_images`, `train_labels`, `test_images` and
      `test_labels`, or just `images` and `labels`. Images are (N, H, W), (N, C, H, W) or
      (N, H, W, C) with one or three channels, uint8 (divided by 255) or floats in [0, 1].

    Args:
        data: a name, or a path; `./mnist` is a folder of that name.
        split: "train" or "test".
        root: where torchvision's data sets are; the environment variable SRCSNN_DATA if not given.
        download: whether torchvision may fetch what is not there.

    Raises:
        DatasetError: if the name is unknown, files are missing or malformed, images differ in size,
            leave [0, 1], or do not match their labels.
    """
    if split not in ("train", "test"):
        raise DatasetError(f"unknown split {split!r}; right would be 'train' or 'test'")
    if data == "digits":
        return _digits(split)
    if data in NAMES:
        return _from_torchvision(data, split, root, download)
    path = Path(data)
    if path.is_dir():
        return _from_folder(path, split)
    if path.is_file():
        return _from_file(path, split)
    raise DatasetError(
        f"there is no data set {data!r}{nearest(data, NAMES)}; right would be "
        f"{', '.join(NAMES)}, or the path of a folder, .npz or .h5 file"
    )


def check_images(images: Tensor, shape: tuple[int, int, int] | None = None) -> None:
    """Raises unless the images are what every function here expects.

    Args:
        images: to be (N, C, H, W), floating-point, finite, in [0, 1], and at least one.
        shape: (C, H, W) that the network takes, if that is known.

    Raises:
        DatasetError: that says which of these does not hold, and what is likely to mend it.

    >>> check_images(torch.rand(2, 1, 28, 28), shape=(1, 28, 28))
    >>> check_images(torch.zeros(2, 1, 28, 28) - 0.5)
    Traceback (most recent call last):
    srcsnn.errors.DatasetError: images have values from -0.5 to -0.5, outside [0, 1]; ...
    """
    found = tuple(images.shape)
    if len(found) != 4:
        raise DatasetError(f"images have the shape {found}; right would be (N, C, H, W)")
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
    if low >= 0 and high <= 255:
        return "they look like 0..255: divide them by 255"
    if low < 0 and high - low < 20:
        return (
            "they look normalised by mean and standard deviation: give them before that, and let "
            "the network normalise them in its first layer"
        )
    return "scale them into it"


def _times(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _scaled(pixels: _Array) -> Tensor:
    """Bytes (N, C, H, W) from 0 to 255, in any order of memory, as float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)) / 255


# By name


def _digits(split: Split) -> ImageSet:
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


def _from_torchvision(data: str, split: Split, root: str | Path | None, download: bool) -> ImageSet:
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
        images=_scaled(pixels[:, None] if grey else pixels.transpose(0, 3, 1, 2)),
        labels=torch.as_tensor(found.targets).long(),
        name=data,
        split=split,
        classes=tuple(found.classes),
        note="",
        source=f"torchvision {reader.__name__}",
    )


def _absent(data: str, root: Path, folder: str, download: bool, cause: Exception) -> str:
    where = root / folder
    if download:
        return f"{data}: could not be downloaded to {root} ({cause})"
    if where.is_dir():
        return f"{data}: {where} is incomplete or damaged ({cause}); download it again"
    also = (
        "; a folder with train/ and test/ of class folders of images works as well, by its path"
        if data == "cifar10"
        else ""
    )
    return (
        f"{data}: there is no {where}; right would be torchvision's layout in that folder, or to "
        f"ask for the download (--download){also}"
    )


# Folders of images


def _from_folder(path: Path, split: Split) -> ImageSet:
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
        raise DatasetError(f"{path / split}: {cause}") from cause
    files = [file for file, _ in listing.samples]
    pixels, formats = _decode(files)
    lossy = sorted({"JPEG", "WEBP"} & formats)
    return ImageSet(
        images=_scaled(pixels.transpose(0, 3, 1, 2)),
        labels=torch.tensor(listing.targets, dtype=torch.int64),
        name=path.resolve().name,
        split=split,
        classes=tuple(listing.classes),
        note=f"lossy {' and '.join(lossy)} copy, not the original pixels" if lossy else "",
        source=f"folder {path}",
    )


def _class_folders(path: Path, part: str) -> list[str]:
    if not (path / part).is_dir():
        inside = ", ".join(sorted(each.name for each in path.iterdir())[:10]) or "nothing"
        raise DatasetError(
            f"{path}: there is no {part}/ in it but {inside}; right would be train/ and test/ with "
            "one folder of images per class in each"
        )
    return sorted(each.name for each in (path / part).iterdir() if each.is_dir())


def _decode(files: Sequence[str]) -> tuple[_Array, set[str]]:
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


def _pixels(file: str) -> tuple[_Array, str]:
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


def _picture(pixels: _Array) -> str:
    height, width, channels = pixels.shape
    return f"{'grey' if channels == 1 else 'RGB'} {height}x{width}"


# Arrays in a file


def _from_file(path: Path, split: Split) -> ImageSet:
    readers: Mapping[str, Callable[[Path], AbstractContextManager[Any]]] = {
        ".npz": _open_npz,
        ".h5": h5py.File,
        ".hdf5": h5py.File,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DatasetError(f"{path}: unknown kind of file; right would be {', '.join(readers)}")
    try:
        with reader(path) as file:
            prefix = _prefix(list(file), split)
            pixels = np.asarray(file[f"{prefix}images"][()])
            numbers = {name: np.asarray(file[name][()]) for name in _label_names(file, prefix)}
        images = _as_images(pixels)
        check_images(images)
        labels = _as_labels(numbers[f"{prefix}labels"], len(images))
    except DatasetError as problem:
        raise DatasetError(f"{path}: {problem}") from problem
    except Exception as cause:  # a damaged file makes numpy, zip and HDF5 raise almost anything
        raise DatasetError(f"{path} cannot be read: {cause}") from cause
    # both parts of the data are to agree on how many classes there are
    count = 1 + max(int(each.max()) for each in numbers.values() if each.size)
    return ImageSet(
        images=images,
        labels=labels,
        name=path.stem,
        split=split,
        classes=tuple(map(str, range(count))),
        note="" if prefix else "one set of images, the same for training and testing",
        source=f"file {path}",
    )


@contextmanager
def _open_npz(path: Path) -> Iterator[Mapping[str, _Array]]:
    # opened here, since numpy leaves a file that turns out to be damaged open
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        yield arrays


def _prefix(names: Sequence[str], split: Split) -> str:
    """What stands before `images` and `labels` in the names of this part's arrays."""
    for prefix in (f"{split}_", ""):
        if f"{prefix}images" in names and f"{prefix}labels" in names:
            return prefix
    raise DatasetError(
        f"there is no {split}_images with {split}_labels, nor images with labels, but "
        f"{', '.join(names) or 'nothing'}"
    )


def _label_names(names: Iterable[str], prefix: str) -> list[str]:
    wanted = ("train_labels", "test_labels") if prefix else ("labels",)
    return [name for name in names if name in wanted]


def _as_images(pixels: _Array) -> Tensor:
    if pixels.dtype == np.uint8:
        return _scaled(_channels_first(pixels))
    if pixels.dtype.kind != "f":
        raise DatasetError(
            f"images are {pixels.dtype}; right would be uint8 from 0 to 255, or floats in [0, 1]"
        )
    return torch.from_numpy(np.ascontiguousarray(_channels_first(pixels), dtype=np.float32))


def _channels_first(pixels: _Array) -> _Array:
    if pixels.ndim == 3:
        return pixels[:, None]
    right = "right would be (N, H, W), (N, C, H, W) or (N, H, W, C) with one or three channels"
    if pixels.ndim != 4:
        raise DatasetError(f"images have the shape {pixels.shape}; {right}")
    first, last = pixels.shape[1] in (1, 3), pixels.shape[3] in (1, 3)
    if first and last:
        raise DatasetError(
            f"images have the shape {pixels.shape}, in which either axis may be the channels"
        )
    if not first and not last:
        raise DatasetError(f"images have the shape {pixels.shape}, without channels; {right}")
    return pixels if first else pixels.transpose(0, 3, 1, 2)


def _as_labels(numbers: _Array, count: int) -> Tensor:
    if numbers.shape != (count,):
        raise DatasetError(f"labels have the shape {numbers.shape}; right would be ({count},)")
    if numbers.dtype.kind not in "iu":
        raise DatasetError(f"labels are {numbers.dtype}; right would be integers from 0")
    if numbers.min() < 0:
        raise DatasetError(f"labels go down to {numbers.min()}; right would be integers from 0")
    return torch.from_numpy(numbers.astype(np.int64))
