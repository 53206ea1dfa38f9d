"""The geometry of convolutional and linear synapses: which pre neuron meets which post neuron.

A rule asks for weight-shaped counts and never sees kernels, strides or padding. The count of
coincidences, summed over all positions, is the weight gradient of the layer: one correlation, at
about the price of the forward convolution.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConvSynapse", "LinearSynapse", "Synapse", "parts_of", "synapse_of"]

_PART = 2**20
"""Weights whose change is computed at once: little memory, and enough of them to be fast."""


class Synapse(Protocol):
    """What a local rule may know. Counts are float32 at least, whole where pre is."""

    @property
    def weight(self) -> Tensor:
        """The weights as they are now, in the CNN's units; not to be written to."""

    def hits(self, pre: Tensor, post: Tensor) -> Tensor:
        """How often pre and post spiked together, of the weight's shape.

        Args:
            pre: (B, ...) in [0, 1]; a share of a pool counts as that share of a spike, and a trace
                of spikes as what is left of it.
            post: (B, ...) in {0, 1}, or a trace likewise.
        """

    def pairs(self, pre: Tensor, post: Tensor) -> Tensor:
        """How often post spiked with a pre neuron there at all, spiking or silent.

        Broadcastable to the weight's shape. Padding is no neuron: where the kernel reaches outside
        the image there is no pair. Only the shape of `pre` counts.
        """


class LinearSynapse:
    """Every post neuron (out) meets every pre neuron (in); weight (out, in).

    Args:
        linear: the layer.
        outputs: which of its post neurons.
    """

    def __init__(self, linear: nn.Linear, outputs: slice = slice(None)) -> None:
        self.weight = linear.weight.detach()[outputs]  # the same memory

    def hits(self, pre: Tensor, post: Tensor) -> Tensor:
        """See `Synapse.hits`; pre (B, ..., in), post (B, ..., out)."""
        return _counting(post).flatten(0, -2).T @ _counting(pre).flatten(0, -2)

    def pairs(self, pre: Tensor, post: Tensor) -> Tensor:
        """See `Synapse.pairs`; (out, 1)."""
        return _counting(post).flatten(0, -2).sum(0).unsqueeze(1)


class ConvSynapse:
    """A kernel that slides over the image; weight (out, in / groups, *kernel).

    Args:
        conv: any Conv1d, Conv2d or Conv3d with zero padding.
        outputs: which of its output channels; all if they are in groups.
    """

    def __init__(
        self, conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, outputs: slice = slice(None)
    ) -> None:
        self.weight = conv.weight.detach()[outputs]  # the same memory
        self.kernel_size, self.stride = conv.kernel_size, conv.stride
        self.dilation, self.groups = conv.dilation, conv.groups
        none = (0,) * len(self.stride)
        reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        self._margins: list[int] = []
        if conv.padding == "same":
            # torch puts the odd one at the end, which `padding` cannot say: padded by hand.
            self.padding: tuple[int, ...] = none
            self._before: tuple[int, ...] = tuple(r // 2 for r in reach)
            self._margins = [m for r in reversed(reach) for m in (r // 2, r - r // 2)]
        else:
            # mypy: no string is left but "valid", which it does not see.
            self.padding = none if conv.padding == "valid" else tuple(conv.padding)  # type: ignore[arg-type]
            self._before = self.padding
        self._all_but_channels = (0, *range(2, 2 + len(reach)))
        self._padded = any(self.padding) or any(self._margins)
        self._there: dict[tuple[torch.Size, torch.dtype, torch.device], list[Tensor]] = {}

    def hits(self, pre: Tensor, post: Tensor) -> Tensor:
        """See `Synapse.hits`; pre (B, in, *image), post (B, out, *positions)."""
        pre, post = _counting(pre), _counting(post)
        if self._margins:
            pre = F.pad(pre, self._margins)
        # What torch.nn.grad.conv*d_weight calls; those hand over a stand-in for the weights that
        # takes longer to lay out in memory than a small layer takes to correlate.
        counts: Tensor
        _, counts, _ = torch.ops.aten.convolution_backward(
            post,
            pre,
            self.weight.to(post.dtype),  # only its shape counts
            bias_sizes=None,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            transposed=False,
            output_padding=(0,) * len(self.stride),
            groups=self.groups,
            output_mask=(False, True, False),
        )
        return counts

    def pairs(self, pre: Tensor, post: Tensor) -> Tensor:
        """See `Synapse.pairs`; (out, 1, *kernel), or (out, 1, 1, ...) without padding."""
        post = _counting(post)
        if not self._padded:
            return post.sum(self._all_but_channels, keepdim=True).transpose(0, 1)
        # Whether a kernel's weight meets the image or the padding is decided axis by axis: each
        # product takes the last axis, of positions, away and puts the kernel's in front.
        counts = post
        for there in reversed(self._inside(pre.shape[2:], counts)):
            counts = (there @ counts.flatten(0, -2).T).view(-1, *counts.shape[:-1])
        return counts.sum(-2).movedim(-1, 0).unsqueeze(1)

    def _inside(self, image: torch.Size, like: Tensor) -> list[Tensor]:
        """For each axis, (kernel, positions): 1 where that weight lies on the image, else 0."""
        key = (image, like.dtype, like.device)
        if key not in self._there:
            self._there[key] = []
            for axis, size in enumerate(image):
                first = torch.arange(like.shape[2 + axis]) * self.stride[axis] - self._before[axis]
                offset = torch.arange(self.kernel_size[axis]) * self.dilation[axis]
                where = first + offset[:, None]
                self._there[key].append(((where >= 0) & (where < size)).to(like))
        return self._there[key]


def synapse_of(layer: nn.Module, outputs: slice = slice(None)) -> Synapse:
    """The geometry of a convolution or linear layer, or of some of its outputs."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return ConvSynapse(layer, outputs)
    assert isinstance(layer, nn.Linear), type(layer)  # conversion lets nothing else through
    return LinearSynapse(layer, outputs)


def parts_of(layer: nn.Module) -> list[Synapse]:
    """The geometry of a layer cut into parts of some outputs each, if it is large and not grouped.

    A rule that asks one part after the other takes the memory of one.
    """
    # mypy: torch types what a module holds as a tensor or a module.
    outputs, weights = len(layer.weight), layer.weight.numel()  # type: ignore[arg-type,operator]
    height = outputs if getattr(layer, "groups", 1) > 1 else max(1, outputs * _PART // weights)
    return [synapse_of(layer, slice(first, first + height)) for first in range(0, outputs, height)]


def _counting(spikes: Tensor) -> Tensor:
    """In a type that counts exactly to 2**24: half precision stops at 2048, bfloat16 at 256."""
    return spikes if spikes.dtype.itemsize >= 4 else spikes.float()
