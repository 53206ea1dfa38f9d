"""Trained weights: read without running code from the file, written back, nothing else changed."""

from srcsnn.checkpoints.reading import Checkpoint, load_checkpoint, load_into
from srcsnn.checkpoints.writing import check_output, save_checkpoint, save_new, versions

__all__ = [
    "Checkpoint",
    "check_output",
    "load_checkpoint",
    "load_into",
    "save_checkpoint",
    "save_new",
    "versions",
]
