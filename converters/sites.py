"""Where in a traced network the spiking layers will stand."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import fx, nn

from converters.errors import ConversionError
from converters.operations import (
    SUPPORTED,
    SYNAPSES,
    Kind,
    classify,
    describe,
    is_convolution,
    is_normalization,
)

__all__ = ["Layers", "Site", "find_sites", "trace"]

Layers = Literal["conv", "all"] | Sequence[str]
"""The layers to put to sleep: every convolution, every synaptic layer, or these names."""


@dataclass(frozen=True)
class Site:
    """One synaptic layer and the place of its activation.

    Attributes:
        name: qualified name of the layer in the CNN.
        synapse: the node that calls it.
        activation: the node whose output the neurons replace: its ReLU, or the layer itself where
            it is the last one.
        below: name of the layer whose activation feeds it; None for the images.
        sleeps: whether its weights change in sleep. A layer in front of a sleeping one spikes too.
    """

    name: str
    synapse: fx.Node
    activation: fx.Node
    below: str | None
    sleeps: bool


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_normalization(m) or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> fx.GraphModule:
    """The network's own graph, sharing its parameters.

    Raises:
        ConversionError: if torch.fx cannot follow the network's forward.
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(model)
    except Exception as error:  # whatever the network's own forward raises when handed a proxy
        raise ConversionError(
            f"{type(model).__name__} cannot be traced by torch.fx: {error}. Its forward must not "
            "branch or loop on values of tensors; an nn.Sequential of its layers always works"
        ) from error
    return fx.GraphModule(tracer.root, graph)


def find_sites(network: fx.GraphModule, layers: Layers) -> list[Site]:
    """The spiking layers, in graph order: the sleeping ones and those in front of them.

    Raises:
        ConversionError: if a name is unknown, or with the complete list of what stands in the way
            of simulating these layers.
    """
    kinds = classify(network)
    synapses = {str(n.target): n for n in network.graph.nodes if kinds[n] is Kind.SYNAPSE}
    sleeping = _select(network, synapses, layers)
    needed = _ancestors([synapses[name] for name in sleeping])
    problems: dict[fx.Node, str] = {}
    sites: list[Site] = []
    for name, synapse in synapses.items():
        if synapse in needed:
            activation = _find_activation(network, synapse, kinds, problems)
            below = _find_below(synapse, kinds)
            sites.append(Site(name, synapse, activation, below, name in sleeping))
    needed |= _ancestors([site.activation for site in sites])
    for node in network.graph.nodes:
        # A convolution that cannot sleep must not be passed over when all are to sleep.
        asked = layers == "conv" and is_convolution(network, node)
        if kinds[node] is Kind.UNSUPPORTED and (node in needed or asked):
            problems.setdefault(node, _refusal(network, node))
    problems |= _shared_weights(network, sites)
    if problems:
        listed = "\n  ".join(problems.values())
        places = "1 place" if len(problems) == 1 else f"{len(problems)} places"
        raise ConversionError(
            f"cannot convert this network, in {places}:\n  {listed}\nsupported: {SUPPORTED}"
        )
    return sites


def _select(
    network: fx.GraphModule, synapses: dict[str, fx.Node], layers: Layers
) -> frozenset[str]:
    if isinstance(layers, str):
        if layers not in ("conv", "all"):
            raise ConversionError(f"layers={layers!r}: use 'conv', 'all', or a list of layer names")
        wanted = SYNAPSES[:3] if layers == "conv" else SYNAPSES
        names = [name for name in synapses if type(network.get_submodule(name)) in wanted]
        if not names:
            what = "convolution" if layers == "conv" else "Conv or Linear layer"
            there = f"; there are: {', '.join(synapses)}" if synapses else ""
            raise ConversionError(f"the network has no {what} that could sleep{there}")
        return frozenset(names)
    unknown = [name for name in layers if name not in synapses]
    if unknown or not layers:
        near = difflib.get_close_matches(unknown[0], synapses, 1) if unknown else []
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConversionError(
            f"no layer to sleep is called {', '.join(map(repr, unknown)) or 'nothing'}{hint}; "
            f"there are: {', '.join(synapses)}"
        )
    return frozenset(layers)


def _ancestors(nodes: list[fx.Node]) -> set[fx.Node]:
    """The nodes themselves and all they depend on."""
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def _find_activation(
    network: fx.GraphModule,
    synapse: fx.Node,
    kinds: Mapping[fx.Node, Kind],
    problems: dict[fx.Node, str],
) -> fx.Node:
    """The ReLU behind a layer, max-pooling in between allowed; the layer itself if it is last."""
    node = synapse
    while True:
        users = [user for user in node.users if kinds[user] is not Kind.CONSTANT]
        if len(users) == 1 and kinds[users[0]] is Kind.RELU:
            return users[0]
        if len(users) == 1 and kinds[users[0]] is Kind.PASS:
            node = users[0]
            continue
        if any(kinds[below] in (Kind.SYNAPSE, Kind.RELU) for below in _descendants(synapse)):
            if len(users) == 1 and kinds[users[0]] is Kind.UNSUPPORTED:
                problems.setdefault(users[0], _refusal(network, users[0]))
            else:
                problems[synapse] = (
                    f"{describe(network, synapse)}: a ReLU must stand straight behind it and be "
                    f"the only one to use its output; there is "
                    f"{' and '.join(describe(network, user) for user in users)}"
                )
        return synapse


def _descendants(node: fx.Node) -> Iterator[fx.Node]:
    seen: set[fx.Node] = set()
    waiting = list(node.users)
    while waiting:
        user = waiting.pop()
        if user not in seen:
            seen.add(user)
            yield user
            waiting.extend(user.users)


def _find_below(synapse: fx.Node, kinds: Mapping[fx.Node, Kind]) -> str | None:
    """The layer whose spikes arrive here. One branch only: joining branches are unsupported."""
    node = synapse
    while True:
        inputs = [below for below in node.all_input_nodes if kinds[below] is not Kind.CONSTANT]
        if not inputs or kinds[inputs[0]] is Kind.INPUT:
            return None
        node = inputs[0]
        if kinds[node] is Kind.SYNAPSE:
            return str(node.target)


def _refusal(network: fx.GraphModule, node: fx.Node) -> str:
    what = describe(network, node)
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return f"{what}: fold it into its layer first (torch.nn.utils.fuse_conv_bn_eval)"
    if module is not None and getattr(module, "padding_mode", "zeros") != "zeros":
        return f"{what}: padding_mode={module.padding_mode!r}, only zero padding is supported"
    if len([below for below in node.all_input_nodes if below.op != "get_attr"]) > 1:
        return f"{what}: joins branches"
    if getattr(node.target, "__name__", "").startswith("dropout"):
        return f"{what}: active in eval mode too; pass training=self.training"
    return f"{what}: not supported"


def _shared_weights(network: fx.GraphModule, sites: list[Site]) -> dict[fx.Node, str]:
    """Layers that run twice in a forward, or that hold the same tensor: one change, two places."""
    owners: dict[int, str] = {}
    problems: dict[fx.Node, str] = {}
    calls = [str(node.target) for node in network.graph.nodes if node.op == "call_module"]
    for site in sites:
        weight = network.get_submodule(site.name).weight
        if calls.count(site.name) > 1:
            problems[site.synapse] = (
                f"{describe(network, site.synapse)}: used {calls.count(site.name)} times in one "
                "forward; give each use a layer of its own"
            )
        owner = owners.setdefault(id(weight), site.name)
        if owner != site.name:
            problems[site.synapse] = (
                f"{describe(network, site.synapse)}: shares its weights with {owner}"
            )
    return problems
