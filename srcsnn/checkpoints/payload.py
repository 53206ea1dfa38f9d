"""What a checkpoint holds beside its weights, and where in it the weights are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcsnn.errors import CheckpointError

__all__ = ["WRAPPERS", "check_entries", "find_wrapper"]

WRAPPERS = ("state_dict", "model_state_dict", "model")


def find_wrapper(path: Path, payload: object) -> str | None:
    """The entry that holds the state dict; None if the payload itself is one.

    Raises:
        CheckpointError: if there is no state dict, or more than one.
    """
    if not isinstance(payload, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(payload).__name__}; right would be a dict of tensors, as "
            "torch.save(model.state_dict(), ...) writes it"
        )
    wrappers = [key for key in WRAPPERS if _has_tensors(payload.get(key))]
    if not wrappers and not any(
        isinstance(each, Tensor) and each.ndim for each in payload.values()
    ):
        # A name like net, if nothing else could be meant.
        holders = [key for key, value in payload.items() if _holds_weights(value)]
        plain = [key for key in holders if isinstance(key, str) and _is_tensors(payload[key])]
        wrappers = holders if len(holders) > 1 else plain
    if len(wrappers) > 1:
        raise CheckpointError(
            f"{path} holds more than one state dict: {', '.join(map(str, wrappers))}; save the one "
            "to use in a file of its own"
        )
    if not wrappers and not _has_tensors(payload):
        raise CheckpointError(
            f"{path} holds no weights: {_entries(payload)}. Right would be tensors by name, or one "
            f"dict of them, under {', '.join(WRAPPERS)} or another name"
        )
    return wrappers[0] if wrappers else None


def _has_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(each, Tensor) for each in value.values())


def _holds_weights(value: object) -> bool:
    """Whether there are tensors in it, at any depth, that are no optimizer's."""
    if isinstance(value, Mapping):
        return "param_groups" not in value and any(map(_holds_weights, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_weights, value))
    return isinstance(value, Tensor) and value.ndim > 0


def _is_tensors(value: object) -> bool:
    return _has_tensors(value) and all(isinstance(each, Tensor) for each in value.values())  # type: ignore[attr-defined]  # a mapping


def _entries(payload: Mapping[Any, object]) -> str:
    if not payload:
        return "it is an empty dict"
    described = (f"{name} ({_kind(value)})" for name, value in payload.items())
    return "its entries are " + ", ".join(described)


def _kind(value: object) -> str:
    with_tensors = " with tensors in it" if _has_tensors(value) else ""
    return type(value).__name__ + with_tensors


def check_entries(path: Path, found: Mapping[Any, object]) -> None:
    """Raises CheckpointError unless all of the state dict is dense tensors by name."""
    if not found:
        raise CheckpointError(f"{path} holds no weights: it is an empty set of tensors")
    odd = [f"{name} ({_oddity(value)})" for name, value in found.items() if _oddity(value)]
    odd += [f"{name!r} (a key that is no text)" for name in found if not isinstance(name, str)]
    if odd:
        raise CheckpointError(
            f"{path} holds entries among its weights that are no dense tensors: {', '.join(odd)}; "
            f"save the tensors alone under {WRAPPERS[0]!r}, and the rest beside them"
        )


def _oddity(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.is_quantized:
        return "quantized tensor"
    if value.is_meta:
        return "meta tensor, without values"
    return "" if value.layout is torch.strided else f"{value.layout} tensor"
