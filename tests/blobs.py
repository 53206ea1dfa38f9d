"""A small network that has learnt something, with biases, padding and BatchNorm."""

import pytest
import torch
from torch import nn

LABELS = torch.arange(200) % 4


@pytest.fixture(scope="module")
def images():
    """Blobs at one of four places, which a small network tells apart after a moment's training."""
    images = torch.rand(200, 1, 12, 12, generator=torch.Generator().manual_seed(0)) * 0.2
    for index, image in enumerate(images):
        top, left = divmod(index % 4, 2)
        image[:, 6 * top + 1 : 6 * top + 5, 6 * left + 1 : 6 * left + 5] += 0.05
    return images


@pytest.fixture(scope="module")
def model(images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4),
        )  # fmt: skip
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(30):
            loss = nn.functional.cross_entropy(network(images), LABELS)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert (network.eval()(images).argmax(1) == LABELS).all()
    return network
