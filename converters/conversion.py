"""`to_snn` and `to_ann`: a network becomes a spiking one, and the change in its weights comes back.

Two laws. Weights stay in the CNN's own units: alpha is a factor beside the synapse. What comes back
is the change: a network that did not sleep comes back bit for bit.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, fx, nn

from converters.errors import ConversionError
from converters.normalization import Diehl, Normalization, Scale, measure_scales
from converters.operations import Kind, classify, is_normalization
from converters.sites import Layers, Site, find_sites, trace
from converters.spiking import Neuron, Neurons, SpikingNetwork, Synapse, Unit

__all__ = ["Bias", "measure", "spiking_layers", "to_ann", "to_snn"]

Bias = Literal["scaled", "off"]
"""Biases as constant currents scaled by Diehl's rule, or none."""


def spiking_layers(model: nn.Module, layers: Layers = "conv") -> tuple[str, ...]:
    """The qualified names of the layers that would spike, in order, without converting.

    Raises:
        ConversionError: if the network cannot be converted.
    """
    return tuple(site.name for site in find_sites(trace(model), layers))


def measure(
    model: nn.Module,
    images: Tensor,
    *,
    layers: Layers = "conv",
    normalization: Normalization = Diehl(),  # noqa: B008  # frozen
) -> dict[str, Scale]:
    """What `to_snn` measures of its images: the scale of every layer that would spike, by name.

    Args:
        model: a CNN; it is not changed.
        images: (N, C, H, W) in [0, 1], all of which are looked at.
        layers: the layers to put to sleep: "conv", "all", or qualified names.
        normalization: `Diehl()`, `Percentile(p)` or `Legacy()`.

    Raises:
        ConversionError: if the network cannot be converted, or its activations give no scale.
    """
    network = trace(_simulated(model))
    return measure_scales(network, find_sites(network, layers), images, normalization)


def to_snn(
    model: nn.Module,
    images: Tensor | Mapping[str, Scale],
    *,
    neuron: Neuron | Sequence[Neuron],
    layers: Layers = "conv",
    normalization: Normalization = Diehl(),  # noqa: B008  # frozen
    coefficient: float = 1.0,
    bias: Bias = "scaled",
) -> SpikingNetwork:
    """A spiking network with the model's structure and a copy of its weights.

    Every ReLU becomes a layer of neurons, straight behind its convolution or linear layer. The
    graph is cut after the last layer that sleeps. A leading mean/std normalisation is applied to
    the input spikes; a final softmax is not simulated. Half-precision networks are simulated in
    float32, so that small changes of weights are not rounded away.

    Args:
        model: a CNN; it is not changed.
        images: (N, C, H, W) in [0, 1], from which the activations are measured, all of them; or
            what `measure` found, for a network that is converted many times. Normalisation and
            layers must be those it was told.
        neuron: one model for all spiking layers, or one for each.
        layers: the layers to put to sleep: "conv", "all", or qualified names.
        normalization: `Diehl()`, `Percentile(p)` or `Legacy()`.
        coefficient: factor on every alpha (the paper's Table II).
        bias: "scaled" by Diehl's rule, `coefficient * b / lambda`, or "off". A normalisation's
            mean is a bias too.

    Raises:
        ConversionError: with the complete list of what cannot be converted, and why.
    """
    network = trace(_simulated(model))
    sites = find_sites(network, layers)
    neurons = [neuron] * len(sites) if not isinstance(neuron, Sequence) else list(neuron)
    if len(neurons) != len(sites):
        raise ConversionError(
            f"{len(neurons)} neuron models for {len(sites)} spiking layers: "
            + ", ".join(site.name for site in sites)
        )
    scales = (
        measure_scales(network, sites, images, normalization)
        if isinstance(images, Tensor)
        else images
    )
    if missing := [site.name for site in sites if site.name not in scales]:
        raise ConversionError(f"no scale was measured for {', '.join(missing)}")
    units = [
        _make_unit(network, site, scales[site.name], model, coefficient, bias)
        for site, model in zip(sites, neurons, strict=True)
    ]
    return SpikingNetwork(_rewire(network, sites, units, bias), units)


def to_ann(snn: SpikingNetwork, model: nn.Module) -> nn.Module:
    """A copy of the CNN with the slept weights; all else, biases and buffers too, is untouched.

    Args:
        snn: what `to_snn` made of the model, after sleep.
        model: the CNN it was made of; it is not changed.

    Raises:
        ConversionError: if the model does not have the layers that slept, in their shapes.
    """
    cnn = copy.deepcopy(model)
    for unit in snn.units:
        try:
            weight = cnn.get_parameter(f"{unit.name}.weight")
        except AttributeError as error:
            raise ConversionError(f"the network has no layer {unit.name}") from error
        if weight.shape != unit.synapse.weight.shape:
            raise ConversionError(
                f"{unit.name}: weights of shape {tuple(weight.shape)} in the network, "
                f"{tuple(unit.synapse.weight.shape)} in the one that slept"
            )
        # The weights are in the CNN's units, so their change is already in them.
        weight.detach().copy_(unit.synapse.weight.detach())
    return cnn


