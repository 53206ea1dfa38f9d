"""Why an operation or a layer cannot be simulated, in words that say what would be right."""

from collections.abc import Mapping

from torch import fx, nn
from torch.nn.utils.parametrize import is_parametrized

from converters.arithmetic import factor_on
from converters.operations import SYNAPSES, describe, is_convolution, is_linear

__all__ = ["refusal", "shared_weights", "strange_layer"]


def refusal(network: fx.GraphModule, node: fx.Node) -> str:
    """Why an operation is not supported."""
    what = describe(network, node)
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, nn.modules.batchnorm._BatchNorm):  # one with statistics is supported
        return f"{what}: has no running statistics, so that an image depends on its batch"
    if module is not None and is_parametrized(module):
        return (
            f"{what}: its weights are computed from others; make them plain with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    if module is not None and getattr(module, "padding_mode", "zeros") != "zeros":
        return f"{what}: padding_mode={module.padding_mode!r}, only zero padding is supported"
    called = node.op == "call_function" and (
        is_convolution(network, node) or is_linear(network, node)
    )
    if isinstance(module, SYNAPSES) or called:
        return (
            f"{what}: a function, or a class derived from torch.nn's, which may compute something "
            "else; right would be torch.nn's own Conv1d, Conv2d, Conv3d or Linear"
        )
    arguments = [each for each in network.graph.nodes if each.op == "placeholder"]
    if given := set(node.all_input_nodes).intersection(arguments[1:]):
        names = ", ".join(str(each.target) for each in arguments if each in given)
        return (
            f"{what}: takes {names}, an argument of forward beside the images; make it a constant"
        )
    if factor_on(network, node) is not None:
        return (
            f"{what}: a number must be on a layer's output or on what is behind a ReLU; multiply "
            "the branches of a sum each"
        )
    if len([below for below in node.all_input_nodes if below.op != "get_attr"]) > 1:
        return f"{what}: joins branches by other means than a sum or a concatenation"
    if getattr(node.target, "__name__", "").startswith("dropout"):
        return f"{what}: active in eval mode too; pass training=self.training"
    return f"{what}: not supported"


def strange_layer(network: fx.GraphModule, node: fx.Node) -> str | None:
    """Why a layer computes something else than its class says, if it is one and does."""
    if node.op != "call_module":
        return None
    layer, what = network.get_submodule(str(node.target)), describe(network, node)
    if isinstance(layer, SYNAPSES) and "weight" not in layer._parameters:
        return (
            f"{what}: its weights are computed from others; make them plain parameters "
            "(torch.nn.utils.remove_weight_norm, remove_spectral_norm or prune.remove)"
        )
    if layer._forward_hooks or layer._forward_pre_hooks:
        return f"{what}: has forward hooks, which a spiking network would not call; remove them"
    return None


def shared_weights(
    network: fx.GraphModule, synapses: Mapping[str, fx.Node], needed: set[fx.Node]
) -> dict[fx.Node, str]:
    """Layers that run twice in a forward, or that hold the same tensor: one change, two places."""
    owners: dict[int, str] = {}
    problems: dict[fx.Node, str] = {}
    for name, last in synapses.items():
        calls = [n for n in network.graph.nodes if n.op == "call_module" and n.target == name]
        if len(calls) > 1 and needed.intersection(calls):
            problems[last] = (
                f"{describe(network, last)}: used {len(calls)} times in one forward; give each "
                "use a layer of its own"
            )
        owner = owners.setdefault(id(network.get_submodule(name).weight), name)
        if owner != name and needed.intersection((last, synapses[owner])):
            problems[last] = f"{describe(network, last)}: shares its weights with {owner}"
    return problems
