"""What each operation of a traced network means to a spiking one."""

import math
import operator
from collections.abc import Mapping
from enum import Enum, auto
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

__all__ = [
    "SUPPORTED",
    "SYNAPSES",
    "Kind",
    "cap",
    "classify",
    "describe",
    "factor_on",
    "is_convolution",
    "is_identity",
    "is_in_place",
    "is_linear",
    "is_normalization",
    "operands",
    "squeezed",
]

SYNAPSES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
SUPPORTED = (
    "Conv1d/2d/3d and Linear (zero padding, any stride, dilation, groups), BatchNorm, ReLU, ReLU6, "
    "Max/Avg/AdaptiveAvg pooling, Flatten/view/reshape, Dropout, Identity, sums and concatenations "
    "of branches, numbers that multiply a layer's output or activations, a mean/std normalisation "
    "in front of the first layer"
)


def squeezed(values: torch.Tensor) -> torch.Tensor:
    """Of (B, ...) without axes of size 1, but B: `squeeze` when images are shown one at a time."""
    return values.reshape(len(values), *(size for size in values.shape[1:] if size != 1))


class Kind(Enum):
    """The part an operation plays once its input is spikes."""

    INPUT = auto()  # the images
    CONSTANT = auto()  # depends on no image: a number, a buffer, a size
    AFFINE = auto()  # of the images by constants; a BatchNorm of activations, a number on them
    SYNAPSE = auto()  # weights: pre spikes to current
    RELU = auto()  # becomes neurons
    PASS = auto()  # commutes with ReLU, spikes stay spikes: reshape, max-pool, identity
    AVERAGE = auto()  # spikes become shares of spikes, does not commute with ReLU
    JOIN = auto()  # puts branches beside each other, commutes with ReLU
    SUM = auto()  # adds branches: neurons stand behind it
    OUTPUT = auto()
    UNSUPPORTED = auto()


_IDENTITIES = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
)  # fmt: skip
_PASSING = (
    *_IDENTITIES, nn.Flatten, nn.Unflatten,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
_AVERAGING = (
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
)  # fmt: skip
_FUNCTIONS: dict[Any, Kind] = {
    **dict.fromkeys([F.relu, F.relu_, F.relu6, torch.relu, torch.relu_], Kind.RELU),
    **dict.fromkeys([torch.cat, torch.concat, torch.concatenate], Kind.JOIN),
    **dict.fromkeys(
        [
            torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, squeezed,
            F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout,
            F.max_pool1d, F.max_pool2d, F.max_pool3d,
            torch.max_pool1d, torch.max_pool2d, torch.max_pool3d,
            F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d,
        ],
        Kind.PASS,
    ),
    **dict.fromkeys(
        [
            F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, torch.mean,
            F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
        ],
        Kind.AVERAGE,
    ),
}  # fmt: skip
_METHODS: dict[str, Kind] = {
    **dict.fromkeys(["relu", "relu_"], Kind.RELU),
    **dict.fromkeys(
        ["flatten", "view", "reshape", "contiguous", "squeeze", "unsqueeze"], Kind.PASS
    ),
    "mean": Kind.AVERAGE,
}
_SIZES = ("size", "dim")
_ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
_PRODUCTS = {operator.mul, torch.mul, torch.multiply, "mul", "multiply"}
_DIVISIONS = {
    operator.truediv, torch.div, torch.divide, torch.true_divide, "div", "divide", "true_divide",
}  # fmt: skip
_NEGATIONS = {operator.neg, torch.neg, torch.negative, "neg", "negative"}
_SUBTRACTIONS = {operator.sub, torch.sub, torch.subtract, "sub", "subtract"}
_ARITHMETIC = _ADDITIONS | _SUBTRACTIONS | _PRODUCTS | _DIVISIONS | _NEGATIONS
_CONVOLUTIONS = {F.conv1d, F.conv2d, F.conv3d,
                 F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}  # fmt: skip
_DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout}


def classify(network: fx.GraphModule) -> Mapping[fx.Node, Kind]:
    """The kind of every node of a traced network, in graph order."""
    kinds: dict[fx.Node, Kind] = {}
    for node in network.graph.nodes:
        kinds[node] = _kind(network, node, kinds)
    return kinds


