"""Ratios of what a sleep costs to what its convolutions cost, all measured in one run.

    python -m tests.benchmarks

With SRCSNN_DATA set, training is compared with a loop over the pictures of the data sets, too.
The yardstick of a step is one `conv2d` and one `conv2d_weight` at the same shapes. Each figure is
the median over interleaved repetitions, so that a busy machine slows both sides alike.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.grad import conv2d_weight
from torch.utils.data import Dataset
from torchvision.models import resnet18

from converters import SpikingNetwork, listening, to_snn
from srcsnn.config import load_config
from srcsnn.consolidation import sleep
from srcsnn.distortions import default_distortions
from srcsnn.memory import images_at_once
from srcsnn.models import paper_cifar10, paper_mnist
from srcsnn.neurons import LIF
from srcsnn.night import run
from srcsnn.plasticity import IncDec
from srcsnn.rasters import HDF5Recorder, LayerLayout, RasterLayout
from srcsnn.replay import PoissonMean, Replay
from srcsnn.report import SpikeCounter
from srcsnn.robustness import evaluate
from srcsnn.seeding import stream
from srcsnn.training import train
from tests.benchmarks.plain import PROTOCOL, pictures, plain_epoch, tensors


def median_ratio(work: Callable[[], None], yardstick: Callable[[], None], repeats: int) -> float:
    """Median of work time over yardstick time, pair by pair, the first pair left out."""
    ratios = []
    for _ in range(repeats + 1):
        times = []
        for call in (work, yardstick):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios[1:])


def network(channels: list[int], size: int, padding: int, pool: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for below, above in pairwise(channels):
        layers += [nn.Conv2d(below, above, 3, padding=padding, bias=False), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers)


def sleeper(cnn: nn.Module, image: torch.Tensor) -> tuple[SpikingNetwork, PoissonMean]:
    snn = to_snn(cnn, image[None], neuron=LIF(1.0, 0.9), coefficient=2.0)
    return snn, PoissonMean(image, max_rate_hz=200.0, dt_s=0.001)


def nights(snn: SpikingNetwork, replay: Replay, steps: int, **options: object) -> None:
    generator = stream(0, "sleep")
    run(snn, replay, IncDec(1e-7, 1e-7), steps=steps, generator=generator, **options)  # type: ignore[arg-type]


def step_ratio(
    cnn: nn.Module, image: torch.Tensor, steps: int, repeats: int, *, drawn: bool = True
) -> float:
    """Of a step, with its noise drawn, or with spikes that are there as those of a layer are."""
    snn, replay = sleeper(cnn, image)
    noise = [replay(step, stream(step, "noise")) for step in range(8)]
    source = replay if drawn else lambda step, _: noise[step % len(noise)]
    shapes = snn.shapes(tuple(image.shape))
    pairs = []
    for unit in snn.units:
        conv, pre = unit.synapse.operator, []
        with listening(unit.synapse.listeners, pre.append):
            snn(image[None])
        post = torch.rand(1, *shapes[unit.layer.name])
        geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
        pairs.append((sparse(pre[0]), unit.synapse.weight.detach(), sparse(post), geometry))

    @torch.no_grad()
    def yardstick() -> None:
        for _ in range(steps):
            for pre, weight, post, geometry in pairs:
                F.conv2d(pre, weight, None, *geometry)
                conv2d_weight(pre, weight.shape, post, *geometry)

    return median_ratio(lambda: nights(snn, source, steps), yardstick, repeats)


def sparse(like: torch.Tensor) -> torch.Tensor:
    """Spikes of a tenth of such neurons."""
    return (torch.rand_like(like) < 0.1).float()


def recording_ratio(cnn: nn.Module, image: torch.Tensor, steps: int, repeats: int) -> float:
    snn, replay = sleeper(cnn, image)
    shapes = {"input": tuple(image.shape), **snn.shapes(tuple(image.shape))}
    layers = tuple(
        LayerLayout(name, shape, "input" if name == "input" else "conv")
        for name, shape in shapes.items()
    )

    with tempfile.TemporaryDirectory() as folder:

        def recorded() -> None:
            path = Path(folder) / "run.h5"
            with HDF5Recorder(path, overwrite=True, view=torch.from_numpy) as recorder:
                recorder.begin(RasterLayout(layers, steps, 0.001))
                nights(snn, replay, steps, observers=[recorder.record])

        def unrecorded() -> None:  # counted, as `sleep` does for its report without a raster
            nights(snn, replay, steps, observers=[SpikeCounter().see])

        return median_ratio(recorded, unrecorded, repeats)


def whole_ratio(
    settings: str, make: Callable[[], nn.Module], shape: tuple[int, ...], repeats: int
) -> float:
    """What a user waits for: `srcsnn.sleep`, with the activations of 10,000 images measured."""
    images = torch.rand(10_000, *shape, generator=torch.Generator().manual_seed(0))
    cnn = make()
    config = load_config(settings).with_changes(neuron="lif")

    with tempfile.TemporaryDirectory() as folder:

        def recorded() -> None:
            sleep(cnn, images, config, seed=0, raster=Path(folder) / "run.h5", overwrite=True)

        def unrecorded() -> None:
            sleep(cnn, images, config, seed=0)

        return median_ratio(recorded, unrecorded, repeats)


def training_ratio(
    make: Callable[[], nn.Module],
    shape: tuple[int, ...],
    read: Callable[[], Dataset[tuple[torch.Tensor, int]]],
    repeats: int,
) -> float:
    """A plain loop over these images over `train` over as many: how many times faster ours is.

    The plain loop has a process of its own: in this one, memory that is freed is kept.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as another:

        def plain() -> None:
            another.submit(plain_epoch, make, read, torch.get_num_threads()).result()

        def ours() -> None:
            train(make(), *tensors(shape).tensors, PROTOCOL, seed=0, precision="bfloat16")

        return median_ratio(plain, ours, repeats)


