"""The paper's training: plain SGD on the binary cross-entropy of one-hot targets."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srcsnn.errors import ConfigError
from srcsnn.memory import keep_freed, quick_layout
from srcsnn.models import check_takes
from srcsnn.seeding import key, stream

__all__ = ["PROTOCOLS", "Precision", "Protocol", "initialize", "train"]

Precision = Literal["float32", "bfloat16"]
"""What convolutions and linear layers are computed in while training; weights are float32."""


@dataclass(frozen=True)
class Protocol:
    """How long and how fast to train.

    Args:
        epochs: passes over the training images.
        learning_rate: of plain SGD, without momentum or decay.
        batch_size: images a step.
    """

    epochs: int
    learning_rate: float
    batch_size: int


PROTOCOLS: Mapping[str, Protocol] = {
    "paper-mnist": Protocol(epochs=50, learning_rate=0.01, batch_size=64),
    "paper-cifar10": Protocol(epochs=50, learning_rate=0.3, batch_size=100),
    "digits": Protocol(epochs=80, learning_rate=0.1, batch_size=16),
}
"""By name. Epochs and rates of the paper's networks are the paper's (Section "Networks"); the batch
size, which it does not print, is ours: both networks reach the paper's clean accuracy with it."""


def initialize(architecture: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network with torch's default initial weights, drawn for this seed.

    torch's initialisers know only the global generator; it is put back as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "weights") % 2**63)
        return architecture()


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    *,
    seed: int,
    precision: Precision = "float32",
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Trains the network in place and leaves it in eval mode.

    Args:
        model: maps (B, C, H, W) to logits (B, classes).
        images: (N, C, H, W) in [0, 1].
        labels: (N,) class numbers.
        protocol: epochs, learning rate, batch size.
        seed: of the order of the images and of dropout.
        precision: "bfloat16" computes by torch's autocast, faster where the processor can.
        progress: called after each epoch with its number, from 1, and its mean loss.

    Raises:
        ConfigError: for a precision that there is not.
        DatasetError: if the images or labels do not fit the network.
    """
    check_takes(model, images, labels)
    device = next(model.parameters()).device
    if precision not in get_args(Precision):
        raise ConfigError(f"precision={precision!r}: use {' or '.join(get_args(Precision))}")
    keep_freed()
    optimizer = torch.optim.SGD(model.parameters(), lr=protocol.learning_rate, fused=True)
    order = stream(seed, "order")
    half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    layout = quick_layout(model.eval(), images)
    with torch.random.fork_rng(devices=[]), _in_layout(model, layout):
        torch.manual_seed(key(seed, "dropout") % 2**63)  # dropout takes no generator
        for epoch in range(1, protocol.epochs + 1):
            total = torch.zeros(())
            shuffled = torch.randperm(len(images), generator=order)
            for batch in torch.split(shuffled, protocol.batch_size):
                with half:
                    logits = model(images[batch].to(device, memory_format=layout))
                targets = F.one_hot(labels[batch].to(device), logits.shape[1]).float()
                loss = F.binary_cross_entropy_with_logits(logits.float(), targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]  # torch
                optimizer.step()
                total += loss.detach().cpu() * len(batch)
            progress(epoch, float(total) / len(images))


@contextmanager
def _in_layout(model: nn.Module, layout: torch.memory_format) -> Iterator[None]:
    """Inside this block the model trains in this layout; in the end it evaluates in the usual."""
    model.train().to(memory_format=layout)
    try:
        yield
    finally:
        model.eval().to(memory_format=torch.contiguous_format)
