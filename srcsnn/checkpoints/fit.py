"""Whether weights fit a network, and whether they are numbers."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from srcsnn.errors import CheckpointError

__all__ = ["check_finite", "check_fit", "is_counter", "prefix_of"]


def is_counter(key: str) -> bool:
    """Whether this is BatchNorm's count of batches, which old files and other libraries lack."""
    return key.rpartition(".")[2] == "num_batches_tracked"


def check_fit(path: Path, found: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Raises one CheckpointError with everything in which keys, shapes and kinds differ.

    Counts of batches may be missing: no network in eval mode looks at them.

    Args:
        path: of the file, for the message.
        found: weights in the file.
        target: weights of the network.
    """
    both = [key for key in target if key in found]
    problems = {
        "missing (the network has them, the file does not)": [
            f"{key} {_shape(weights)}"
            for key, weights in target.items()
            if key not in found and not is_counter(key)
        ],
        "unexpected (the file has them, the network does not)": [
            f"{key} {_shape(weights)}" for key, weights in found.items() if key not in target
        ],
        "of another shape": [
            f"{key} is {_shape(found[key])} in the file, {_shape(target[key])} in the network"
            for key in both
            if found[key].shape != target[key].shape
        ],
        "of another kind": [
            f"{key} is {found[key].dtype} in the file, {target[key].dtype} in the network"
            for key in both
            if _number_kind(found[key]) != _number_kind(target[key])
        ],
    }
    if not any(problems.values()):
        return
    fitting = sum(found[key].shape == target[key].shape for key in both)
    lines = [f"{path} does not fit the network:{_advice(found, target, fitting)}"]
    for problem, keys in problems.items():
        if keys:
            lines += [f"{len(keys)} {problem}:", *(f"  {key}" for key in keys)]
    raise CheckpointError("\n".join(lines))


def prefix_of(found: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    """What every key of a file begins with beside the network's own: "model." of Lightning.

    Args:
        found: weights in the file.
        target: weights of the network.

    Returns:
        Nothing if the keys differ in more than that.
    """
    first = next(iter(target), "")
    wanted = {key for key in target if not is_counter(key)}
    for prefix in {key.removesuffix(first) for key in found if key.endswith(first)}:
        if {key for key in found if not is_counter(key)} == {prefix + key for key in wanted}:
            return prefix
    return ""


def _advice(found: Mapping[str, Tensor], target: Mapping[str, Tensor], fitting: int) -> str:
    if 2 * fitting < max(len(found), len(target)):
        return (
            f" only {fitting} of its {len(found)} tensors do, so it looks like a checkpoint of "
            "another network; is the architecture (--arch) right?"
        )
    return ""


def _shape(weights: Tensor) -> str:
    return str(tuple(weights.shape))


def _number_kind(weights: Tensor) -> tuple[bool, bool]:
    return weights.is_floating_point(), weights.is_complex()


def check_finite(weights: Mapping[str, Tensor], problem: str) -> None:
    """Raises CheckpointError, beginning with `problem`, that lists weights that are not finite."""
    bad = [
        f"{key} ({count} of {values.numel()}, {values.dtype})"
        for key, values in weights.items()
        if (count := int((~_finite(values)).sum()))
    ]
    if bad:
        raise CheckpointError(f"{problem}: NaN or infinite values in {', '.join(bad)}")


def _finite(values: Tensor) -> Tensor:
    # torch has no isfinite for the 8-bit floats
    return torch.isfinite(values.float() if values.dtype.itemsize == 1 else values)
