"""The network's own graph, as torch.fx reads it from its forward."""

import operator
import os
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from converters.errors import ConversionError
from converters.operations import is_normalization, squeezed
from converters.sizes import SizedTracer, depends_on_values

__all__ = ["network_of", "trace"]


_ADDING = (operator.add, torch.add)
_IN_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add, "add_": "add",
    operator.imul: operator.mul, "mul_": "mul", operator.itruediv: operator.truediv, "div_": "div",
}  # fmt: skip


class _Tracer(SizedTracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_normalization(m) or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(
        self,
        root_fn: Callable[..., Any],
        is_module: bool,
        concrete_args: Any = None,  # noqa: ANN401  # fx's own
    ) -> tuple[Callable[..., Any], list[Any]]:
        """The images alone are traced; other arguments of `forward` keep their defaults."""

        def of_images(network: nn.Module, images: Any) -> Any:  # noqa: ANN401  # a proxy
            return root_fn(network, images)

        found: tuple[Callable[..., Any], list[Any]] = super().create_args_for_root(
            of_images, is_module, concrete_args
        )
        return found


def trace(model: nn.Module, images: Tensor | None = None) -> fx.GraphModule:
    """The network's own graph, sharing its parameters.

    Args:
        model: in eval mode.
        images: (N, ...), some that it takes, whose sizes its forward may branch and loop on.

    Raises:
        ConversionError: if torch.fx cannot follow the network's forward.
    """
    tracer = _Tracer(images)
    try:
        graph = tracer.trace(model)
    except Exception as error:  # whatever the network's own forward raises when handed a proxy
        raise ConversionError(
            f"{type(model).__name__} cannot be traced by torch.fx{_line(error)}: {error}."
            " Its forward must not branch or loop on values of tensors, or hand them to other code "
            "than torch's. Ways out: a class derived from it whose forward does without, which has "
            "the same keys; one that decides the branch and calls super().forward; or a graph that "
            "you traced yourself: torch.fx.symbolic_trace(model, concrete_args={...})"
        ) from error
    for node in graph.nodes:
        if node.op not in ("call_function", "call_method"):
            continue
        # What it changes in place may be the caller's images, or spikes that others look at.
        if node.users and node.target in _IN_PLACE:
            node.target = _IN_PLACE[node.target]
        if node.target in _ADDING and 0 in node.args[:2]:  # where Python's `sum` begins
            node.replace_all_uses_with(next(arg for arg in node.args if isinstance(arg, fx.Node)))
            graph.erase_node(node)
        elif node.target in ("add", torch.add) and node.kwargs.keys() == {"alpha"}:
            with graph.inserting_before(node):
                weighted = graph.create_node(
                    "call_function", operator.mul, (node.args[1], node.kwargs["alpha"]),
                    name=f"{node.name}_alpha",
                )  # fmt: skip
            node.args, node.kwargs = (node.args[0], weighted), {}
        elif node.target == "type_as" and depends_on_values(node.args[0]):
            node.replace_all_uses_with(node.args[0])  # of the one type that the network has
            graph.erase_node(node)
        elif node.target in ("squeeze", torch.squeeze) and len(node.args) == 1 and not node.kwargs:
            node.op, node.target = "call_function", squeezed
    vars(tracer).clear()  # it holds the network, and functions of its own hold it
    return network_of(model, graph)


def network_of(root: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """A graph with the modules and weights that it names.

    In fx the graph points back at its module, and such a cycle is freed by the garbage collector
    alone, at some later time. It is broken here: what a conversion copied is freed with it.
    """
    network = fx.GraphModule(root, graph)
    network.graph.owning_module = None
    return network


def _line(error: Exception) -> str:
    """Where in the user's code tracing ended: the last line outside of torch and this package."""
    others = tuple(os.path.dirname(file) + os.sep for file in (torch.__file__, __file__))
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(others)]
    return f" at {own[-1].filename}, line {own[-1].lineno} ({own[-1].line})" if own else ""
