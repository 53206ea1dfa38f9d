"""Names and paths to tensors of images in [0, 1]."""

from pathlib import Path

from srcsnn.datasets.arrayfiles import from_file
from srcsnn.datasets.folders import from_folder
from srcsnn.datasets.images import ImageSet, Split, check_images
from srcsnn.datasets.named import NAMES, from_scikit_learn, from_torchvision
from srcsnn.errors import ConfigError
from srcsnn.plugins import nearest

__all__ = ["NAMES", "ImageSet", "Split", "check_images", "load_images"]


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
        ConfigError: if it is neither a name nor a path that is there.
        DatasetError: if files are missing or malformed, images differ in size, leave [0, 1], or do
            not match their labels.
    """
    if split not in ("train", "test"):
        raise ConfigError(f"unknown split {split!r}; right would be 'train' or 'test'")
    if data == "digits":
        return from_scikit_learn(split)
    if data in NAMES:
        return from_torchvision(data, split, root, download)
    path = Path(data)
    if path.is_dir():
        return from_folder(path, split)
    if path.is_file():
        return from_file(path, split)
    raise ConfigError(
        f"there is no data set {data!r}{nearest(data, NAMES)}; right would be "
        f"{', '.join(NAMES)}, or the path of a folder, .npz or .h5 file"
    )
