"""Is the spiking network the CNN? Looked at before anything sleeps."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from converters import Layers, Scale, SpikingNetwork, measure, simulate, to_snn
from srcsnn.classifiers import evaluating, scores_of
from srcsnn.errors import ConfigError, SrcsnnError
from srcsnn.neurons import LIF
from srcsnn.preparation import check_before
from srcsnn.report import SATURATED_RATE, SpikeCounter
from srcsnn.seeding import stream

__all__ = ["LayerFidelity", "Verification", "classify", "verify"]


@dataclass(frozen=True)
class LayerFidelity:
    """How well the spikes of a layer stand for its activations.

    Attributes:
        name: qualified name in the CNN.
        neurons: how many.
        correlation: Pearson's, of spike rates with activations over lambda, over all neurons and
            images, in [-1, 1]. NaN if either does not vary.
        dead: share of neurons that fire for no image.
        saturated: share of neurons that fire in more than half of the steps for some image.
    """

    name: str
    neurons: int
    correlation: float
    dead: float
    saturated: float


@dataclass(frozen=True)
class Verification:
    """A spiking network beside its CNN.

    Attributes:
        difference: largest difference between the CNN's outputs and those of the copy with its
            BatchNorms and numbers folded in, over the CNN's largest output.
        layers: in network order.
        images: how many were shown.
        steps: for how many time steps each.
    """

    difference: float
    layers: tuple[LayerFidelity, ...]
    images: int
    steps: int


@torch.no_grad()
def verify(
    model: nn.Module,
    images: Tensor,
    *,
    seed: int,
    layers: Layers = "conv",
    shown: int = 32,
    steps: int = 100,
    scales: Mapping[str, Scale] | None = None,
) -> Verification:
    """Shows images to the CNN and, as Poisson spikes, to the spiking network.

    For this the neurons integrate without leak and fire at 1, where the normalisation expects the
    largest activation to be one spike a step; a sleep has thresholds of its own.

    Args:
        model: a trained CNN; it is not changed.
        images: (N, C, H, W) in [0, 1]; activations are measured on all of them.
        seed: of the choice of images and of the input spikes.
        layers: the layers to put to sleep: "conv", "all", or qualified names.
        shown: how many of the images are shown.
        steps: time steps for which each is shown.
        scales: what `converters.measure` found in these images, if it was asked before.

    Raises:
        ConfigError: if there are no steps.
        ConversionError, DatasetError, SleepError: as `prepare`.
    """
    check_before(model, images)
    scales = measure(model, images, layers=layers) if scales is None else scales
    chosen = torch.randperm(len(images), generator=stream(seed, "shown"))[:shown]
    some = images[chosen]
    output, activations = simulate(model, some, layers=layers)
    with evaluating(model):
        expected = model(some.to(next(model.parameters()), copy=True))
    if not isinstance(expected, Tensor):
        raise SrcsnnError(f"the network gives a {type(expected).__name__}; a tensor is needed")
    expected = expected.to(output)
    snn = to_snn(model, images, neuron=LIF(1.0, 1.0), layers=layers, scales=scales)
    rates = _rates(snn, some, steps, stream(seed, "shown spikes"))
    found = tuple(
        _fidelity(layer.name, rates[layer.name], activations[layer.name] / layer.largest)
        for layer in snn.layers
    )
    largest = float(expected.abs().max())
    difference = float((output - expected).abs().max()) / (largest or 1.0)
    return Verification(difference, found, len(some), steps)


@torch.no_grad()
def classify(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    seed: int,
    steps: int,
    scales: Mapping[str, Scale],
) -> float:
    """Accuracy of the whole spiking network as a classifier, in [0, 1].

    All layers spike, the last one too, and the class whose neurons fire most often wins. Images
    are shown as Poisson spikes; neurons as in `verify`.

    Args:
        model: a trained CNN whose last layer is one that can spike; it is not changed.
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class numbers.
        seed: of the input spikes.
        steps: time steps for which each image is shown.
        scales: what `converters.measure` found in training images with layers="all".

    Raises:
        ConfigError: if the last layer that can spike has no channel for each class, or there are
            no steps.
        ConversionError: if the network cannot be converted.
        SrcsnnError: if the network gives no scores (images, classes).
    """
    snn = to_snn(model, images, neuron=LIF(1.0, 1.0), layers="all", scales=scales)
    last, correct = snn.layers[-1].name, 0
    with evaluating(model):
        classes = scores_of(model, images[:1]).shape[1]
    channels, *_ = snn.shapes(tuple(images.shape[1:]))[last]
    if channels != classes:
        raise ConfigError(
            f"cannot classify by spikes: {last}, the last layer that can spike, has {channels} "
            f"channels, and the network {classes} classes"
        )
    generator = stream(seed, "shown spikes")
    for start in range(0, len(images), 100):
        part = slice(start, start + 100)
        rates = _rates(snn, images[part], steps, generator)[last]
        winners = rates.reshape(*rates.shape[:2], -1).mean(2).argmax(1).cpu()
        correct += int((winners == labels[part]).sum())
    return correct / len(images)


def _rates(
    snn: SpikingNetwork, images: Tensor, steps: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Spikes per step of each neuron of each layer for each image, (N, ...) in [0, 1]."""
    if steps < 1:
        raise ConfigError(f"steps={steps}: must be 1 or more")
    counter = SpikeCounter()
    weight = snn.units[0].synapse.weight
    snn.reset()
    with snn.observed(counter.see):
        for _ in range(steps):
            spikes = torch.rand(images.shape, generator=generator) < images.cpu()
            snn(spikes.to(weight))
    snn.reset()
    return {name: counts / steps for name, counts in counter.counts.items()}


def _fidelity(name: str, rates: Tensor, activations: Tensor) -> LayerFidelity:
    pair = torch.stack([rates.flatten().double(), activations.flatten().double()])
    most = rates.amax(0)
    return LayerFidelity(
        name,
        most.numel(),
        correlation=float(torch.corrcoef(pair)[0, 1]),
        dead=float((most == 0).double().mean()),
        saturated=float((most > SATURATED_RATE).double().mean()),
    )
