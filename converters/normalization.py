"""Data-based normalisation: the factor alpha of each layer, out of activations and weights."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, fx, nn

from converters.errors import ConversionError
from converters.sites import Site
from converters.tracing import network_of

__all__ = ["Diehl", "Legacy", "Normalization", "Percentile", "Scale", "measure_scales"]

_BATCH_NUMBERS = 2**18
"""Input numbers a batch while measuring. Four times as many take twice the time: layers of over
32 MB are given back to the system by glibc after every batch, and made anew for the next."""


@dataclass(frozen=True)
class Scale:
    """The scale of a layer of neurons.

    Attributes:
        largest: lambda, the largest value of the activations that its spikes stand for.
        carried: the activation that one spike stands for in the layers above: lambda, or what the
            recursion makes of it. 1 for images.
    """

    largest: float
    carried: float

    def alpha(self, coefficient: float, below: float) -> float:
        """The factor on `W * s`; that on the bias is `alpha / below`.

        Args:
            coefficient: of the whole network.
            below: what the spikes s are worth, `carried` of their layer.
        """
        return coefficient * below / self.largest


class Normalization(Protocol):
    """A way to choose the factors; `percentile` is the share of activations that lambda covers."""

    @property
    def percentile(self) -> float:
        """Percent of the positive activations at or below lambda; 100 is their true maximum."""

    def largest(self, activation: float, weight: float) -> float:
        """Lambda, from the measured activation and the largest weight of a layer."""

    def carry(self, largest: float, below: float) -> float:
        """What the layer above divides by: lambda, or what the recursion makes of it."""


@dataclass(frozen=True)
class Diehl:
    """`alpha_l = lambda_(l-1) / lambda_l`, lambda the largest of all activations and weights.

    Source: Diehl et al. 2015, IJCNN, Algorithm 1 ("data-based normalization"), with the true
    maximum over all images given. `lambda_0 = 1`: images lie in [0, 1].
    """

    percentile: ClassVar[float] = 100.0

    def largest(self, activation: float, weight: float) -> float:
        """The larger of the two."""
        return max(activation, weight)

    def carry(self, largest: float, below: float) -> float:
        """Lambda itself."""
        return largest


@dataclass(frozen=True)
class Percentile:
    """Diehl's recursion with lambda a percentile of the positive activations, weights left out.

    Source: Rueckauer et al. 2017, Front. Neurosci. 11:682, Section 2.2.1: outliers no longer set
    the scale. The percentile is read off a histogram of 10,000 bins, so it is within 0.01 % of
    the largest activation.

    Args:
        percentile: in (0, 100].
    """

    percentile: float = 99.9

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise ConversionError(f"percentile={self.percentile}: must be above 0, at most 100")

    def largest(self, activation: float, weight: float) -> float:
        """The activation."""
        return activation

    def carry(self, largest: float, below: float) -> float:
        """Lambda itself."""
        return largest


@dataclass(frozen=True)
class Legacy:
    """The recursion of the MATLAB code of Tadros et al. 2022: divided by the previous *factor*.

    `applied_l = lambda_l / applied_(l-1)`, `alpha_l = 1 / applied_l`. It differs from Diehl's from
    the second layer on; published thresholds for that code assume it.
    """

    percentile: ClassVar[float] = 100.0

    def largest(self, activation: float, weight: float) -> float:
        """The larger of the two."""
        return max(activation, weight)

    def carry(self, largest: float, below: float) -> float:
        """The factor that was applied to this layer."""
        return largest / below


class _Meter(nn.Module):
    """Passes its input on and keeps the largest value, or a histogram up to a known largest."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.flat = flat
        self.largest = torch.tensor(0.0)
        self.histogram: Tensor | None = None

    def forward(self, activation: Tensor) -> Tensor:
        if self.flat and activation.dim() != 2:
            raise RuntimeError(
                f"a BatchNorm behind a Linear layer whose output is {tuple(activation.shape)} "
                "normalises positions, not features; it cannot be folded"
            )
        if self.histogram is None:
            # A running maximum that keeps NaN, so that it is seen in the end.
            self.largest = torch.maximum(self.largest.to(activation), activation.max())
        else:
            positive = activation[activation > 0].float().cpu()
            self.histogram += torch.histc(
                positive, bins=len(self.histogram), min=0.0, max=float(self.largest)
            ).double()
        return activation

    def read(self, percentile: float) -> float:
        """The smallest bin edge with at least this percentage of positive activations below it."""
        if self.histogram is None:
            return float(self.largest)
        covered = self.histogram.cumsum(0)
        index = int(torch.searchsorted(covered, covered[-1:] * (percentile / 100.0)))
        return float(self.largest) * (min(index, len(covered) - 1) + 1) / len(covered)


