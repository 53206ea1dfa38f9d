"""Builds the spiking graph: the CNN's own, with synapses and neurons where its layers were."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx

from converters.kinds import Kind, operands
from converters.normalization import Scale
from converters.sites import Branch, Plan, Site
from converters.spiking import Layer, Neuron, Neurons, SpikingNetwork, Synapse, Unit
from converters.tracing import network_of

__all__ = ["Bias", "assemble"]

Bias = Literal["scaled", "off"]
"""Biases as constant currents scaled by Diehl's rule, or none."""


@dataclass(frozen=True)
class _Signal:
    """What a node of the CNN is in the spiking graph.

    Attributes:
        pre: spikes, or shares of a pool that spiked: what plasticity sees.
        drive: what weights are applied to. Another node than `pre` behind a normalisation of the
            CNN's own, and where branches of different worth stand side by side.
        worth: what a spike of the drive stands for, in units of the CNN's activations.
        black: the drive without spikes, to be left out of the current; None without any.
    """

    pre: fx.Node
    drive: fx.Node
    worth: float
    black: fx.Node | None = None


def assemble(
    network: fx.GraphModule,
    plan: Plan,
    scales: Mapping[str, Scale],
    neurons: Sequence[Neuron],
    folds: Mapping[str, Tensor],
    coefficient: float,
    bias: Bias,
) -> SpikingNetwork:
    """The spiking network of a plan.

    Args:
        network: the traced copy of the CNN that is simulated; its layers become synapses.
        plan: of this very graph.
        scales: by the names of the plan's sites.
        neurons: a model for each site.
        folds: the factors that are in the weights of some layers.
        coefficient: factor on every current.
        bias: "scaled" or "off".
    """
    assembly = _Assembly(network, plan, folds, coefficient, bias)
    models = dict(zip(plan.sites, neurons, strict=True))
    sites = {site.root: site for site in plan.sites}
    for node in network.graph.nodes:
        if node not in plan.needed:
            continue
        if node in sites:
            assembly.place(sites[node], scales[sites[node].name], models[sites[node]])
        else:
            assembly.carry_over(node)
    return assembly.network(plan.sites[-1].root)


