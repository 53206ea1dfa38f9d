"""The images of a study: loaded once, kept as tensors in a file, and named by their content."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import safetensors.torch
from safetensors import safe_open
from torch import Tensor

import srcsnn
from srcsnn.files import write_atomically

__all__ = ["Images", "images_of"]


@dataclass(frozen=True)
class Images:
    """Training and test images (N, C, H, W) in [0, 1] with their labels (N,).

    Attributes:
        sha256: of all four tensors.
        note: what must be said beside every result, such as a lossy copy; often "".
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    sha256: str
    note: str


@lru_cache(maxsize=1)
def images_of(source: str, cache: Path) -> Images:
    """The images of a data set.

    Args:
        source: as `srcsnn.load_images` takes it. Decoding thousands of JPEG files takes long, so
            the tensors are kept, under the name of the data set alone.
        cache: folder for them.

    Raises:
        DatasetError: if the data set is not there.
    """
    path = cache / f"images-{Path(source).name}.safetensors"
    if not path.exists():
        train, test = srcsnn.load_images(source, "train"), srcsnn.load_images(source, "test")
        tensors = {
            "train": train.images, "train_labels": train.labels,
            "test": test.images, "test_labels": test.labels,
        }  # fmt: skip
        digest = hashlib.sha256()
        for tensor in tensors.values():
            digest.update(tensor.numpy().tobytes())
        cache.mkdir(parents=True, exist_ok=True)
        notes = {"sha256": digest.hexdigest(), "note": test.note}
        write_atomically(path, lambda file: file.write(safetensors.torch.save(tensors, notes)))
    with safe_open(path, framework="pt") as file:
        notes = file.metadata()
    tensors = safetensors.torch.load_file(path)
    return Images(
        train=tensors["train"],
        train_labels=tensors["train_labels"],
        test=tensors["test"],
        test_labels=tensors["test_labels"],
        sha256=notes["sha256"],
        note=notes["note"],
    )