@torch.no_grad()
def measure_scales(
    network: fx.GraphModule,
    sites: Sequence[Site],
    images: Tensor,
    normalization: Normalization,
    normed: Collection[str] = (),
) -> dict[str, Scale]:
    """The scale of every layer by name, from one pass over all images (two for a percentile).

    Args:
        network: the traced CNN, in eval mode; it is not changed.
        sites: its spiking layers in graph order.
        images: (N, C, H, W) in the range that the network takes.
        normalization: how lambda is chosen and carried on.
        normed: names of the layers with a BatchNorm folded into them.

    Raises:
        ConversionError: if the images do not fit the network, an activation is not finite, or a
            layer has no positive activation and no positive weight.
    """
    if len(images) == 0:
        raise ConversionError("there are no images to measure activations with")
    if isinstance(normalization, Legacy) and any(len(site.branches) > 1 for site in sites):
        raise ConversionError(
            "the legacy normalisation is for networks without branches that are added: it divides "
            "by another factor at every depth; use Diehl or a percentile"
        )
    meters, metered = _insert_meters(network, sites, normed)
    _run(metered, images)
    for site, meter in zip(sites, meters, strict=True):
        if not torch.isfinite(meter.largest):
            raise ConversionError(
                f"{site.name}: activations are not finite; check the weights and the images"
            )
    if normalization.percentile < 100:
        for meter in meters:
            meter.histogram = torch.zeros(10_000, dtype=torch.float64)
        _run(metered, images)
    scales: dict[str, Scale] = {}
    carried: dict[str | None, float] = {None: 1.0}  # images lie in [0, 1]
    for site, meter in zip(sites, meters, strict=True):
        weights = [network.get_parameter(f"{b.synapse}.weight") for b in site.branches if b.synapse]
        weight = max((float(each.max()) for each in weights), default=0.0)
        largest = normalization.largest(meter.read(normalization.percentile), weight)
        largest = min(largest, site.cap)  # so that a rate of one spike a step is the cap
        if largest <= 0:
            raise ConversionError(
                f"{site.name}: silent for all {len(images)} images, so it has no scale; "
                "give other images or leave the layer out"
            )
        below = max(carried[source] for source in site.sources)
        carried[site.name] = normalization.carry(largest, below)
        scales[site.name] = Scale(largest, carried[site.name])
    return scales


def _is_normed_linear(network: fx.GraphModule, name: str | None, normed: Collection[str]) -> bool:
    return name in normed and isinstance(network.get_submodule(str(name)), nn.Linear)


def _insert_meters(
    network: fx.GraphModule, sites: Sequence[Site], normed: Collection[str]
) -> tuple[list[_Meter], fx.GraphModule]:
    """A copy of the graph that ends at the last layer needed, with a meter at each activation."""
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(network.graph, copied)
    metered = network_of(network, graph)
    meters, ends = [], []
    for index, site in enumerate(sites):
        folded = any(_is_normed_linear(network, b.synapse, normed) for b in site.branches)
        meter, activation = _Meter(flat=folded), copied[site.activation]
        name = f"_srcsnn_meter_{index}"
        metered.add_submodule(name, meter)
        with graph.inserting_after(activation):
            end = graph.call_module(name, (activation,))
        activation.replace_all_uses_with(end)
        end.args = (activation,)  # which the line above turned to itself
        meters.append(meter)
        ends.append(end)
    graph.output(ends[-1])
    _drop_unused(graph, keep=set(ends))
    metered.recompile()
    return meters, metered


def _drop_unused(graph: fx.Graph, keep: set[fx.Node]) -> None:
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("output", "placeholder") and node not in keep:
            graph.erase_node(node)


def _run(network: fx.GraphModule, images: Tensor) -> None:
    weight = next(network.parameters())
    for batch in torch.split(images, max(1, _BATCH_NUMBERS // images[0].numel())):
        try:
            network(batch.to(weight))
        except (RuntimeError, TypeError) as error:
            raise ConversionError(
                f"the network cannot take images of shape {tuple(images.shape[1:])}: {error}"
            ) from error
