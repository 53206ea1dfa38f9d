"""BatchNorm in eval mode is a factor and an offset per channel: folded into the layer below."""

import torch
from torch import Tensor, fx, nn

from converters.operations import Kind, classify

__all__ = ["fold_batch_norms", "per_channel"]


@torch.no_grad()
def fold_batch_norms(network: fx.GraphModule) -> dict[str, Tensor]:
    """Folds every BatchNorm that stands straight behind a convolution or linear layer into it.

    `W' = W * s` and `b' = (b - mean) * s + beta` with `s = gamma / sqrt(var + eps)`. Any other
    BatchNorm stays in the graph: a normalisation of what spikes stand for, or to be refused.

    Args:
        network: the traced copy of a CNN, in eval mode; its weights and its graph are changed.

    Returns:
        s of each layer with something folded into it, (out,), by the layer's name.
    """
    kinds = classify(network)
    folded: dict[str, Tensor] = {}
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