class _Assembly:
    def __init__(
        self,
        network: fx.GraphModule,
        plan: Plan,
        folds: Mapping[str, Tensor],
        coefficient: float,
        bias: Bias,
    ) -> None:
        self._network, self._kinds, self._folds = network, plan.kinds, folds
        self._coefficient, self._bias = coefficient, bias
        self._graph = fx.Graph()
        self._signals: dict[fx.Node, _Signal] = {}
        self._layers: list[Layer] = []
        self._units: list[Unit] = []

    def network(self, last: fx.Node) -> SpikingNetwork:
        """What was built, up to this node of the CNN."""
        self._graph.output(self._signals[last].pre)
        self._graph.lint()
        graph = network_of(self._network, self._graph)
        return SpikingNetwork(graph, self._layers, self._units)

    def place(self, site: Site, scale: Scale, neuron: Neuron) -> None:
        """Puts the synapses and the neurons of a site in place of its root."""
        layer = Layer(site.name, Neurons(neuron), scale.largest, site.rectifies)
        current: fx.Node | None = None
        for branch in site.branches:
            part = self._branch(branch, layer, scale)
            current = part if current is None else self._call(torch.add, current, part)
        spikes = self._module(f"neurons_{len(self._layers)}", layer.neurons, current)
        self._layers.append(layer)
        self._signals[site.root] = _Signal(spikes, spikes, scale.carried)

    def carry_over(self, node: fx.Node) -> None:
        """Copies an operation that works on spikes as it did on activations."""
        kind, signals = self._kinds[node], self._signals
        below = [each for each in node.all_input_nodes if self._kinds[each] is not Kind.CONSTANT]
        if kind in (Kind.SYNAPSE, Kind.SUM) or not signals.keys() >= set(node.all_input_nodes):
            return  # inside of a sum, which is placed as a whole
        if kind is Kind.INPUT:
            images = self._graph.node_copy(node)
            signals[node] = _Signal(images, images, 1.0)
        elif kind is Kind.CONSTANT:
            constant = self._copy(node, lambda signal: signal.pre)
            signals[node] = _Signal(constant, constant, 1.0)
        elif kind is Kind.RELU:  # the neurons have done its work
            signals[node] = signals[below[0]]
        elif kind is Kind.AFFINE:
            signals[node] = self._normalize(node, signals[below[0]])
        elif kind is Kind.JOIN:
            signals[node] = self._join(node, [signals[each] for each in below])
        else:
            signals[node] = self._apply(node, signals[below[0]])

    def _branch(self, branch: Branch, layer: Layer, scale: Scale) -> fx.Node:
        """The current that arrives by a branch."""
        if branch.synapse is None:
            signal = self._signals[branch.node]
            factor = scale.alpha(self._coefficient, signal.worth)
            return self._call(torch.mul, self._drive(signal), factor)
        (below,) = operands(branch.node, self._kinds)
        signal = self._signals[below]
        alpha = scale.alpha(self._coefficient, signal.worth)
        operator = self._network.get_submodule(branch.synapse)
        current = None
        if operator.bias is not None and self._bias == "scaled":
            # mypy: torch types what a module holds as a tensor or a module.
            values: Tensor = operator.bias.detach().clone()  # type: ignore[operator]  # see above
            spatial = (1,) * (operator.weight.dim() - 2)  # type: ignore[operator]  # see above
            current = (alpha / signal.worth * values).view(-1, *spatial)
        operator.register_parameter("bias", None)  # it is a current now
        synapse = Synapse(operator, alpha, current)
        fold = self._folds.get(branch.synapse)
        self._units.append(Unit(branch.synapse, synapse, layer, branch.sleeps, fold))
        drive = self._drive(signal)
        inputs = (signal.pre,) if drive is signal.pre else (signal.pre, drive)
        return self._module(f"synapse_{len(self._units) - 1}", synapse, *inputs)

    def _drive(self, signal: _Signal) -> fx.Node:
        if signal.black is None or signal.drive is signal.pre:
            return signal.drive
        return self._call(torch.sub, signal.drive, signal.black)

    def _apply(self, node: fx.Node, signal: _Signal) -> _Signal:
        """The operation on what plasticity sees, and on the drive where that is another."""
        pre = self._copy(node, lambda each: each.pre)
        if signal.drive is signal.pre:
            return _Signal(pre, pre, signal.worth)
        drive = self._copy(node, lambda each: each.drive)
        black = signal.black and self._copy(node, lambda each: each.black or each.pre)
        return _Signal(pre, drive, signal.worth, black)

    def _normalize(self, node: fx.Node, signal: _Signal) -> _Signal:
        """The operation on the drive alone, in the CNN's units: on what the spikes stand for."""
        drive = signal.drive
        if signal.worth != 1:
            drive = self._call(torch.mul, drive, signal.worth)
        black = None
        if self._bias == "off":
            silence = signal.black or self._call(torch.zeros_like, drive)
            black = self._copy(node, lambda each: silence if each is signal else each.pre)
        drive = self._copy(node, lambda each: drive if each is signal else each.pre)
        return _Signal(signal.pre, drive, 1.0, black)

    def _join(self, node: fx.Node, signals: Sequence[_Signal]) -> _Signal:
        """Branches side by side, each in the drive by what its spikes are worth."""
        worth = max(signal.worth for signal in signals)
        pre = self._copy(node, lambda each: each.pre)
        if all(each.drive is each.pre and each.worth == worth for each in signals):
            return _Signal(pre, pre, worth)
        scaled = {
            id(each): self._call(torch.mul, self._drive(each), each.worth / worth)
            for each in signals
        }
        return _Signal(pre, self._copy(node, lambda each: scaled[id(each)]), worth)

    def _copy(self, node: fx.Node, of: Callable[[_Signal], fx.Node]) -> fx.Node:
        return self._graph.node_copy(node, lambda below: of(self._signals[below]))

    def _call(self, function: Callable[..., Tensor], *args: fx.Node | float) -> fx.Node:
        return self._graph.call_function(function, args)

    def _module(self, name: str, module: torch.nn.Module, *args: fx.Node | None) -> fx.Node:
        while hasattr(self._network, name):  # the CNN may have a layer of that name
            name += "_"
        self._network.add_submodule(name, module)
        return self._graph.call_module(name, args)
