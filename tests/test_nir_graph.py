"""What is written in NIR is what sleeps: read again by NIR's own reader, it gives the same spikes.

The graph is run here by the equations of NIR's documentation, in steps of forward Euler.
"""

import nir
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock
from torchvision.transforms import Normalize

import srcsnn
from converters import ConversionError, to_snn
from srcsnn.errors import ConfigError
from srcsnn.models import paper_mnist
from srcsnn.neurons import LIF, Leaky
from srcsnn.nir_graph import to_nir
from srcsnn.training import initialize
from tests.blobs import images

__all__ = ["images"]  # fixture
DT = 0.002


class Simulator:
    """Runs a graph of NIR, one image at a time."""

    def __init__(self, graph):
        self.nodes, self.voltage = graph.nodes, {}
        self.below = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}

    def step(self, spikes):
        self.values = {"input": spikes.numpy()}
        return self.value("output")

    def value(self, name):
        if name not in self.values:
            self.values[name] = self.compute(name, sum(self.value(n) for n in self.below[name]))
        return self.values[name]

    def compute(self, name, x):
        node = self.nodes[name]
        match node:
            case nir.Output():
                return x
            case nir.LIF():
                change = DT / node.tau * (node.v_leak - self.voltage.get(name, 0) + node.r * x)
                return self.fire(name, node, change)
            case nir.IF():
                return self.fire(name, node, DT * node.r * x)
            case nir.Conv1d() | nir.Conv2d():
                convolve = F.conv2d if isinstance(node, nir.Conv2d) else F.conv1d
                weight, bias = torch.tensor(node.weight), torch.tensor(node.bias)
                stride, padding, dilation = (
                    each if isinstance(each, str) else tuple(map(int, np.atleast_1d(each)))
                    for each in (node.stride, node.padding, node.dilation)
                )
                x = torch.tensor(x, dtype=weight.dtype)[None]
                return convolve(x, weight, bias, stride, padding, dilation, node.groups)[0].numpy()
            case nir.Affine():
                return node.weight @ x + node.bias
            case nir.Linear():
                return node.weight @ x
            case nir.Scale():
                return node.scale * x
            case nir.Threshold():
                return (x > node.threshold).astype(np.float32)
            case nir.Flatten():
                return torch.tensor(x).flatten(node.start_dim, node.end_dim).numpy()
            case nir.SumPool2d() | nir.AvgPool2d():
                kernel, stride, pad = (tuple(map(int, each)) for each in
                                       (node.kernel_size, node.stride, node.padding))  # fmt: skip
                mean = F.avg_pool2d(torch.tensor(x, dtype=torch.float32)[None], kernel, stride, pad)
                area = kernel[0] * kernel[1] if isinstance(node, nir.SumPool2d) else 1
                return area * mean[0].numpy()
        raise AssertionError(node)

    def fire(self, name, node, change):
        voltage = self.voltage.get(name, 0) + change
        spikes = voltage > node.v_threshold
        self.voltage[name] = np.where(spikes, node.v_reset, voltage)
        return spikes.astype(np.float32)


def norm(channels):
    return Normalize([0.3] * channels, [0.5] * channels)


class Coloured(nn.Module):
    """Makes three channels of a grey image by subtracting three means."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1))
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return F.relu(self.conv(x - self.mean))


class Functional(nn.Module):
    """Everything by functions, normalised by buffers; layers with names that clash."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((1, 1, 1), 0.4))
        self.register_buffer("view", torch.full((1, 1, 1), 0.5))
        self.input = nn.Conv2d(1, 4, 3, padding=1)
        self.mul = nn.Conv2d(4, 4, 3, padding=1)
        self.add_module("x/y", nn.Conv2d(4, 4, 3, padding=1))
        self.output = nn.Linear(64, 5)

    def forward(self, x):
        x = F.avg_pool2d((x - self.mean) / self.view, 2, count_include_pad=False)
        x = F.relu(self.input(x))
        x = F.relu(self.mul(x) + x)
        x = F.max_pool2d(F.relu(self.get_submodule("x/y")(x) + x), 2, 1, 1, [1, 1])
        x = F.adaptive_avg_pool2d(F.avg_pool2d(x, 2, 1, 1), 4)
        return F.log_softmax(self.output(x.view(x.size(0), -1)), 1)


