"""What stands straight beside a layer is folded into it: BatchNorm, numbers, padding."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from converters.arithmetic import factor_on
from converters.kinds import Kind, operands
from converters.operations import Convolution, classify, is_identity

__all__ = ["Folds", "fold", "per_channel"]


@dataclass(frozen=True)
class Folds:
    """What was folded into layers, by their names.

    Attributes:
        scales: the factor on each output of a layer, (out,).
        normed: the layers with a BatchNorm among it.
    """

    scales: Mapping[str, Tensor]
    normed: frozenset[str]


@torch.no_grad()
def fold(network: fx.GraphModule) -> Folds:
    """Folds what stands straight behind a convolution or linear layer, or behind its dropout.

    And zeros that are put around the image straight in front of a convolution, as many on either
    side: they become its own padding, where no neuron is, and not neurons that are silent.

    Of a BatchNorm `W' = W * s` and `b' = (b - mean) * s + beta` with `s = gamma / sqrt(var + eps)`;
    of a number, as in `x + 0.1 * layer(x)`, it is s itself. Any other BatchNorm stays in the graph:
    a normalisation of what spikes stand for, or to be refused.

    Args:
        network: the traced copy of a CNN, in eval mode; its weights and its graph are changed.
    """
    kinds = classify(network)
    calls = Counter(node.target for node in network.graph.nodes if node.op == "call_module")
    scales: dict[str, Tensor] = {}
    normed: set[str] = set()
    for node in list(network.graph.nodes):
        if calls[node.target] == 1 and kinds[node] is Kind.SYNAPSE:
            _pad_in_layer(network, node)
        below = _layer_below(network, node, kinds)
        if below is None or kinds[below] is not Kind.SYNAPSE or calls[below.target] > 1:
            continue
        name, layer = str(below.target), network.get_submodule(str(below.target))
        norm, factor = _norm(network, node, layer), factor_on(network, node)
        if norm is not None:
            scale, bias = _through(norm, layer)
            normed.add(name)
        elif factor is not None:
            like: Tensor = layer.weight  # type: ignore[assignment]  # conv or linear
            scale = like.new_full((len(like),), factor)
            bias = None if layer.bias is None else layer.bias * scale  # type: ignore[operator]  # as above
        else:
            continue
        # A new one, as the old may be that of another layer too.
        layer.register_parameter("bias", None if bias is None else nn.Parameter(bias))
        scales[name] = scales[name] * scale if name in scales else scale
        node.replace_all_uses_with(operands(node, kinds)[0])
        network.graph.erase_node(node)
    for name, scale in scales.items():  # once, as the way back divides by it once
        weight = network.get_parameter(f"{name}.weight")
        weight.mul_(per_channel(scale, weight))
    network.recompile()
    return Folds(scales, frozenset(normed))


def _pad_in_layer(network: fx.GraphModule, node: fx.Node) -> None:
    """Has a convolution do what a padding in front of it does, if it can."""
    layer, pad = network.get_submodule(str(node.target)), node.all_input_nodes[0]
    padded = _zeros_around(network, pad)
    if not (isinstance(layer, Convolution) and padded and len(pad.users) == 1):
        return
    axes = len(layer.kernel_size)
    ends = [*padded, *(0,) * (2 * axes - len(padded))]  # the last axis first, two for each
    before, after = ends[-2::-2], ends[::-2]
    own = (0,) * axes if layer.padding == "valid" else layer.padding
    if before != after or len(ends) > 2 * axes or min(ends) < 0 or isinstance(own, str):
        return
    layer.padding = tuple(p + q for p, q in zip(own, before, strict=True))
    pad.replace_all_uses_with(pad.all_input_nodes[0])
    network.graph.erase_node(pad)


def _zeros_around(network: fx.GraphModule, node: fx.Node) -> Sequence[int]:
    """How many an operation that pads with zeros puts in front and behind, the last axis first."""
    found: object = ()
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        if type(module) in (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d):
            found = module.padding
    elif node.target is F.pad:  # with zeros, or it would have been refused
        found = node.args[1]
    whole = isinstance(found, tuple | list) and all(isinstance(each, int) for each in found)
    return found if whole else ()  # type: ignore[return-value]  # mypy does not see through all()


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """A number for each output channel, (out,), broadcastable to weights (out, ...)."""
    return values.view(-1, *(1,) * (like.dim() - 1))


def _layer_below(
    network: fx.GraphModule, node: fx.Node, kinds: Mapping[fx.Node, Kind]
) -> fx.Node | None:
    """The layer whose output an operation works on, if nothing else does; dropout is nothing."""
    found = operands(node, kinds)
    while len(found) == 1 and len(found[0].users) == 1 and is_identity(network, found[0]):
        found = operands(found[0], kinds)
    return found[0] if len(found) == 1 and len(found[0].users) == 1 else None


def _norm(
    network: fx.GraphModule, node: fx.Node, layer: nn.Module
) -> nn.modules.batchnorm._BatchNorm | None:
    """The BatchNorm of a layer's channels, not of positions, that an operation is, if it is one."""
    norm = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_var is None:
        return None
    weight: Tensor = layer.weight  # type: ignore[assignment]  # conv or linear
    return norm if norm.num_features == len(weight) else None


def _through(norm: nn.modules.batchnorm._BatchNorm, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """The factor that a BatchNorm is, and the bias of the layer with it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    mean = norm.running_mean
    # mypy: torch types what a module holds as a tensor or a module.
    bias = (mean.neg() if layer.bias is None else layer.bias - mean) * scale  # type: ignore[operator]
    return scale, bias if norm.bias is None else bias + norm.bias
