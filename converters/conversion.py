"""`to_snn` and `to_ann`: a network becomes a spiking one, and the change in its weights comes back.

Two laws. Weights stay in the CNN's own units: alpha is a factor beside the synapse. What comes back
is the change: a network that did not sleep comes back bit for bit.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, fx, nn

from converters.assembly import Bias, assemble
from converters.comparison import computes_alike
from converters.errors import ConversionError
from converters.folding import Folds, fold, per_channel
from converters.normalization import Diehl, Normalization, Scale, measure_scales
from converters.operations import is_normalization
from converters.sites import Layers, Site, find_sites
from converters.spiking import Neuron, SpikingNetwork, Unit
from converters.tracing import trace

__all__ = ["measure", "simulate", "spiking_layers", "to_ann", "to_snn"]


def spiking_layers(
    model: nn.Module, layers: Layers = "conv", images: Tensor | None = None
) -> tuple[str, ...]:
    """The names of the layers of neurons that there would be, in order, without converting.

    Args:
        model: a CNN; it is not changed.
        layers: the layers to put to sleep: "conv", "all", or qualified names.
        images: (N, C, H, W), some that it takes, for a network whose forward looks at their size.

    Raises:
        ConversionError: if the network cannot be converted.
    """
    network, _, _ = _simulated(model, images, compared=False)
    return tuple(site.name for site in find_sites(network, layers).sites)


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
    network, folds, alike = _simulated(model, images)
    plan = find_sites(network, layers)
    _check(model, alike)
    return measure_scales(network, plan.sites, images, normalization, folds.normed)


@torch.no_grad()
def simulate(
    model: nn.Module, images: Tensor, *, layers: Layers = "conv"
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the copy that becomes spiking computes as a CNN: its output, and its activations.

    Args:
        model: a CNN; it is not changed.
        images: (N, C, H, W) in [0, 1], all at once.
        layers: the layers to put to sleep: "conv", "all", or qualified names.

    Returns:
        The output, and by the name of each layer that would spike the activations that its spikes
        stand for, (N, ...), not negative: those of the convolution, linear layer or sum that drives
        it, also where its ReLU stands behind a pool.

    Raises:
        ConversionError: if the network cannot be converted.
    """
    network, _, alike = _simulated(model, images)
    plan = find_sites(network, layers)
    _check(model, alike)
    recording = _Recording(network, plan.sites)
    output = recording.run(images.to(next(network.parameters())))
    return output, recording.activations


class _Recording(fx.Interpreter):
    """Runs a graph and keeps what some of its nodes compute."""

    def __init__(self, network: fx.GraphModule, sites: Sequence[Site]) -> None:
        super().__init__(network)
        self._sites = {site.root: site for site in sites}
        self.activations: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401  # as its base class
        found = super().run_node(n)
        if (site := self._sites.get(n)) is not None:
            self.activations[site.name] = found.clamp(0, site.cap)
        return found


def to_snn(
    model: nn.Module,
    images: Tensor,
    *,
    neuron: Neuron | Sequence[Neuron],
    layers: Layers = "conv",
    normalization: Normalization = Diehl(),  # noqa: B008  # frozen
    coefficient: float = 1.0,
    bias: Bias = "scaled",
    scales: Mapping[str, Scale] | None = None,
) -> SpikingNetwork:
    """A spiking network with the model's structure and a copy of its weights.

    Every ReLU becomes a layer of neurons, straight behind its convolution or linear layer, or
    behind the sum of its branches, each of which has a factor of its own. A layer without a ReLU
    gets neurons too, which stand for the positive part. A BatchNorm or a number straight behind a
    layer is folded into the copy. Any other, like a leading mean/std normalisation, works on what
    the spikes stand for, and a ReLU behind it has neurons of its own. The graph is cut after the
    last layer that sleeps; a final softmax is not simulated. Half-precision networks are simulated
    in float32, so that small changes of weights are not rounded away.

    Args:
        model: a CNN; it is not changed.
        images: (N, C, H, W) in [0, 1], from which the activations are measured, all of them.
        neuron: one model for all spiking layers, or one for each.
        layers: the layers to put to sleep: "conv", "all", or qualified names.
        normalization: `Diehl()`, `Percentile(p)` or `Legacy()`.
        coefficient: factor on every alpha (the paper's Table II).
        bias: "scaled" by Diehl's rule, `coefficient * b / lambda`, or "off". A normalisation's
            mean is a bias too.
        scales: what `measure` found in these images with the same normalisation and layers, for a
            network that is converted many times.

    Raises:
        ConversionError: with the complete list of what cannot be converted, and why.
    """
    if bias not in get_args(Bias):
        raise ConversionError(f"bias={bias!r}: use {' or '.join(map(repr, get_args(Bias)))}")
    network, folds, alike = _simulated(model, images, compared=scales is None)
    plan = find_sites(network, layers)
    _check(model, alike)
    names = [site.name for site in plan.sites]
    neurons = [neuron] * len(names) if not isinstance(neuron, Sequence) else list(neuron)
    if len(neurons) != len(names):
        raise ConversionError(
            f"{len(neurons)} neuron models for {len(names)} spiking layers: {', '.join(names)}"
        )
    if scales is None:
        scales = measure_scales(network, plan.sites, images, normalization, folds.normed)
    if missing := [name for name in names if name not in scales]:
        raise ConversionError(f"no scale was measured for {', '.join(missing)}")
    return assemble(network, plan, scales, neurons, folds.scales, coefficient, bias)


