"""A spiking network in the Neuromorphic Intermediate Representation (NIR).

Source: Pedersen et al. 2024, "Neuromorphic intermediate representation: A unified instruction set
for interoperable brain-inspired computing", Nature Communications 15.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from converters import ConversionError, Neuron, Neurons, SpikingNetwork, Synapse
from converters.arithmetic import factor_on
from converters.operations import REARRANGING, is_identity, squeezed
from srcsnn.errors import ConfigError
from srcsnn.neurons import LIF, Leaky
from srcsnn.nir_pools import AVERAGE_POOLS, MAX_POOLS, geometry

__all__ = ["to_nir"]

_Array = np.ndarray[Any, np.dtype[np.float32]]

_SAME_VALUES = {
    nn.Flatten, nn.Unflatten,
    torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, squeezed,
    "flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze",
}  # fmt: skip
_MISSING = {
    operator.getitem, F.pad, F.interpolate, F.channel_shuffle, nn.Upsample, nn.ChannelShuffle,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, *REARRANGING,
}  # fmt: skip


def to_nir(snn: SpikingNetwork, image: tuple[int, ...], *, dt_s: float = 0.001) -> nir.NIRGraph:
    """The network as a graph of NIR, to be written with `nir.write` and read by other simulators.

    NIR's neurons are differential equations. Forward Euler in steps of `dt_s`, with signals that
    pass the whole graph within a step, gives the spikes of this network, step by step. What NIR has
    no node for is said by others, exactly: a max-pool of spikes by a sum-pool and a threshold of
    one half; the constant of a normalisation by a threshold that always fires, and a scale; a
    grouped convolution by one with zeros between its groups, as the types of NIR 1.0 do not know of
    groups.

    Args:
        snn: with `LIF` or `Leaky` neurons, which are reset.
        image: (C, H, W) of its input.
        dt_s: duration of a step in seconds, for the neurons' time constants.

    Raises:
        ConfigError: for neurons other than these, an image that the network does not take, or a
            step that is not above 0.
        ConversionError: for what NIR cannot say: concatenation, 3-d convolution, pools in one or
            three dimensions, with `ceil_mode`, dilation or a margin that an average leaves out,
            adaptive pools whose sizes do not divide, a max-pool of averages or of normalised
            images, means, forms other than flat, linear layers of several axes.
    """
    if not dt_s > 0:
        raise ConfigError(f"dt_s={dt_s}: must be above 0 seconds")
    first = snn.units[0].synapse
    axes = len(image) if isinstance(first.operator, nn.Linear) else first.weight.dim() - 1
    if len(image) != axes:  # torch would take a missing channel for a missing batch
        raise ConfigError(f"image={image}: the network does not take it: {axes} axes are needed")
    try:
        values = _Values(snn, image)
    except RuntimeError as cause:
        why = str(cause).splitlines()[0]
        raise ConfigError(f"image={image}: the network does not take it: {why}") from cause
    writer = _Writer(snn, values, dt_s)
    for node in snn.graph.graph.nodes:
        writer.write(node)
    return nir.NIRGraph(*writer.needed(), metadata={"dt_s": dt_s})


class _Values:
    """What the nodes of the spiking graph give in the first step: forms, and how images enter."""

    def __init__(self, snn: SpikingNetwork, image: tuple[int, ...]) -> None:
        like = next(snn.parameters())
        noise = torch.rand(1, *image, generator=torch.Generator().manual_seed(0))
        self._black, self._white, self._noise = (
            self._run(snn, each.to(like))
            for each in (torch.zeros(1, *image), torch.ones(1, *image), noise)
        )
        self.image = image

    @staticmethod
    @torch.no_grad()
    def _run(snn: SpikingNetwork, images: Tensor) -> Mapping[fx.Node, Any]:
        interpreter = fx.Interpreter(snn.graph, garbage_collect_values=False)
        snn.reset()
        interpreter.run(images)
        snn.reset()
        return dict(interpreter.env)

    def is_tensor(self, node: fx.Node) -> bool:
        """Whether it gives a tensor, and no number or size."""
        return isinstance(self._black[node], Tensor)

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Of what it gives, without the batch."""
        return tuple(self._black[node].shape[1:])

    def of_pixels(self, node: fx.Node) -> tuple[_Array, _Array]:
        """Scale and shift of what arithmetic makes of each pixel on its own.

        Raises:
            ConversionError: if it is anything else.
        """
        shift = self._black[node]
        scale = self._white[node] - shift
        pixels = next(iter(self._noise.values()))  # the first node is the images
        if shift.shape != pixels.shape or not torch.allclose(
            self._noise[node], scale * pixels + shift, atol=1e-5
        ):
            raise ConversionError(f"{_label(node)}: NIR has no node for what it does to images")
        return _array(scale[0]), _array(shift[0])


@dataclass(frozen=True)
class _Signal:
    """What a node of the spiking graph is in NIR.

    Attributes:
        names: of the NIR nodes whose sum it is.
        binary: whether its values are 0 and 1.
    """

    names: tuple[str, ...]
    binary: bool = False


