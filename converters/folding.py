"""What multiplies a layer's output is folded into it: BatchNorm in eval mode, and numbers."""

from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from converters.operations import Kind, classify, factor_on, is_identity, operands

__all__ = ["fold_batch_norms", "per_channel"]


@torch.no_grad()
def fold_batch_norms(network: fx.GraphModule) -> dict[str, Tensor]:
    """Folds every BatchNorm that stands straight behind a convolution or linear layer into it.

    `W' = W * s` and `b' = (b - mean) * s + beta` with `s = gamma / sqrt(var + eps)`. Any other
    BatchNorm stays in the graph: a normalisation of what spikes stand for, or to be refused. A
    number that the output is multiplied by is folded likewise, `s` being that number, or gamma
    and beta being multiplied by it.

    Args:
        network: the traced copy of a CNN, in eval mode; its weights and its graph are changed.

    Returns:
        s of each layer with something folded into it, (out,), by the layer's name.
    """
    folded = _fold_factors(network)
    kinds = classify(network)
    called = [str(node.target) for node in network.graph.nodes if node.op == "call_module"]
    for node in list(network.graph.nodes):
        norm = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_var is None:
            continue
        below = node.all_input_nodes[0]
        alone = kinds[below] is Kind.SYNAPSE and len(below.users) == 1
        if alone and called.count(str(below.target)) == 1 and str(below.target) not in folded:
            layer = network.get_submodule(str(below.target))
            weight: Tensor = layer.weight  # type: ignore[assignment]  # conv or linear
            if norm.num_features != len(weight):  # of positions, not of channels
                continue
            folded[str(below.target)] = _fold(layer, norm)
            node.replace_all_uses_with(below)
            network.graph.erase_node(node)
    network.recompile()
    return folded


def _fold_factors(network: fx.GraphModule) -> dict[str, Tensor]:
    """Folds numbers, as those of residual branches, `x + 0.1 * layer(x)`."""
    kinds = classify(network)
    folded: dict[str, Tensor] = {}
    called = [node.target for node in network.graph.nodes if node.op == "call_module"]
    for node in list(network.graph.nodes):
        factor = factor_on(network, node)
        below = _layer_below(network, node, kinds)
        if factor is None or below is None or called.count(below.target) != 1:
            continue
        layer, name = network.get_submodule(str(below.target)), str(below.target)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_var is not None:
            scale = torch.full_like(layer.running_var, factor)
            layer.weight = nn.Parameter(scale if layer.weight is None else layer.weight * scale)
            layer.bias = None if layer.bias is None else nn.Parameter(layer.bias * scale)
        elif kinds[below] is Kind.SYNAPSE and name not in folded:
            weight: Tensor = layer.weight  # type: ignore[assignment]  # conv or linear
            folded[name] = scale = weight.new_full((len(weight),), factor)
            weight.mul_(per_channel(scale, weight))
            if layer.bias is not None:
                layer.bias.mul_(scale)  # type: ignore[operator]  # a tensor, torch types either
        else:
            continue
        node.replace_all_uses_with(operands(node, kinds)[0])
        network.graph.erase_node(node)
    return folded


def _layer_below(
    network: fx.GraphModule, node: fx.Node, kinds: Mapping[fx.Node, Kind]
) -> fx.Node | None:
    """The layer whose output an operation works on, if nothing else does; dropout is nothing."""
    found = operands(node, kinds)
    while len(found) == 1 and len(found[0].users) == 1 and is_identity(network, found[0]):
        found = operands(found[0], kinds)
    alone = len(found) == 1 and len(found[0].users) == 1
    return found[0] if alone and found[0].op == "call_module" else None


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """A number for each output channel, (out,), broadcastable to weights (out, ...)."""
    return values.view(-1, *(1,) * (like.dim() - 1))


def _fold(layer: nn.Module, norm: nn.modules.batchnorm._BatchNorm) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    mean = norm.running_mean
    # mypy: torch types what a module holds as a tensor or a module.
    offset = (mean.neg() if layer.bias is None else layer.bias - mean) * scale  # type: ignore[operator]
    if norm.bias is not None:
        offset = offset + norm.bias
    weight: Tensor = layer.weight  # type: ignore[assignment]  # conv or linear
    weight.mul_(per_channel(scale, weight))
    layer.register_parameter("bias", nn.Parameter(offset))
    return scale
