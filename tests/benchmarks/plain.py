"""The training that ours is compared with; of a module that another process can import."""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from srcsnn.training import Protocol

PROTOCOL = Protocol(epochs=1, learning_rate=0.01, batch_size=100)


@cache
def examples(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(4_000, *shape), torch.randint(0, 10, (4_000,))


def plain_epoch(make: Callable[[], nn.Module], shape: tuple[int, ...], threads: int) -> None:
    """What one writes first: float32, a DataLoader, and torch's defaults."""
    torch.set_num_threads(threads)
    model = make().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=PROTOCOL.learning_rate)
    for batch, targets in DataLoader(
        TensorDataset(*examples(shape)), PROTOCOL.batch_size, shuffle=True
    ):
        optimizer.zero_grad()
        one_hot = F.one_hot(targets, 10).float()
        F.binary_cross_entropy_with_logits(model(batch), one_hot).backward()
        optimizer.step()