_INPUT, _OUTPUT = "input", "output"
"""What readers of NIR call the ends of a graph; no layer gets these names."""


class _Writer:
    def __init__(self, snn: SpikingNetwork, values: _Values, dt_s: float) -> None:
        self._graph, self._values, self._dt_s = snn.graph, values, dt_s
        self._labels: dict[nn.Module, str] = {unit.synapse: unit.name for unit in snn.units}
        self._labels |= {layer.neurons: f"{layer.name}.neurons" for layer in snn.layers}
        self._signals: dict[fx.Node, _Signal] = {}
        ends = {_INPUT: nir.Input({"input": np.array(values.image)}), _OUTPUT: None}
        self._nodes: dict[str, nir.NIRNode] = ends
        self._edges: list[tuple[str, str]] = []

    def needed(self) -> tuple[dict[str, nir.NIRNode], list[tuple[str, str]]]:
        """Nodes and edges from which a way leads to the output."""
        kept = {_OUTPUT}
        for source, target in reversed(self._edges):  # a node's edges come before those behind it
            if target in kept:
                kept.add(source)
        nodes = {name: node for name, node in self._nodes.items() if name in kept}
        return nodes, [edge for edge in self._edges if edge[1] in kept]

    def write(self, node: fx.Node) -> None:
        """Adds what this operation is in NIR; those before it are there."""
        module = self._graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        operation: Any = type(module) if module is not None else node.target
        operation = None if node.op == "get_attr" else operation  # a name of any kind
        below = [each for each in node.all_input_nodes if self._values.is_tensor(each)]
        of_spikes = any(each in self._signals and each.op != "placeholder" for each in below)
        if node.op == "placeholder":
            self._signals[node] = _Signal((_INPUT,), binary=True)
        elif node.op == "output":
            end = nir.Output({"output": np.array(self._values.shape(below[0]))})
            self._nodes[_OUTPUT] = end
            self._edges += [(source, _OUTPUT) for source in self._signal(below[0]).names]
        elif isinstance(module, Synapse):  # the last of its inputs drives it
            self._signals[node] = self._synapse(below[-1], module)
        elif isinstance(module, Neurons):
            label, shape = self._labels[module], self._values.shape(node)
            model = _neuron(module.neuron, shape, self._dt_s, label)
            self._signals[node] = self._add(label, model, self._signal(below[0]).names, binary=True)
        elif operation in _SAME_VALUES or is_identity(self._graph, node):
            self._signals[node] = self._same_values(node)
        elif operation in MAX_POOLS or operation in AVERAGE_POOLS:
            self._signals[node] = self._pool(node, module, largest=operation in MAX_POOLS)
        elif operation in _MISSING and self._values.is_tensor(node):
            raise ConversionError(f"{_label(node)}: NIR has no node for {_called(operation)}")
        elif not of_spikes or not self._values.is_tensor(node):
            return  # arithmetic of images alone, which what is behind it takes as a whole; a size
        elif operation is torch.add and len(below) == 2:
            self._signals[node] = _Signal(tuple(n for e in below for n in self._signal(e).names))
        elif (factor := factor_on(self._graph, node)) is not None:
            (drive,) = (each for each in below if each.op != "get_attr")
            self._signals[node] = self._scaled(node, drive, factor)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            self._signals[node] = self._normalized(node, module)
        elif operation is torch.zeros_like:  # no spikes, where biases are off
            self._signals[node] = self._scaled(node, below[0], 0.0)
        elif operation is torch.sub and len(below) == 2:
            minus = self._scaled(node, below[1], -1.0)
            self._signals[node] = _Signal((*self._signal(below[0]).names, *minus.names))
        else:
            raise ConversionError(f"{_label(node)}: NIR has no node for {_called(operation)}")

    def _signal(self, node: fx.Node) -> _Signal:
        """What a node is; arithmetic of images is scale * pixel + shift."""
        if node in self._signals:
            return self._signals[node]
        scale, shift = self._values.of_pixels(node)
        self._signals[node] = self._affine(node.name, (_INPUT,), scale, shift)
        return self._signals[node]

    @torch.no_grad()
    def _normalized(self, node: fx.Node, norm: nn.Module) -> _Signal:
        """A BatchNorm of what spikes stand for."""
        (below,) = node.all_input_nodes
        like = next(norm.buffers())
        silence = torch.zeros(1, *self._values.shape(node), dtype=like.dtype, device=like.device)
        shift = norm(silence)
        scale = norm(silence + 1) - shift
        names = self._signal(below).names
        return self._affine(_label(node), names, _array(scale[0]), _array(shift[0]))

    def _affine(self, name: str, sources: tuple[str, ...], scale: _Array, shift: _Array) -> _Signal:
        """`scale * x + shift` of each number; the constant is a threshold that always fires."""
        names = self._add(f"{name}.scale", nir.Scale(scale), sources).names
        if shift.any():
            always = nir.Threshold(np.full(shift.shape, -np.inf, np.float32))
            one = self._add(f"{name}.one", always, sources)
            names += self._add(f"{name}.shift", nir.Scale(shift), one.names).names
        return _Signal(names)

    def _scaled(self, node: fx.Node, below: fx.Node, factor: float) -> _Signal:
        scale = nir.Scale(np.full(self._values.shape(node), factor, np.float32))
        return self._add(node.name, scale, self._signal(below).names)

    def _synapse(self, drive: fx.Node, synapse: Synapse) -> _Signal:
        signal, size = self._signal(drive), self._values.shape(drive)[1:]
        label, operator = self._labels[synapse], synapse.operator
        weight = synapse.alpha * _array(synapse.weight)
        bias = None if synapse.bias is None else _array(synapse.bias).reshape(-1)
        if isinstance(operator, nn.Linear):
            if size:
                raise ConversionError(f"{label}: NIR has linear layers of one axis alone")
            linear = nir.Linear(weight) if bias is None else nir.Affine(weight, bias)
            return self._add(label, linear, signal.names)
        if not isinstance(operator, nn.Conv1d | nn.Conv2d):
            raise ConversionError(f"{label}: NIR has no node for {_called(type(operator))}")
        plane = isinstance(operator, nn.Conv2d)
        stride, padding, dilation = (
            each if plane or isinstance(each, str) else each[0]
            for each in (operator.stride, operator.padding, operator.dilation)
        )
        convolution = (nir.Conv2d if plane else nir.Conv1d)(
            input_shape=size if plane else size[0],
            weight=_dense(weight, operator.groups),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=1,
            bias=np.zeros(len(weight), np.float32) if bias is None else bias,
        )
        return self._add(label, convolution, signal.names)

    def _same_values(self, node: fx.Node) -> _Signal:
        (before, *_), shape = node.all_input_nodes, self._values.shape(node)
        signal, found = self._signal(before), self._values.shape(before)
        if shape == found:
            return signal
        if len(shape) != 1:
            raise ConversionError(f"{_label(node)}: NIR cannot bring {found} into the form {shape}")
        flat = nir.Flatten({"input": np.array(found)}, start_dim=0)
        return self._add(_label(node), flat, signal.names, binary=signal.binary)

    def _pool(self, node: fx.Node, module: nn.Module | None, *, largest: bool) -> _Signal:
        below, *_ = node.all_input_nodes  # a size may be the other
        signal, shapes = self._signal(below), [self._values.shape(each) for each in (below, node)]
        if largest and not signal.binary:
            raise ConversionError(f"{_label(node)}: NIR has a max-pool of spikes alone")
        kernel_stride_padding = geometry(node, module, *(shape[1:] for shape in shapes))
        pool = (nir.SumPool2d if largest else nir.AvgPool2d)(*map(np.array, kernel_stride_padding))
        pool.input_type, pool.output_type = (
            {key: np.array(shape)} for key, shape in zip(("input", "output"), shapes, strict=True)
        )
        if not largest:
            return self._add(_label(node), pool, signal.names)
        found = self._add(f"{_label(node)}.sum", pool, signal.names)
        some = nir.Threshold(np.full(shapes[1], 0.5, np.float32))
        return self._add(_label(node), some, found.names, binary=True)

    def _add(
        self, name: str, node: nir.NIRNode, sources: tuple[str, ...], *, binary: bool = False
    ) -> _Signal:
        name = name.replace("/", "_")  # which would be a folder in the file
        while name in self._nodes:
            name += "_"
        self._nodes[name] = node
        self._edges += [(source, name) for source in dict.fromkeys(sources)]
        return _Signal((name,), binary)


