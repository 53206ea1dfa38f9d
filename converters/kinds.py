"""The part that an operation of a traced network plays once its input is spikes."""

from collections.abc import Mapping
from enum import Enum, auto

from torch import fx

__all__ = ["Kind", "operands"]


class Kind(Enum):
    """The part an operation plays once its input is spikes."""

    INPUT = auto()  # the images
    CONSTANT = auto()  # depends on no image: a number, a buffer, a size
    AFFINE = auto()  # images and constants in arithmetic; a BatchNorm or factor on activations
    SYNAPSE = auto()  # weights: pre spikes to current
    RELU = auto()  # becomes neurons
    PASS = auto()  # commutes with ReLU, spikes stay spikes: reshape, max-pool, identity
    AVERAGE = auto()  # spikes become shares of spikes, does not commute with ReLU
    JOIN = auto()  # puts branches beside each other, commutes with ReLU
    SUM = auto()  # adds branches: neurons stand behind it
    OUTPUT = auto()
    UNSUPPORTED = auto()


def operands(node: fx.Node, kinds: Mapping[fx.Node, Kind]) -> list[fx.Node]:
    """The arguments that depend on the images; one twice for `x + x`."""
    values = (*node.args, *node.kwargs.values())
    return [v for v in values if isinstance(v, fx.Node) and kinds[v] is not Kind.CONSTANT]