def to_ann(snn: SpikingNetwork, model: nn.Module, *, keep: bool = True) -> nn.Module:
    """A copy of the CNN with the slept weights; all else, biases and buffers too, is untouched.

    Args:
        snn: what `to_snn` made of the model, after sleep.
        model: the CNN it was made of; it is not changed.
        keep: whether the spiking network keeps its weights. Without, it is of no more use, and
            there are never two copies of a layer.

    Raises:
        ConversionError: if the model does not have the layers that slept, in their shapes.
    """
    before = {unit.name: _parameter(unit, model) for unit in snn.units}
    slept: dict[int, nn.Parameter] = {}
    for unit in snn.units:
        old = before[unit.name]
        weight = _slept(unit, old.detach())
        if keep or weight.dtype != old.dtype:
            weight = torch.empty_like(old).copy_(weight)
        slept[id(old)] = nn.Parameter(weight, requires_grad=old.requires_grad)
        if not keep:
            unit.synapse.operator.register_parameter("weight", None)
    cnn = copy.deepcopy(model, dict(slept))  # which takes these for copies of the old
    for unit in snn.units:
        found, own = cnn.get_parameter(f"{unit.name}.weight"), slept[id(before[unit.name])]
        if found is not own:  # a network that copies itself in its own way
            found.detach().copy_(own.detach())
    return cnn


def unslept(unit: Unit, model: nn.Module) -> Tensor:
    """The weights of a unit before sleep, computed again: a copy of all would take much memory.

    Args:
        unit: of what `to_snn` made of the model.
        model: the CNN it was made of.

    Raises:
        ConversionError: if the model does not have the unit's layer, in its shape.
    """
    before = _parameter(unit, model).detach().to(unit.synapse.weight)
    return before if unit.fold is None else before * per_channel(unit.fold, before)


def _parameter(unit: Unit, model: nn.Module) -> nn.Parameter:
    """The weights of the unit's layer in the CNN, not a copy."""
    try:
        weight = model.get_parameter(f"{unit.name}.weight")
    except AttributeError as error:
        raise ConversionError(f"the network has no layer {unit.name}") from error
    if weight.shape != unit.synapse.weight.shape:
        raise ConversionError(
            f"{unit.name}: weights of shape {tuple(weight.shape)} in the network, "
            f"{tuple(unit.synapse.weight.shape)} in the one that slept"
        )
    return weight


def _slept(unit: Unit, weight: Tensor) -> Tensor:
    """The CNN's weights after sleep: `W + dW / s`, where a folded factor s is in dW."""
    slept = unit.synapse.weight.detach()  # the same memory
    if unit.fold is None:
        return slept  # in the CNN's units, so that the change is already in them
    scale = per_channel(unit.fold, slept)
    before = weight.to(slept)
    change = before * scale
    torch.sub(slept, change, out=change).div_(scale)
    change[unit.fold == 0] = 0  # a channel that is multiplied by zero is left alone
    return change.add_(before)


def _simulated(
    model: nn.Module, images: Tensor | None, *, compared: bool = True
) -> tuple[fx.GraphModule, Folds, bool]:
    """A copy of the CNN as it is simulated, in eval mode, in float32 at least.

    Its graph, what was folded into its layers, and whether the graph computed of the first images
    what the copy did, if they were to be compared.
    """
    try:
        cnn = copy.deepcopy(model).eval()
    except Exception as error:  # of torch, or of whatever else the network holds
        raise ConversionError(
            f"{type(model).__name__} cannot be copied: {error}. Weights must be plain parameters "
            "(see torch.nn.utils.remove_weight_norm, remove_spectral_norm and prune.remove), and "
            "a network must not hold open files, locks or iterators"
        ) from error
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in cnn.parameters()):
        cnn = cnn.float()
    for module in cnn.modules():
        if is_normalization(module):
            module.inplace = False  # type: ignore[assignment]  # not on the caller's images
    network = trace(cnn, images)
    alike = images is None or not compared or computes_alike(cnn, network, images[:2])
    return network, fold(network), alike


def _check(model: nn.Module, alike: bool) -> None:
    if not alike:
        raise ConversionError(
            f"the graph that torch.fx reads from {type(model).__name__} computes something else "
            "than the network: its forward changes a value in place that has a second name (write "
            "x = x + y for x += y), asks a value for its class, or depends on more than its images"
        )