@torch.inference_mode()
def evaluation_ratio(make: Callable[[], nn.Module], shape: tuple[int, ...], repeats: int) -> float:
    """Plain inference over as many images, over `evaluate` with its distortions."""
    images, labels = torch.rand(1_000, *shape), torch.randint(0, 10, (1_000,))
    model = make().eval()
    cells = 1 + sum(len(d.levels) for d in default_distortions(shape[0]))

    def plain() -> None:
        for _ in range(cells):
            for batch in torch.split(images, images_at_once(images)):
                model(batch).argmax(1)

    return median_ratio(plain, lambda: drop(evaluate(model, images, labels)), repeats)


def drop(result: object) -> None:
    """For a call whose result is not wanted."""


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    digit = torch.rand(1, 28, 28, generator=generator)
    photo = torch.rand(3, 56, 56, generator=generator)
    deep = torch.rand(64, 56, 56, generator=generator)
    large = torch.rand(3, 224, 224, generator=generator)
    mnist = network([1, 10, 20], 28, padding=0, pool=True)
    wide = network([3, 64, 64], 56, padding=1, pool=False)
    alone = network([64, 64], 56, padding=1, pool=False)
    print(f"threads: {torch.get_num_threads()}")
    print("a step of sleep over its convolutions and their weight gradients")
    for name, cnn, image, steps, repeats, most in (
        ("MNIST network", mnist, digit, 200, 15, 2.5),
        ("3 to 64 to 64 at 56x56", wide, photo, 60, 15, 1.4),
        ("ResNet-18 at 224x224", resnet18().eval(), large, 5, 5, 1.5),
    ):
        print(f"  {name:34} {step_ratio(cnn, image, steps, repeats):.2f} (at most {most})")
    for name, drawn in (("64 to 64 at 56x56", False), ("the same, with noise for all 64", True)):
        ratio = step_ratio(alone, deep, 60, 15, drawn=drawn)
        print(f"  {name:34} {ratio:.2f} (at most 1.4)")
    papers = (
        ("MNIST", "paper-mnist", paper_mnist, (1, 28, 28)),
        ("CIFAR-10", "paper-cifar10", paper_cifar10, (3, 32, 32)),
    )
    print("recorded over the same without recording (at most 1.1)")
    for name, settings, make, shape in papers:
        print(
            f"  {name + ', the whole call of sleep':34} {whole_ratio(settings, make, shape, 5):.3f}"
        )
    print("  the time loop:")
    for name, cnn, image, steps in (
        ("MNIST network, 222 steps", mnist, digit, 222),
        ("MNIST network, 2,000 steps", mnist, digit, 2000),
        ("3 to 64 to 64 at 56x56, 100", wide, photo, 100),
    ):
        print(f"    {name:32} {recording_ratio(cnn, image, steps, 9):.3f}")
    print("ours over plain PyTorch, in speed (bfloat16 training: at least 2.5; evaluation: 0.8)")
    for name, _, make, shape in papers:
        print(f"  {name + ', evaluation':42} {evaluation_ratio(make, shape, 5):.2f}")
        sources = [("tensors", partial(tensors, shape)), ("pictures", partial(pictures, name))]
        for kind, read in sources if "SRCSNN_DATA" in os.environ else sources[:1]:
            row = f"{name}, training, a loop over {kind}"
            print(f"  {row:42} {training_ratio(make, shape, read, 5):.2f}")


if __name__ == "__main__":
    main()
