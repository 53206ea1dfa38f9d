"""Images and labels as arrays in an .npz or HDF5 file."""

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from srcsnn.datasets.images import NO_LABEL, Array, ImageSet, Split, check_images, scaled
from srcsnn.errors import DatasetError

__all__ = ["from_file"]

_MOST_CLASSES = 1_000_000
"""A larger label marks an image without one, such as -1 kept in a type without a sign."""


def from_file(path: Path, split: Split) -> ImageSet:
    """The images of a split, or the only ones that there are."""
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
        labels = numbers.get(f"{prefix}labels", np.full(len(images), NO_LABEL))
        _check_length(labels, len(images))
        for each in numbers.values():  # of both parts, as they say how many classes there are
            _check_numbers(each)
    except DatasetError as problem:
        raise DatasetError(f"{path}: {problem}") from problem
    except Exception as cause:  # a damaged file makes numpy, zip and HDF5 raise almost anything
        raise DatasetError(_unreadable(path, cause)) from cause
    count = 1 + max((int(each.max()) for each in numbers.values() if each.size), default=NO_LABEL)
    return ImageSet(
        images=images,
        labels=torch.from_numpy(labels.astype(np.int64)),
        name=path.stem,
        split=split,
        classes=tuple(map(str, range(count))),
        note="" if prefix else "one set of images, the same for training and testing",
        source=f"file {path}",
    )


def _unreadable(path: Path, cause: Exception) -> str:
    """What to say of a file that numpy, zip or HDF5 gave up on, in other words than theirs."""
    if isinstance(cause, PermissionError):
        return f"{path} may not be read; ask its owner for permission"
    if not path.stat().st_size:
        return f"{path} is empty; was it copied or downloaded completely?"
    zipped = path.suffix.lower() == ".npz"
    if not (zipfile.is_zipfile(path) if zipped else h5py.is_hdf5(path)):
        kind = "an .npz archive, as numpy.savez writes it," if zipped else "an HDF5 file"
        return f"{path} is not {kind} or is cut short; get it again"
    if "Object arrays" in str(cause):
        return (
            f"{path} holds pickled objects, which only code from the file could rebuild; nothing "
            "in it was run. Right would be arrays of numbers"
        )
    if isinstance(cause, TypeError) and "group" in str(cause):
        return f"{path}: its images or labels are a group; right would be datasets of these names"
    return f"{path} is damaged ({' '.join(str(cause).split())[:200]}); get it again"


@contextmanager
def _open_npz(path: Path) -> Iterator[Mapping[str, Array]]:
    # opened here, since numpy leaves a file that turns out to be damaged open
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        yield arrays


def _prefix(names: Sequence[str], split: Split) -> str:
    """What stands before `images` and `labels` in the names of this part's arrays."""
    for prefix in (f"{split}_", ""):
        if f"{prefix}images" in names:
            return prefix
    raise DatasetError(
        f"there is no {split}_images with {split}_labels, nor images with labels, but "
        f"{', '.join(names) or 'nothing'}"
    )


def _label_names(names: Iterable[str], prefix: str) -> list[str]:
    wanted = ("train_labels", "test_labels") if prefix else ("labels",)
    return [name for name in names if name in wanted]


def _as_images(pixels: Array) -> Tensor:
    if pixels.dtype == np.uint8:
        if pixels.size and pixels.max() == 1:
            raise DatasetError(
                "images are uint8 from 0 to 1; right would be uint8 from 0 to 255, or floats in "
                "[0, 1]"
            )
        return scaled(_channels_first(pixels))
    if pixels.dtype.kind != "f":
        raise DatasetError(
            f"images are {pixels.dtype}; right would be uint8 from 0 to 255, or floats in [0, 1]"
        )
    return torch.from_numpy(np.ascontiguousarray(_channels_first(pixels), dtype=np.float32))


def _channels_first(pixels: Array) -> Array:
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
        raise DatasetError(f"images have the shape {pixels.shape}; {right}")
    return pixels if first else pixels.transpose(0, 3, 1, 2)


def _check_length(labels: Array, count: int) -> None:
    if labels.shape != (count,):
        raise DatasetError(f"labels have the shape {labels.shape}; right would be ({count},)")


def _check_numbers(labels: Array) -> None:
    if labels.dtype.kind not in "iu":
        raise DatasetError(f"labels are {labels.dtype}; right would be integers from 0")
    if not labels.size:
        return
    if labels.min() < 0:
        raise DatasetError(f"labels go down to {labels.min()}; right would be integers from 0")
    if labels.max() >= _MOST_CLASSES:
        raise DatasetError(
            f"labels go up to {labels.max()}; right would be integers from 0, below "
            f"{_MOST_CLASSES:,}"
        )
