"""What each operation of a traced network means to a spiking one."""

import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from converters.arithmetic import ARITHMETIC, arithmetic_kind
from converters.kinds import Kind

__all__ = [
    "REARRANGING",
    "SUPPORTED",
    "SYNAPSES",
    "Convolution",
    "cap",
    "classify",
    "describe",
    "is_convolution",
    "is_identity",
    "is_in_place",
    "is_linear",
    "is_normalization",
    "is_size",
    "squeezed",
]

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
SYNAPSES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
SUPPORTED = (
    "Conv1d/2d/3d and Linear (zero padding, any stride, dilation, groups), BatchNorm, ReLU, ReLU6, "
    "Max/Avg/AdaptiveAvg pooling, Flatten/view/reshape and other rearrangements, zero padding, "
    "enlarging, Dropout, Identity, sums and concatenations of branches, numbers that multiply a "
    "layer's output or activations, a mean/std normalisation in front of the first layer"
)


def squeezed(values: torch.Tensor) -> torch.Tensor:
    """Of (B, ...) without axes of size 1, but B: `squeeze` when images are shown one at a time."""
    return values.reshape(len(values), *(size for size in values.shape[1:] if size != 1))


_IDENTITIES = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
)  # fmt: skip
_PASSING = (
    *_IDENTITIES, nn.Flatten, nn.Unflatten, nn.ChannelShuffle,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
_AVERAGING = (
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
)  # fmt: skip
# Methods that give what they are given: a network of one type on one device.
_IDENTICAL = (
    "contiguous", "clone", "detach", "float", "to", "type", "cpu", "cuda",
)  # fmt: skip
_FUNCTIONS: dict[Any, Kind] = {
    **dict.fromkeys([F.relu, F.relu_, F.relu6, torch.relu, torch.relu_], Kind.RELU),
    **dict.fromkeys([torch.cat, torch.concat, torch.concatenate], Kind.JOIN),
    **dict.fromkeys(
        [
            torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, squeezed,
            torch.clone, F.channel_shuffle,
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
        ["flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", *_IDENTICAL], Kind.PASS
    ),
    "mean": Kind.AVERAGE,
}
# What moves or copies values between positions and channels.
REARRANGING = {
    torch.transpose, torch.permute, torch.chunk, torch.split, torch.tile,
    "transpose", "permute", "chunk", "split", "repeat", "tile", "expand",
}  # fmt: skip
_PARTING = ("chunk", "split")
_SIZES = ("size", "dim", "numel", "is_floating_point")
_QUALITIES = ("shape", "ndim", "device", "dtype", "is_cuda")
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
    return f"{node.name} ({_name(node) or '?'}{_whereabouts(node)})"


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
    if all(kinds[below] is Kind.CONSTANT for below in node.all_input_nodes) or is_size(node):
        return Kind.CONSTANT
    if node.target in ("type_as", "expand_as") and kinds[node.all_input_nodes[0]] is Kind.CONSTANT:
        return Kind.CONSTANT  # made like the images, whose values do not matter
    if node.op == "call_module":
        kind = _module_kind(network.get_submodule(str(node.target)))
    elif node.target in ARITHMETIC:
        return arithmetic_kind(node, kinds)
    elif node.target in REARRANGING:
        kind = Kind.PASS if _rearranges(node) else Kind.UNSUPPORTED
    elif node.op == "call_method":
        kind = _METHODS.get(str(node.target), Kind.UNSUPPORTED)
    elif _always_drops(node) or _divides_otherwise(node):
        return Kind.UNSUPPORTED
    elif _is_slicing(node) or _pads_with_zeros(node):  # the shortcuts of He et al.'s option A
        kind = Kind.PASS
    elif node.target is F.interpolate:
        kind = _resizing_kind(node.args[3] if len(node.args) > 3 else node.kwargs.get("mode"))
    else:
        kind = _FUNCTIONS.get(node.target, Kind.UNSUPPORTED)
    if kind is Kind.JOIN and (
        any(kinds[below] is Kind.CONSTANT for below in node.all_input_nodes)
        or isinstance((*node.args, *node.kwargs.values())[0], fx.Node)  # parts without their names
    ):
        return Kind.UNSUPPORTED
    if kind is Kind.PASS and _casts_to_whole(node):
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
        divisor = getattr(module, "divisor_override", None)
        return Kind.AVERAGE if divisor is None else Kind.UNSUPPORTED  # a sum is no share
    if type(module) is nn.Upsample:
        return _resizing_kind(module.mode)
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


def is_size(node: fx.Node) -> bool:
    """Whether this asks how large or of what kind a tensor is, and not what is in it."""
    if node.op == "call_method":
        return node.target in _SIZES
    return node.op == "call_function" and (
        (node.target is getattr and node.args[1] in _QUALITIES) or node.target is torch._assert
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
    return node.target in (*_DROPOUTS, *_IDENTICAL, torch.clone)


def _rearranges(node: fx.Node) -> bool:
    """Whether this leaves every value in its image."""
    name, given = _name(node), node.args[1:]
    if name in _PARTING:
        axis = node.kwargs.get("dim", given[1] if len(given) > 1 else 0)
        return axis in (1, 2, 3, 4, -1)
    if node.kwargs:
        return False
    if name == "transpose":
        return all(axis in (1, 2, 3, 4, -1, -2) for axis in given)
    sizes: Any = given[0] if given and isinstance(given[0], tuple | list) else given
    first = {"permute": 0, "repeat": 1, "tile": 1}.get(name)
    return len(sizes) > 0 and (first is None or sizes[0] == first)


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _casts_to_whole(node: fx.Node) -> bool:
    """Whether this casts to a type of whole numbers, which spikes would not show."""
    if node.target not in ("to", "type"):
        return False
    kinds = [getattr(each, "dtype", each) for each in (*node.args[1:], *node.kwargs.values())]
    named = [each for each in kinds if isinstance(each, str) and "Tensor" in each]
    return any(isinstance(each, torch.dtype) and not each.is_floating_point for each in kinds) or (
        any(not name.endswith(("FloatTensor", "DoubleTensor", "HalfTensor")) for name in named)
    )


def _resizing_kind(mode: object) -> Kind:
    """Of an interpolation between neighbours: a cubic one leaves the range of its values."""
    return Kind.UNSUPPORTED if mode == "bicubic" else Kind.AVERAGE


def _is_slicing(node: fx.Node) -> bool:
    """Whether this takes every so many channels or positions of all images."""
    if node.op != "call_function" or node.target is not operator.getitem:
        return False
    whole = node.args[0]
    if isinstance(whole, fx.Node) and whole.op != "call_module" and _name(whole) in _PARTING:
        return isinstance(node.args[1], int)
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


def _divides_otherwise(node: fx.Node) -> bool:
    """Whether an average pool is given what to divide by: what it gives is then no share."""
    if node.target not in (F.avg_pool2d, F.avg_pool3d):
        return False
    given = node.kwargs.get("divisor_override", node.args[6] if len(node.args) > 6 else None)
    return given is not None


def _always_drops(node: fx.Node) -> bool:
    """`F.dropout(x)` without `training=self.training` drops in eval mode too."""
    if node.target not in _DROPOUTS:
        return False
    training = node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True)
    return bool(training)
