"""The training that ours is compared with; of a module that another process can import."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from srcsnn.training import Protocol

PROTOCOL = Protocol(epochs=1, learning_rate=0.01, batch_size=100)
COUNT = 4_000


@cache
def tensors(shape: tuple[int, ...]) -> TensorDataset:
    """Images of this shape that are tensors already."""
    return TensorDataset(torch.rand(COUNT, *shape), torch.randint(0, 10, (COUNT,)))


@cache
def pictures(name: str) -> "Dataset[tuple[torch.Tensor, int]]":
    """The data set itself, as torchvision reads it: a picture at a time."""
    from torchvision.datasets import MNIST, ImageFolder
    from torchvision.transforms import ToTensor

    root = Path(os.environ["SRCSNN_DATA"])
    read = {
        "MNIST": lambda: MNIST(str(root), transform=ToTensor()),
        "CIFAR-10": lambda: ImageFolder(str(root / "cifar10-jpeg" / "train"), ToTensor()),
    }
    dataset = read[name]()
    return Subset(dataset, range(0, len(dataset), len(dataset) // COUNT)[:COUNT])


def plain_epoch(
    make: Callable[[], nn.Module],
    read: "Callable[[], Dataset[tuple[torch.Tensor, int]]]",
    threads: int,
) -> None:
    """What one writes first: float32, a DataLoader, and torch's defaults."""
    torch.set_num_threads(threads)
    model = make().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=PROTOCOL.learning_rate)
    for batch, targets in DataLoader(read(), PROTOCOL.batch_size, shuffle=True):
        optimizer.zero_grad()
        one_hot = F.one_hot(targets, 10).float()
        F.binary_cross_entropy_with_logits(model(batch), one_hot).backward()
        optimizer.step()
