"""Where in a traced network the spiking layers will stand, and what drives them."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import fx

from converters.activations import find_activation, varying_users
from converters.errors import ConversionError
from converters.kinds import Kind, operands
from converters.operations import (
    SUPPORTED,
    SYNAPSES,
    cap,
    classify,
    describe,
    is_convolution,
    is_identity,
    is_in_place,
    is_linear,
)
from converters.refusals import refusal, shared_weights, strange_layer

__all__ = ["Branch", "Layers", "Plan", "Site", "find_sites"]

Layers = Literal["conv", "all"] | Sequence[str]
"""The layers to put to sleep: every convolution, every synaptic layer, or these names."""


_CARRYING = (Kind.PASS, Kind.AVERAGE, Kind.JOIN)


@dataclass(frozen=True)
class Branch:
    """One of the currents that meet in a layer of neurons.

    Attributes:
        synapse: qualified name of the convolution or linear layer whose weights it passes; None
            for a shortcut, whose spikes arrive by a factor alone.
        node: that layer's node, or the node that gives the shortcut's spikes.
        sleeps: whether its weights change in sleep.
    """

    synapse: str | None
    node: fx.Node
    sleeps: bool


@dataclass(frozen=True)
class Site:
    """The place of one layer of neurons.

    Attributes:
        name: of the first synapse that drives it, else of the root in the graph.
        root: the node that gives the current: the only synapse, or the sum of the branches; the
            ReLU where it stands behind a normalisation.
        activation: the node whose output the neurons replace: the ReLU behind the root, or the
            root itself where there is none.
        branches: what drives it.
        sources: names of the layers whose spikes arrive; None stands for the images.
        rectifies: whether there is no ReLU in the CNN, so that spikes stand for the positive part
            of a signed activation.
        cap: the largest value of the activation, 6 behind a ReLU6.
    """

    name: str
    root: fx.Node
    activation: fx.Node
    branches: tuple[Branch, ...]
    sources: tuple[str | None, ...]
    rectifies: bool
    cap: float


@dataclass(frozen=True)
class Plan:
    """What a traced network becomes.

    Attributes:
        sites: in graph order: the layers that sleep and those in front of them.
        kinds: of every node.
        needed: the nodes that are simulated.
    """

    sites: tuple[Site, ...]
    kinds: Mapping[fx.Node, Kind]
    needed: frozenset[fx.Node]


def find_sites(network: fx.GraphModule, layers: Layers) -> Plan:
    """The layers of neurons: those that sleep, and those in front of them.

    Raises:
        ConversionError: if a name is unknown, or with the complete list of what stands in the way
            of simulating these layers.
    """
    kinds = classify(network)
    synapses = {str(n.target): n for n in network.graph.nodes if kinds[n] is Kind.SYNAPSE}
    sleeping = _select(network, synapses, layers)
    sums = _Sums(network, kinds)
    needed = _ancestors([sums.root(synapses[name]) for name in sleeping])
    problems: dict[fx.Node, str] = {}
    sites: list[Site] = []
    arriving: dict[fx.Node, tuple[str | None, ...]] = {}
    own_relus: set[fx.Node] = set()  # those that neurons take the place of
    signed: set[fx.Node] = set()  # what carries normalised values, which a ReLU would change
    for node in network.graph.nodes:
        below = [b for b in node.all_input_nodes if kinds[b] is not Kind.CONSTANT]
        sources = tuple(dict.fromkeys(s for b in below for s in arriving.get(b, ())))
        arriving[node] = (None,) if kinds[node] is Kind.INPUT else sources
        if kinds[node] is Kind.AFFINE or (kinds[node] in _CARRYING and signed.intersection(below)):
            signed.add(node)
        is_relu = kinds[node] is Kind.RELU and node in needed and node not in own_relus
        behind_norm = is_relu and bool(signed.intersection(below))  # with neurons of its own
        if behind_norm and is_in_place(network, node) and len(varying_users(below[0], kinds)) > 1:
            problems[node] = (
                f"{describe(network, node)}: changes in place what has a second use; make it a "
                "ReLU that does not"
            )
        if is_relu and not behind_norm and cap(network, node) < math.inf:
            problems[node] = (
                f"{describe(network, node)}: must stand straight behind one convolution, linear "
                "layer, sum or BatchNorm, whose neurons then have its cap"
            )
        of_branch = any(map(sums.has, node.all_input_nodes))
        if node in needed and kinds[node] is Kind.CONSTANT and of_branch:
            problems[node] = (
                f"{describe(network, node)}: read the size of the sum, or of what comes before it, "
                "and not of one of its branches"
            )
        if behind_norm or (node in needed and sums.is_root(node)):
            branches = sums.branches(node, sleeping)
            name = next((b.synapse for b in branches if b.synapse is not None), node.name)
            while name in synapses and all(b.synapse is None for b in branches):
                name += "_"  # a layer of the CNN has the root's name
            activation, rectifies = find_activation(network, node, kinds, problems)
            most = cap(network, activation)
            own_relus.add(activation)
            sites.append(Site(name, node, activation, branches, sources, rectifies, most))
            arriving[node] = (name,)
    needed |= _ancestors([site.activation for site in sites])
    problems = _unfit(network, kinds, needed, layers, problems)
    problems |= shared_weights(network, synapses, needed)
    _check(problems, kinds)
    return Plan(tuple(sites), kinds, frozenset(needed))


def _unfit(
    network: fx.GraphModule,
    kinds: Mapping[fx.Node, Kind],
    needed: set[fx.Node],
    layers: Layers,
    known: Mapping[fx.Node, str],
) -> dict[fx.Node, str]:
    """The problems known, and those that an operation or a layer is by itself."""
    found = dict(known)
    # A layer that cannot sleep must not be passed over when all are to sleep, nor what leads to it.
    listed = needed | _ancestors(
        [node for node in network.graph.nodes if _is_asked(network, node, layers)]
    )
    for node in network.graph.nodes:
        if kinds[node] is Kind.UNSUPPORTED and node in listed:
            found.setdefault(node, refusal(network, node))
        if node in needed and (strange := strange_layer(network, node)):
            found[node] = strange
        unused = not node.users and needed.intersection(node.all_input_nodes)
        if unused and is_in_place(network, node):
            found[node] = f"{describe(network, node)}: works in place; assign its result"
    return found


def _check(problems: Mapping[fx.Node, str], kinds: Mapping[fx.Node, Kind]) -> None:
    """Raises ConversionError with all problems, or if there is nothing that spikes stand for."""
    if problems:
        lines = "\n  ".join(problems.values())
        places = "1 place" if len(problems) == 1 else f"{len(problems)} places"
        raise ConversionError(
            f"cannot convert this network, in {places}:\n  {lines}\nsupported: {SUPPORTED}"
        )
    if Kind.RELU not in kinds.values():
        raise ConversionError(
            "the network has no ReLU: spikes stand for activations that are never negative, and "
            "none of its own are"
        )


def _is_asked(network: fx.GraphModule, node: fx.Node, layers: Layers) -> bool:
    """Whether these layers are to include this operation, if it can sleep or not."""
    if is_linear(network, node):
        return layers == "all"
    return is_convolution(network, node) and layers in ("conv", "all")


class _Sums:
    """Which currents meet before they reach neurons."""

    def __init__(self, network: fx.GraphModule, kinds: Mapping[fx.Node, Kind]) -> None:
        self._network, self._kinds = network, kinds
        self._inside = {
            term: node
            for node in network.graph.nodes
            if kinds[node] is Kind.SUM
            for _, term in self._terms(node)
            if term is not None
        }

    def has(self, node: fx.Node) -> bool:
        """Whether this is a current that is added to others."""
        return node in self._inside

    def is_root(self, node: fx.Node) -> bool:
        """Whether neurons stand behind this node."""
        return self._kinds[node] in (Kind.SYNAPSE, Kind.SUM) and node not in self._inside

    def root(self, node: fx.Node) -> fx.Node:
        """The node behind which the neurons stand that this synapse or sum drives."""
        while node in self._inside:
            node = self._inside[node]
        return node

    def branches(self, root: fx.Node, sleeping: frozenset[str]) -> tuple[Branch, ...]:
        """All that is added up in a root, or the one shortcut to a ReLU; sums of sums are one."""
        if self._kinds[root] is Kind.SYNAPSE:
            name = str(root.target)
            return (Branch(name, root, name in sleeping),)
        if self._kinds[root] is Kind.RELU:
            (operand,) = operands(root, self._kinds)
            return (Branch(None, operand, sleeps=False),)
        found: list[Branch] = []
        for operand, term in self._terms(root):
            if term is None:
                found.append(Branch(None, operand, sleeps=False))
            else:
                found += self.branches(term, sleeping)
        return tuple(found)

    def _terms(self, total: fx.Node) -> Iterator[tuple[fx.Node, fx.Node | None]]:
        """What a sum adds up, each with the synapse or sum whose current it is, if it is one."""
        terms = operands(total, self._kinds)
        for term in terms:
            yield term, self._current(term) if terms.count(term) == 1 else None

    def _current(self, node: fx.Node) -> fx.Node | None:
        """The synapse or sum that an operand is the current of, if nothing else uses it."""
        while len(varying_users(node, self._kinds)) == 1:
            if self._kinds[node] in (Kind.SYNAPSE, Kind.SUM):
                return node
            if not is_identity(self._network, node):
                return None
            (node,) = operands(node, self._kinds)
        return None


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
            linear = f"; linear layers sleep with layers=all: {', '.join(synapses)}"
            there = linear if synapses else ""
            for node in network.graph.nodes:
                there += f"\n  {refusal(network, node)}" if is_convolution(network, node) else ""
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
