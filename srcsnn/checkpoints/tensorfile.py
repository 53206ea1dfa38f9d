"""The safetensors format: read, and changed in place byte by byte."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from srcsnn.errors import CheckpointError

__all__ = ["is_safetensors", "load_safetensors", "patch"]

_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit


def is_safetensors(data: bytes) -> bool:
    """Whether these bytes begin like the format, whatever the file is called."""
    length = int.from_bytes(data[:8], "little")
    return data[8:9] == b"{" and length <= _HEADER_LIMIT


def load_safetensors(path: Path, data: bytes) -> dict[str, Tensor]:
    """The tensors in the order of the file.

    Raises:
        CheckpointError: if the file is truncated or damaged.
    """
    try:
        tensors = safetensors.torch.load(data)
        return {name: tensors[name] for name in _header(data)}
    except (safetensors.SafetensorError, ValueError, KeyError) as cause:
        raise CheckpointError(
            f"{path} begins like safetensors but is truncated or damaged ({cause}); get it again"
        ) from cause


def _header(data: bytes) -> dict[str, Any]:  # Any: JSON
    """Entries of the header by tensor, in its order, without the metadata of the file."""
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return header


def patch(data: bytes, changed: Mapping[str, Tensor]) -> bytes:
    """The file with the bytes of some tensors, of the same shapes and dtypes, replaced."""
    patched = bytearray(data)
    header = _header(data)
    start = 8 + int.from_bytes(data[:8], "little")
    for key, weights in changed.items():
        begin, end = header[key]["data_offsets"]
        new = weights.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert len(new) == end - begin  # same shape and dtype as in the file
        patched[start + begin : start + end] = new
    return bytes(patched)
