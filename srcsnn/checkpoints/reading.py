"""A checkpoint as it was read, and how it gets into a network."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from srcsnn.checkpoints.fit import check_finite, check_fit, is_counter, prefix_of
from srcsnn.checkpoints.payload import check_entries, find_wrapper
from srcsnn.checkpoints.tensorfile import is_safetensors, load_safetensors
from srcsnn.checkpoints.unpickling import load_torch
from srcsnn.errors import CheckpointError

__all__ = ["Checkpoint", "load_checkpoint", "load_into", "read_bytes"]

_PREFIX = "module."


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint as it was read, and where in it the weights are.

    Args:
        path: of the file.
        sha256: of the file's bytes, in hexadecimal.
        format: how it is written: by `torch.save`, or as safetensors.
        payload: all that the file holds; it is not to be changed.
        wrapper: the entry of the payload that holds the state dict, None if the payload is it.
        prefix: "module." if every key in the file starts with it, else "".
        state_dict: the weights in the order of the file, without the prefix.
    """

    path: Path
    sha256: str
    format: Literal["torch", "safetensors"]
    payload: Mapping[str, Any]  # Any: beside the weights people keep epochs, optimizers, anything
    wrapper: str | None
    prefix: str
    state_dict: dict[str, Tensor]


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint; no code from the file is run.

    Accepted are a state dict written by `torch.save`, one that is wrapped under `state_dict`,
    `model_state_dict` or `model` with other entries around it, or under any name if it is the only
    one, keys that all start with `module.`, and safetensors, which is recognised by content,
    whatever the file is called.

    Raises:
        CheckpointError: if the file is missing, empty, truncated, no checkpoint, holds objects that
            only code from the file could rebuild, or anything but dense tensors as weights.
    """
    path = Path(path)
    data = read_bytes(path)
    safetensors = is_safetensors(data)
    payload: Any = load_safetensors(path, data) if safetensors else load_torch(path, data)
    wrapper = None if safetensors else find_wrapper(path, payload)
    found = payload if wrapper is None else payload[wrapper]
    check_entries(path, found)
    prefix = _PREFIX if all(name.startswith(_PREFIX) for name in found) else ""
    return Checkpoint(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        format="safetensors" if safetensors else "torch",
        payload=payload,
        wrapper=wrapper,
        prefix=prefix,
        state_dict={name.removeprefix(prefix): tensor for name, tensor in found.items()},
    )


def load_into(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Gives the network, in place, the weights of the checkpoint, by value in the network's dtypes.

    Keys may all start with what the network's do not, like the "model." of Lightning.

    Raises:
        CheckpointError: if it is no checkpoint, keys are missing, unexpected or mis-shaped, all of
            which are listed, or weights are NaN or infinite. The network is as it was then.
    """
    if not isinstance(checkpoint, Checkpoint):
        raise CheckpointError(
            f"a {type(checkpoint).__name__} is no checkpoint; right would be load_checkpoint(path)"
        )
    target = model.state_dict()
    prefix = prefix_of(checkpoint.state_dict, target)
    found = {key.removeprefix(prefix): each for key, each in checkpoint.state_dict.items()}
    check_fit(checkpoint.path, found, target)
    check_finite(
        {key: weights.to(target[key].dtype) for key, weights in found.items()},
        f"{checkpoint.path}: cannot use these weights",
    )
    counts = {key: each for key, each in target.items() if is_counter(key)}
    try:
        model.load_state_dict(counts | found, strict=True)
    except RuntimeError as cause:  # a network with rules of its own about what it loads
        raise CheckpointError(f"{checkpoint.path} does not fit the network: {cause}") from cause


def read_bytes(path: Path) -> bytes:
    """All of the file.

    Raises:
        CheckpointError: if it is missing, a folder, empty or not readable.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the checkpoint file in it")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except OSError as cause:
        raise CheckpointError(f"cannot read {path}: {cause.strerror}") from cause
    if not data:
        raise CheckpointError(f"{path} is empty; was it copied or downloaded completely?")
    return data
