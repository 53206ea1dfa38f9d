"""Training by the paper's protocol, and fitting to clean images after sleep.

Training is plain SGD on the binary cross-entropy of one-hot targets.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srcsnn.classifiers import check_takes
from srcsnn.errors import ConfigError, DatasetError
from srcsnn.memory import keep_freed, quick_layout
from srcsnn.seeding import key, stream

__all__ = [
    "PROTOCOLS",
    "Precision",
    "Protocol",
    "fit_head",
    "fit_norms",
    "initialize",
    "is_fittable_norm",
    "train",
]

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

    Frozen parameters (`requires_grad` is false) stay as they are, and layers that have no others
    stay in eval mode, so that a BatchNorm keeps its statistics.

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
    if precision not in get_args(Precision):
        raise ConfigError(f"precision={precision!r}: use {' or '.join(get_args(Precision))}")
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=protocol.learning_rate, fused=True)
    schedule = (protocol.epochs, protocol.batch_size)
    frozen = [module for module in model.modules() if _is_frozen(module)]
    _fit(
        model, images, labels, optimizer, _one_hot_loss, schedule, seed, frozen, precision, progress
    )


def fit_head(
    model: nn.Module, images: Tensor, labels: Tensor, *, seed: int, epochs: int = 1
) -> nn.Module:
    """A copy whose linear layers are fitted to clean images; everything else stays as it is.

    Sleep changes what convolutions say, and this teaches the classifier behind them to hear it:
    the paper's feed-forward fitting (Section "Networks", FFF), but with Adam and cross-entropy,
    which also suit networks that were trained in another way than the paper's.

    Args:
        model: maps (B, C, H, W) to logits (B, classes); it is not changed.
        images: (N, C, H, W) in [0, 1]: training images.
        labels: (N,) class numbers.
        seed: of the order of the images and of dropout.
        epochs: passes over the images.

    Raises:
        ConfigError: if the network has no linear layer.
        DatasetError: if the images or labels do not fit the network.
    """
    fitted = copy.deepcopy(model).requires_grad_(False)
    if next(fitted.parameters()).dtype in (torch.float16, torch.bfloat16):
        fitted = fitted.float()  # in which small changes of weights are not rounded away
    linear = {n: module for n, module in fitted.named_modules() if isinstance(module, nn.Linear)}
    if not linear:
        raise ConfigError("the network has no linear layer, so there is no head to fit")
    for module in linear.values():
        module.requires_grad_(True)
    trained = [parameter for parameter in fitted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=2e-4)
    # A norm without weights too has statistics that are to stay.
    norms = nn.modules.batchnorm._NormBase
    kept = [each for each in fitted.modules() if _is_frozen(each) or isinstance(each, norms)]
    _fit(fitted, images, labels, optimizer, F.cross_entropy, (epochs, 64), seed, kept)
    result = copy.deepcopy(model)
    for name, module in linear.items():
        result.get_submodule(name).load_state_dict(module.state_dict())
    return result.eval()


@torch.no_grad()
def fit_norms(model: nn.Module, images: Tensor) -> nn.Module:
    """A copy whose BatchNorms have the statistics of these images; its weights stay as they are.

    Sleep changes what convolutions give, and a BatchNorm behind them goes on to take off the mean
    and variance of what they gave awake. Measured again in clean images, they undo much of what a
    night costs: what weight averaging does for its networks (Izmailov et al. 2018, Section 3.2).

    Args:
        model: maps (B, C, H, W) to logits; it is not changed.
        images: (N, C, H, W) in [0, 1]: training images.

    Raises:
        ConfigError: if the network has no BatchNorm with statistics.
        DatasetError: if the images do not fit the network, or are fewer than 2.
    """
    check_takes(model, images)
    if len(images) < 2:
        raise DatasetError(f"{len(images)} images: statistics are of 2 or more")
    norms = [name for name, each in model.named_modules() if is_fittable_norm(each)]
    if not norms:
        raise ConfigError("the network has no BatchNorm with statistics, so there is none to fit")
    measured = copy.deepcopy(model).eval()
    if next(measured.parameters()).dtype in (torch.float16, torch.bfloat16):
        measured = measured.float()  # in which many small shares add up
    like = next(measured.parameters())
    for name in norms:
        norm = measured.get_submodule(name)
        norm.reset_running_stats()  # type: ignore[operator]  # torch types it as a tensor
        norm.momentum = None  # type: ignore[assignment]  # which is the mean over all batches
        norm.training = True
    # All batches count the same, so they are to be of one size, as nearly as that goes.
    for batch in torch.tensor_split(images, -(-len(images) // 100)):
        measured(batch.to(like))
    result = copy.deepcopy(model)
    for name in norms:
        for statistic in ("running_mean", "running_var"):
            found = measured.get_submodule(name).get_buffer(statistic)
            result.get_submodule(name).get_buffer(statistic).copy_(found)
    return result.eval()


def is_fittable_norm(module: nn.Module) -> bool:
    """Whether this is a BatchNorm that has statistics of what it normalises."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None


def _is_frozen(module: nn.Module) -> bool:
    """Whether it has parameters of its own, and none of them is trained."""
    own = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
    return bool(own) and not any(own)


def _one_hot_loss(logits: Tensor, labels: Tensor) -> Tensor:
    targets = F.one_hot(labels, logits.shape[1]).float()
    return F.binary_cross_entropy_with_logits(logits, targets)


def _fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    schedule: tuple[int, int],
    seed: int,
    kept: Sequence[nn.Module],
    precision: Precision = "float32",
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """The loop of all training; the schedule is (epochs, images a step).

    The modules that are kept stay in eval mode.
    """
    check_takes(model, images, labels)
    like = next(model.parameters())
    device, dtype = like.device, like.dtype
    order = stream(seed, "order")
    half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    epochs, batch_size = schedule
    keep_freed()
    layout = quick_layout(model.eval(), images)
    with torch.random.fork_rng(devices=[]), _in_layout(model, layout, kept):
        torch.manual_seed(key(seed, "dropout") % 2**63)  # dropout takes no generator
        for epoch in range(1, epochs + 1):
            total = torch.zeros(())
            shuffled = torch.randperm(len(images), generator=order)
            for batch in torch.split(shuffled, batch_size):
                with half:
                    logits = model(images[batch].to(device, dtype, memory_format=layout))
                mistake = loss(logits.float(), labels[batch].to(device))
                optimizer.zero_grad(set_to_none=True)
                mistake.backward()  # type: ignore[no-untyped-call]  # torch
                optimizer.step()
                total += mistake.detach().cpu() * len(batch)
            progress(epoch, float(total) / len(images))


@contextmanager
def _in_layout(
    model: nn.Module, layout: torch.memory_format, kept: Sequence[nn.Module]
) -> Iterator[None]:
    """Inside this block the model trains in this layout; in the end it evaluates in the usual."""
    model.train().to(memory_format=layout)
    for module in kept:
        module.training = False  # its own mode alone: what is inside it may be trained
    try:
        yield
    finally:
        model.eval().to(memory_format=torch.contiguous_format)