def describe(network: fx.GraphModule, node: fx.Node) -> str:
    """What a user would call this operation: the layer's name and class, or the function."""
    if node.op == "call_module":
        return f"{node.target} ({type(network.get_submodule(str(node.target))).__name__})"
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
    return f"{node.name} ({name}{_whereabouts(node)})"


def _whereabouts(node: fx.Node) -> str:
    """The module whose forward holds the operation, if it is not the network itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack and isinstance(stack[-1], tuple) else ""
    return f" in {path}" if path else ""


def _kind(network: fx.GraphModule, node: fx.Node, kinds: Mapping[fx.Node, Kind]) -> Kind:
    if node.op == "placeholder":
        return Kind.INPUT
    if node.op == "output":
        return Kind.OUTPUT
    if all(kinds[below] is Kind.CONSTANT for below in node.all_input_nodes) or _is_size(node):
        return Kind.CONSTANT
    if node.op == "call_module":
        kind = _module_kind(network.get_submodule(str(node.target)))
    elif node.target in _ARITHMETIC:
        return _arithmetic_kind(node, kinds)
    elif node.op == "call_method":
        kind = _METHODS.get(str(node.target), Kind.UNSUPPORTED)
    elif node.target in _DROPOUTS and _always_drops(node):
        return Kind.UNSUPPORTED
    elif _is_slicing(node) or _pads_with_zeros(node):  # the shortcuts of He et al.'s option A
        kind = Kind.PASS
    else:
        kind = _FUNCTIONS.get(node.target, Kind.UNSUPPORTED)
    if kind is Kind.JOIN and any(kinds[below] is Kind.CONSTANT for below in node.all_input_nodes):
        return Kind.UNSUPPORTED
    return kind


def _module_kind(module: nn.Module) -> Kind:
    # The exact class: a subclass may compute something else.
    if type(module) in SYNAPSES:
        padding_mode = getattr(module, "padding_mode", "zeros")
        return Kind.SYNAPSE if padding_mode == "zeros" else Kind.UNSUPPORTED
    if type(module) in (nn.ReLU, nn.ReLU6):
        return Kind.RELU
    if type(module) in _PASSING:
        return Kind.PASS
    if type(module) in _AVERAGING:
        return Kind.AVERAGE
    if is_normalization(module):
        return Kind.AFFINE
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
        return Kind.AFFINE  # in eval mode; one straight behind a layer is folded before
    return Kind.UNSUPPORTED


def is_normalization(module: nn.Module) -> bool:
    """Whether this is torchvision's `Normalize`, recognised without importing torchvision."""
    cls = type(module)
    return cls.__name__ == "Normalize" and cls.__module__.startswith("torchvision.transforms")


def is_convolution(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether this is a convolution of any kind, transposed and functional ones too."""
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        return isinstance(module, nn.modules.conv._ConvNd)
    return node.op == "call_function" and node.target in _CONVOLUTIONS


def is_linear(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether this multiplies features by weights: of any linear kind, recurrent ones too."""
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        return isinstance(module, nn.Linear | nn.Bilinear | nn.RNNBase | nn.MultiheadAttention)
    return node.op == "call_function" and node.target in (F.linear, F.bilinear)


def _is_size(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _SIZES
    return node.op == "call_function" and (
        (node.target is getattr and node.args[1] in ("shape", "ndim"))
        or node.target is torch._assert
    )


def is_in_place(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether this changes what it is given."""
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__")
    function = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
    in_place = node.kwargs.get("inplace") or node.kwargs.get("out") is not None
    return bool(in_place) or (function.endswith("_") and not function.endswith("__"))


def cap(network: fx.GraphModule, relu: fx.Node) -> float:
    """The largest value that a ReLU lets through: 6 for ReLU6."""
    module = network.get_submodule(str(relu.target)) if relu.op == "call_module" else None
    return 6.0 if type(module) is nn.ReLU6 or relu.target is F.relu6 else math.inf


def is_identity(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether this gives back what it gets, in eval mode."""
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))) in _IDENTITIES
    return node.target in (*_DROPOUTS, "contiguous")