class Scaled(nn.Module):
    """Ways round with numbers on them, one of which the network holds."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.c, self.scale = nn.Conv2d(4, 3, 1), nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        x = F.relu(self.a(x))
        x = F.relu(torch.add(x / 2, self.b(x), alpha=0.5))
        return F.relu(self.c(F.relu(self.scale * x + F.avg_pool2d(x, 3, 1, 1) * 2)))


def batch_norm(channels):
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, -0.5, 1.5)
    nn.init.uniform_(norm.bias, -0.2, 0.3)
    norm.running_mean.fill_(0.2)
    return norm


NETWORKS = {
    "functional, with names that clash": (Functional, (1, 12, 12)),
    "flat and normalised": (
        lambda: nn.Sequential(
            norm(1), nn.Flatten(), nn.Linear(49, 30), nn.ReLU(), nn.Linear(30, 4)
        ),
        (1, 7, 7),
    ),
    "paper": (lambda: paper_mnist(), (1, 28, 28)),
    "normalised and padded": (
        lambda: nn.Sequential(
            norm(3), nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1),
            nn.Conv2d(6, 8, (3, 1), padding="same", groups=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 7), nn.ReLU(), nn.Linear(7, 3),
        ),
        (3, 12, 12),
    ),
    "residual": (
        lambda: nn.Sequential(
            norm(3), nn.Conv2d(3, 4, 3, stride=2, dilation=2, bias=False), nn.ReLU(),
            BasicBlock(4, 4), BasicBlock(4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(4, 3),
        ),
        (3, 15, 15),
    ),
    "BatchNorm behind ReLUs": (
        lambda: nn.Sequential(
            batch_norm(2), nn.Conv2d(2, 6, 3), nn.ReLU(), batch_norm(6), nn.AvgPool2d(2), nn.ReLU(),
            nn.Conv2d(6, 4, 3, padding=1), nn.ReLU(), batch_norm(4), nn.Flatten(),
            nn.Linear(64, 3),
        ),
        (2, 10, 10),
    ),
    "scaled": (Scaled, (2, 9, 9)),
    "in one dimension": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(40, 3)
        ),
        (2, 10),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("bias", "neuron", "dtype"),
    [
        ("scaled", LIF(0.3, 0.9), torch.float32),
        ("off", Leaky(0.4, 1.0), torch.float32),
        ("scaled", Leaky(0.4, 1.0), torch.float64),
    ],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_read_again_gives_the_same_spikes(name, bias, neuron, dtype, tmp_path):
    architecture, shape = NETWORKS[name]
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(20, *shape, generator=generator)
    network = initialize(architecture, 0).eval()
    network, images = network.to(dtype), images.to(dtype)
    snn = to_snn(network, images, neuron=neuron, layers="all", coefficient=2.0, bias=bias)
    with torch.no_grad():
        snn(images[:1].round())  # that it has gone a step changes nothing
    nir.write(tmp_path / "graph.nir", to_nir(snn, shape, dt_s=DT))
    graph = nir.read(tmp_path / "graph.nir")
    assert float(graph.metadata["dt_s"]) == DT
    simulator, seen, different, total = Simulator(graph), {}, 0, 0
    with snn.observed(lambda name, spikes: seen.update({f"{name}.neurons": spikes[0].numpy()})):
        for _ in range(60):
            spikes = (torch.rand(images[:1].shape, generator=generator) < 0.3).to(dtype)
            with torch.no_grad():
                snn(spikes)
            simulator.step(spikes[0].float())
            for layer, fired in seen.items():
                different += int((simulator.values[layer.replace("/", "_")] != fired).sum())
            total += sum(int(fired.sum()) for fired in seen.values())
    assert total > 100
    assert different == 0
    assert len(seen) == sum(isinstance(each, nir.LIF | nir.IF) for each in graph.nodes.values())


def test_sleep_is_seen_in_the_graph(images):
    network = initialize(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten()), 0)
    config = {"thresholds": [1.0], "steps": 1, "coefficient": 1, "inc": 0, "dec": 0,
              "decay": 0.9, "max_rate_hz": 100}  # fmt: skip
    snn = srcsnn.prepare(network, images, config)
    before = to_nir(snn, (1, 12, 12)).nodes["0"].weight
    snn.units[0].synapse.weight.data += 1
    after = to_nir(snn, (1, 12, 12)).nodes["0"].weight
    np.testing.assert_allclose(after - before, snn.units[0].alpha, rtol=1e-4)


@pytest.mark.parametrize(
    ("layers", "complaint"),
    [
        ([nn.MaxPool2d(2, ceil_mode=True)], r"have no ceil_mode"),
        ([nn.MaxPool2d(2, dilation=2)], r"have no dilation"),
        ([nn.AvgPool2d(3, padding=1, count_include_pad=False)], r"have no count_include_pad"),
        ([nn.AdaptiveAvgPool2d(4)], r"no pool from \(10, 10\) to \(4, 4\)"),
        ([nn.AvgPool2d(2), nn.MaxPool2d(2)], r"^3: NIR has a max-pool of spikes alone"),
        ([nn.Flatten(2), nn.Unflatten(2, (5, 20))], r"cannot bring \(4, 10, 10\) into"),
        ([nn.Upsample(20)], "^2: NIR has no node for Upsample"),
        ([nn.ChannelShuffle(2)], "^2: NIR has no node for ChannelShuffle"),
    ],
)
def test_what_nir_lacks_is_named(layers, complaint, images):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *layers, nn.Conv2d(4, 2, 1), nn.ReLU())
    snn = to_snn(network, images, neuron=LIF(1.0, 0.9))
    with pytest.raises(ConversionError, match=complaint):
        to_nir(snn, (1, 12, 12))


def test_what_cannot_be_asked_is_refused(images):
    snn = to_snn(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), images, neuron=LIF(1.0, 0.9))
    for shape in (12, 12), (3, 12, 12), (1, 1, 12, 12):
        with pytest.raises(ConfigError, match="the network does not take it"):
            to_nir(snn, shape)
    with pytest.raises(ConfigError, match="dt_s=0: must be above 0"):
        to_nir(snn, (1, 12, 12), dt_s=0)
    wide = nn.Sequential(nn.Linear(12, 4), nn.ReLU())
    snn = to_snn(wide, images, neuron=LIF(1.0, 0.9), layers="all")
    with pytest.raises(ConversionError, match="0: NIR has linear layers of one axis alone"):
        to_nir(snn, (1, 12, 12))
    snn = to_snn(initialize(Coloured, 0), images, neuron=LIF(1.0, 0.9))
    with pytest.raises(ConversionError, match="NIR has no node for what it does to images"):
        to_nir(snn, (1, 12, 12))


@pytest.mark.parametrize(
    "rearrange",
    [lambda x: x.transpose(2, 3), lambda x: x.repeat(1, 1, 2, 1), nn.ZeroPad2d((0, 1, 0, 1))],
)
def test_images_that_are_rearranged_are_named(images, rearrange):
    class Rearranged(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.rearrange = nn.Conv2d(1, 2, 3), rearrange

        def forward(self, x):
            return self.conv(self.rearrange(x)).relu()

    snn = to_snn(initialize(Rearranged, 0), images, neuron=LIF(1.0, 0.9))
    with pytest.raises(ConversionError, match="NIR has no node for"):
        to_nir(snn, (1, 12, 12))


def test_concatenation_and_strange_neurons_are_named(images):
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3), nn.Conv2d(4, 2, 3)

        def forward(self, x):
            return self.c(torch.cat([self.a(x).relu(), self.b(x).relu()], 1)).relu()

    snn = to_snn(initialize(Joined, 0), images, neuron=LIF(1.0, 0.9))
    with pytest.raises(ConversionError, match="NIR has no node for cat"):
        to_nir(snn, (1, 12, 12))
    snn = to_snn(initialize(paper_mnist, 0), torch.rand(3, 1, 28, 28), neuron=Slow())
    with pytest.raises(ConfigError, match=r"conv1.neurons: Slow\(\) has no counterpart"):
        to_nir(snn, (1, 28, 28))


class Slow(srcsnn.SnnTorch):
    def __init__(self):
        import snntorch

        super().__init__(snntorch.Lapicque(beta=0.9, threshold=1.0, reset_mechanism="zero"))

    def __repr__(self):
        return "Slow()"