def _simulated(model: nn.Module) -> nn.Module:
    """A copy of the CNN as it is simulated: in eval mode, in float32 at least."""
    cnn = copy.deepcopy(model).eval()
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in cnn.parameters()):
        cnn = cnn.float()
    for module in cnn.modules():
        if is_normalization(module):
            module.inplace = False  # type: ignore[assignment]  # not on the caller's images
    return cnn


def _make_unit(
    network: fx.GraphModule,
    site: Site,
    scale: Scale,
    neuron: Neuron,
    coefficient: float,
    bias: Bias,
) -> Unit:
    alpha = scale.alpha(coefficient)
    operator = network.get_submodule(site.name)
    current = None
    if operator.bias is not None and bias == "scaled":
        values = operator.bias.detach().clone()  # type: ignore[operator]  # a Parameter
        spatial = (1,) * (operator.weight.dim() - 2)  # type: ignore[operator]
        current = (alpha / scale.below * values).view(-1, *spatial)
    operator.register_parameter("bias", None)  # it is a current now
    return Unit(
        name=site.name,
        synapse=Synapse(operator, alpha, current),
        neurons=Neurons(neuron),
        largest=scale.largest,
        sleeps=site.sleeps,
    )


def _rewire(
    network: fx.GraphModule, sites: Sequence[Site], units: Sequence[Unit], bias: Bias
) -> fx.GraphModule:
    """The CNN's graph with synapses and neurons in place of its layers and activations."""
    graph = network.graph
    kinds = dict(classify(network))
    for index, (site, unit) in enumerate(zip(sites, units, strict=True)):
        network.add_submodule(f"synapse_{index}", unit.synapse)
        network.add_submodule(f"neurons_{index}", unit.neurons)
        with graph.inserting_before(site.synapse):
            inputs = _synapse_inputs(graph, site.synapse.all_input_nodes[0], kinds, bias)
            current = graph.call_module(f"synapse_{index}", inputs)
            spikes = graph.call_module(f"neurons_{index}", (current,))
        # Behind the neurons the ReLU has nothing left to do. Max-pooling in between stays, and
        # pools spikes.
        if site.activation is not site.synapse:
            site.activation.replace_all_uses_with(site.activation.all_input_nodes[0])
            graph.erase_node(site.activation)
        site.synapse.replace_all_uses_with(spikes)
        graph.erase_node(site.synapse)
        kinds[spikes] = Kind.PASS
    for node in reversed(graph.nodes):
        if node.op == "output":
            graph.erase_node(node)
    graph.output(spikes)
    graph.eliminate_dead_code()
    graph.lint()
    return fx.GraphModule(network, graph)


def _synapse_inputs(
    graph: fx.Graph, node: fx.Node, kinds: Mapping[fx.Node, Kind], bias: Bias
) -> tuple[fx.Node, ...]:
    """`(pre,)`, or `(pre, drive)` where the CNN normalises its images in front of the layer."""
    if not _normalizes(node, kinds):
        return (node,)
    pre = _rebuild(graph, node, kinds, keep_affine=False)
    drive = _rebuild(graph, node, kinds, keep_affine=True)
    if bias == "off":  # the normalisation of a black image is its constant part
        images = next(below for below in graph.nodes if kinds.get(below) is Kind.INPUT)
        black = graph.call_function(torch.zeros_like, (images,))
        offset = _rebuild(graph, node, kinds, keep_affine=True, images=black)
        drive = graph.call_function(torch.sub, (drive, offset))
    return (pre, drive)


def _normalizes(node: fx.Node, kinds: Mapping[fx.Node, Kind]) -> bool:
    """Whether a normalisation stands between the images and this node."""
    while kinds[node] is not Kind.INPUT and node.all_input_nodes:
        if kinds[node] is Kind.AFFINE:
            return True
        if node.op == "call_module" and str(node.target).startswith("neurons_"):
            return False
        node = next(n for n in node.all_input_nodes if kinds[n] is not Kind.CONSTANT)
    return False


def _rebuild(
    graph: fx.Graph,
    node: fx.Node,
    kinds: Mapping[fx.Node, Kind],
    *,
    keep_affine: bool,
    images: fx.Node | None = None,
) -> fx.Node:
    """A second chain of nodes from the images to this one, with or without the normalisation."""

    def rebuild(below: fx.Node) -> fx.Node:
        return _rebuild(graph, below, kinds, keep_affine=keep_affine, images=images)

    if kinds[node] is Kind.CONSTANT:
        return node
    if kinds[node] is Kind.INPUT:
        return images or node
    if kinds[node] is Kind.AFFINE and not keep_affine:
        return rebuild(next(n for n in node.all_input_nodes if kinds[n] is not Kind.CONSTANT))
    return graph.node_copy(node, rebuild)
