"""Batch sizes, the layout of batches, and what becomes of memory that is freed."""

import ctypes
import sys

import torch
from torch import Tensor, nn

__all__ = ["give_back_freed", "images_at_once", "keep_freed", "quick_layout"]

_NUMBERS = 2**18
"""Input numbers a batch: enough to be fast, and little memory where a layer has many times more."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT = 2**29  # bytes


def images_at_once(images: Tensor) -> int:
    """How many of these images (N, C, H, W) make a batch that is quick to compute; 1 or more."""
    return max(1, _NUMBERS // images[0].numel())


@torch.no_grad()
def quick_layout(model: nn.Module, images: Tensor) -> torch.memory_format:
    """The layout of batches in which the network is quick: channels last, unless it fails on that.

    Convolutions and pools compute in channels last, and lay out anew what comes otherwise. A
    network with `view` between them and its linear layers takes no other layout than the usual.

    Args:
        model: maps (B, C, H, W) to anything. In eval mode.
        images: (N, C, H, W) that it takes in the usual layout; tried with the first of them.
    """
    first = images[:1].to(next(model.parameters(), images), copy=True)
    try:
        model(first.to(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


def keep_freed() -> None:
    """Has the C library keep memory that is freed for the next use.

    glibc hands large blocks back to the system as soon as they are free, so that every step of a
    large network, or every batch, would have its pages made and zeroed again, for a fifth of its
    time, or for half of it where the environment sets MALLOC_TRIM_THRESHOLD_, as Dask does for its
    workers. Blocks below 512 MiB are kept (`man mallopt`), in threads other than the first those
    below 64 MiB. Elsewhere this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:  # not glibc
        return
    mallopt(_TRIM_THRESHOLD, _KEPT)
    if not mallopt(_MMAP_THRESHOLD, _KEPT):  # before glibc 2.35 more than 32 MiB were refused
        mallopt(_MMAP_THRESHOLD, 2**25)


def give_back_freed() -> None:
    """Has the C library hand memory that was kept back to the system, before other use of it.

    What a night has freed is in pieces, each too small for a copy of the network.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
