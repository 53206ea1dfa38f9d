"""The convolutional networks of the paper (Delanois et al. 2023, Table I)."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from srcsnn.errors import ConfigError
from srcsnn.plugins import resolve

__all__ = ["ARCHITECTURES", "PaperCNN", "make_model", "paper_cifar10", "paper_mnist"]


class PaperCNN(nn.Module):
    """Two 3x3 convolutions, each with ReLU and 2x2 max-pooling, and two linear layers. No biases.

    Args:
        channels: channels of the input and of the two convolutions.
        features: inputs, hidden units and outputs of the feed-forward part.
        dropout: share of the hidden units dropped in training.
    """

    def __init__(
        self, channels: tuple[int, int, int], features: tuple[int, int, int], dropout: float
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels[0], channels[1], kernel_size=3, bias=False)
        self.conv2 = nn.Conv2d(channels[1], channels[2], kernel_size=3, bias=False)
        self.fc1 = nn.Linear(features[0], features[1], bias=False)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(features[1], features[2], bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W) in [0, 1]."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc2(self.dropout(x))
        return logits


def paper_mnist() -> PaperCNN:
    """The paper's network for 28x28 images in grey (Table I).

    >>> sum(weights.numel() for weights in paper_mnist().parameters())
    34530
    """
    return PaperCNN(channels=(1, 10, 20), features=(500, 64, 10), dropout=0.5)


def paper_cifar10() -> PaperCNN:
    """The paper's network for 32x32 images in colour (Table I)."""
    return PaperCNN(channels=(3, 50, 50), features=(1800, 1200, 10), dropout=0.3)


ARCHITECTURES: Mapping[str, Callable[[], nn.Module]] = {
    "paper-mnist": paper_mnist,
    "paper-cifar10": paper_cifar10,
}
"""Built-in networks by the name that `--arch` takes."""


def make_model(name: str) -> nn.Module:
    """A network with initial weights, by a built-in name or `package.module:callable`.

    Raises:
        ConfigError: if there is no such thing, or calling it without arguments gives no network.
    """
    make = resolve(name, ARCHITECTURES, "architecture")
    if not callable(make):
        raise ConfigError(f"architecture {name!r} is a {type(make).__name__}, not a callable")
    try:
        model = make()
    except Exception as cause:  # whatever the user's own code raises
        raise ConfigError(
            f"architecture {name!r}: calling it without arguments failed with "
            f"{type(cause).__name__}: {cause}"
        ) from cause
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"architecture {name!r} gave a {type(model).__name__}; a torch.nn.Module is needed"
        )
    if lazy := [key for key, weights in model.named_parameters() if is_lazy(weights)]:
        raise ConfigError(
            f"architecture {name!r} has lazy layers, whose weights have no shape yet: "
            f"{', '.join(lazy)}; let it run a batch through them before it returns"
        )
    return model