def factor_on(network: fx.GraphModule, node: fx.Node) -> float | None:
    """The number that this multiplies its only other operand by; None if it does anything else."""
    if node.op == "call_module" or node.kwargs:
        return None
    if node.target in _NEGATIONS:
        return -1.0
    if node.target not in _PRODUCTS | _DIVISIONS or len(node.args) != 2:
        return None
    divides = node.target in _DIVISIONS
    numbers = [_number(network, each) for each in node.args]
    given = [each for each in numbers if each is not None]
    if len(given) != 1 or (divides and (numbers[1] is None or numbers[1] == 0)):
        return None
    return 1 / given[0] if divides else given[0]


def _number(network: fx.GraphModule, value: object) -> float | None:
    """A number, or a tensor of the network's that holds a single one."""
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None
    found = attrgetter(str(value.target))(network)
    return float(found.detach()) if isinstance(found, torch.Tensor) and found.numel() == 1 else None


def operands(node: fx.Node, kinds: Mapping[fx.Node, Kind]) -> list[fx.Node]:
    """The arguments that depend on the images; one twice for `x + x`."""
    values = (*node.args, *node.kwargs.values())
    return [v for v in values if isinstance(v, fx.Node) and kinds[v] is not Kind.CONSTANT]


def _arithmetic_kind(node: fx.Node, kinds: Mapping[fx.Node, Kind]) -> Kind:
    varying = operands(node, kinds)
    if len(varying) == 1 and kinds[varying[0]] in (Kind.INPUT, Kind.AFFINE):
        divides_by_image = node.target in _DIVISIONS and node.args[:1] != (varying[0],)
        return Kind.UNSUPPORTED if divides_by_image else Kind.AFFINE
    if len(varying) == 1 and _is_rectified(varying[0], kinds) and _multiplies(node, varying[0]):
        return Kind.AFFINE
    weighted = "alpha" in node.kwargs or "out" in node.kwargs  # torch.add(a, b, alpha=2)
    of_images = all(_is_of_images(below, kinds) for below in varying)
    if node.target in _ADDITIONS and len(varying) == 2 and not of_images and not weighted:
        return Kind.SUM
    return Kind.UNSUPPORTED


def _multiplies(node: fx.Node, values: fx.Node) -> bool:
    """Whether this multiplies these values by numbers that are there, or divides them by such."""
    if node.kwargs or any(each.op != "get_attr" for each in node.all_input_nodes if each != values):
        return False  # by a size, which may be the batch's
    divides = node.target in _DIVISIONS and node.args[:1] == (values,)
    return divides or node.target in _PRODUCTS | _NEGATIONS


def _is_rectified(node: fx.Node, kinds: Mapping[fx.Node, Kind]) -> bool:
    """Whether all of these values come from ReLUs, so that spikes stand for them."""
    if kinds[node] in (Kind.PASS, Kind.AVERAGE, Kind.AFFINE, Kind.JOIN):
        below = [each for each in node.all_input_nodes if kinds[each] is not Kind.CONSTANT]
        return all(_is_rectified(each, kinds) for each in below)
    return kinds[node] is Kind.RELU


def _is_of_images(node: fx.Node, kinds: Mapping[fx.Node, Kind]) -> bool:
    """Whether this is the images, normalised or not."""
    while kinds[node] is Kind.AFFINE:
        (node,) = operands(node, kinds)
    return kinds[node] is Kind.INPUT


def _is_slicing(node: fx.Node) -> bool:
    """Whether this takes every so many channels or positions of all images."""
    if node.op != "call_function" or node.target is not operator.getitem:
        return False
    index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    return (
        index[:1] in ((slice(None),), (...,))
        and all(isinstance(each, slice) or each is ... for each in index)
        and len(node.all_input_nodes) == 1
    )


def _pads_with_zeros(node: fx.Node) -> bool:
    if node.op != "call_function" or node.target is not F.pad or len(node.all_input_nodes) != 1:
        return False
    _, _, *rest = node.args
    mode = rest[0] if rest else node.kwargs.get("mode", "constant")
    value = rest[1] if len(rest) > 1 else node.kwargs.get("value")
    return bool(mode == "constant" and value in (None, 0))


def _always_drops(node: fx.Node) -> bool:
    """`F.dropout(x)` without `training=self.training` drops in eval mode too."""
    training = node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True)
    return bool(training)