def _neuron(model: Neuron, shape: tuple[int, ...], dt_s: float, label: str) -> nir.NIRNode:
    """`v <- decay * v + current` is Euler's step of `tau v' = -v + r * current`, r = tau / dt."""
    if not isinstance(model, LIF | Leaky):
        raise ConfigError(f"{label}: {model!r} has no counterpart in NIR here; use LIF or Leaky")
    threshold = np.full(shape, model.threshold)
    if model.decay == 1:
        return nir.IF(r=np.full(shape, 1 / dt_s), v_threshold=threshold)
    tau = np.full(shape, dt_s / (1 - model.decay))
    return nir.LIF(tau=tau, r=tau / dt_s, v_leak=np.zeros(shape), v_threshold=threshold)


def _dense(weight: _Array, groups: int) -> _Array:
    """Weights (out, in / groups, ...) as (out, in, ...): zeros between the groups."""
    out, within = weight.shape[0] // groups, weight.shape[1]
    dense = np.zeros((weight.shape[0], within * groups, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        rows = slice(group * out, (group + 1) * out)
        dense[rows, group * within : (group + 1) * within] = weight[rows]
    return dense


def _array(tensor: Tensor) -> _Array:
    found: _Array = tensor.detach().cpu().float().numpy()
    return found


def _label(node: fx.Node) -> str:
    """The layer's name in the CNN, or what the graph calls a function."""
    return str(node.target) if node.op == "call_module" else str(node.name)


def _called(operation: object) -> str:
    return str(getattr(operation, "__name__", operation))
