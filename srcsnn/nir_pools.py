"""Two-dimensional pools of a traced network: which operations they are, and their geometry."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from converters import ConversionError

__all__ = ["AVERAGE_POOLS", "MAX_POOLS", "geometry"]

MAX_POOLS = {
    nn.MaxPool2d, nn.AdaptiveMaxPool2d, F.max_pool2d, torch.max_pool2d, F.adaptive_max_pool2d,
}  # fmt: skip
AVERAGE_POOLS = {nn.AvgPool2d, nn.AdaptiveAvgPool2d, F.avg_pool2d, F.adaptive_avg_pool2d}

_MAX_ARGUMENTS = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVERAGE_ARGUMENTS = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_USUAL = {"dilation": (1, 1), "ceil_mode": False, "count_include_pad": True}


def geometry(
    node: fx.Node, module: nn.Module | None, before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride and padding of a pool, each (height, width).

    Args:
        node: the pool, called as a module or a function.
        module: what it calls, if it is one.
        before: height and width of the images it gets.
        after: height and width of those it gives.

    Raises:
        ConversionError: if these numbers do not say all: `ceil_mode`, dilation, a margin that an
            average leaves out, adaptive sizes that do not divide.
    """
    label = str(node.target) if module is not None else node.name
    operation: Any = type(module) if module is not None else node.target
    if "adaptive" in operation.__name__.lower():
        if any(size % number for size, number in zip(before, after, strict=True)):
            raise ConversionError(f"{label}: NIR has no pool from {before} to {after}")
        kernel = tuple(size // number for size, number in zip(before, after, strict=True))
        return kernel, kernel, (0, 0)
    if module is not None:
        given: Mapping[str, Any] = vars(module)
    else:
        names = _AVERAGE_ARGUMENTS if operation is F.avg_pool2d else _MAX_ARGUMENTS
        given = dict(zip(names, node.args[1:], strict=False)) | node.kwargs
    padding = _pair(given.get("padding", 0))
    strange = [name for name, usual in _USUAL.items() if not _is(given.get(name, usual), usual)]
    if padding == (0, 0):  # then there is no margin to count
        strange = [name for name in strange if name != "count_include_pad"]
    if strange:
        raise ConversionError(f"{label}: NIR's pools have no {', '.join(strange)}")
    kernel = _pair(given["kernel_size"])
    return kernel, _pair(given.get("stride") or kernel), padding


def _is(value: Any, usual: Any) -> bool:  # noqa: ANN401  # an option's value, of several types
    return bool(_pair(value) == usual if isinstance(usual, tuple) else value == usual)


def _pair(value: Any) -> tuple[Any, ...]:  # noqa: ANN401  # a number, or one for each axis
    return tuple(value) if isinstance(value, tuple | list) else (value, value)
