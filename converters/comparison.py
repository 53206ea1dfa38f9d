"""Whether a traced graph computes what its network does."""

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, fx, nn

from converters.operations import SYNAPSES

__all__ = ["computes_alike"]


@torch.no_grad()
def computes_alike(cnn: nn.Module, graph: fx.GraphModule, images: Tensor) -> bool:
    """Whether the graph's layers and its output are those of the network, given some images.

    Layers are compared as well as the output, which may hide a difference: a softmax may have
    saturated, or the scores be held by a class of somebody's own.

    Args:
        cnn: in eval mode.
        graph: what was read from it, with the same layers.
        images: (N, ...); True if the network does not take them, which measuring them will say.
    """
    given = images.to(next(cnn.parameters(), images))
    called = {graph.get_submodule(n.target) for n in graph.graph.nodes if n.op == "call_module"}
    layers = [each for each in called if isinstance(each, SYNAPSES)]
    try:
        expected = _computed(cnn, layers, given)
    except (RuntimeError, TypeError):
        return True
    try:
        found = _computed(graph, layers, given)
    except Exception:  # whatever a graph that is not the network's may raise
        return False
    return len(expected) == len(found) and all(map(_close, expected, found))


def _computed(network: nn.Module, layers: Iterable[nn.Module], images: Tensor) -> list[Tensor]:
    """What the layers give in turn, and the output if it is a tensor."""
    found: list[Tensor] = []
    with ExitStack() as hooks, torch.random.fork_rng(devices=[]):
        for layer in layers:
            hooks.enter_context(
                layer.register_forward_hook(lambda _, __, output: found.append(_summary(output)))
            )
        torch.manual_seed(0)  # a dropout that is always active is to draw alike
        output = network(images.clone())
    return [*found, output] if isinstance(output, Tensor) else found


def _summary(output: Tensor) -> Tensor:
    """A number for each channel of each image, as a copy of all would take much memory."""
    return output.flatten(2).norm(dim=2) if output.ndim > 2 else output.clone()


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(
        one, other, rtol=1e-3, atol=1e-5, equal_nan=True
    )
