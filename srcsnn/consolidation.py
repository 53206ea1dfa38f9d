"""Sleep: the time loop in which noise replays, layers fire, and weights change (Algorithm 1)."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from converters import Neuron, Scale, SpikingNetwork, Unit, spiking_layers, to_ann, to_snn
from srcsnn.config import SleepConfig, load_config
from srcsnn.datasets import check_images
from srcsnn.errors import ConfigError, ConformanceError, SleepError
from srcsnn.memory import keep_freed
from srcsnn.models import check_takes
from srcsnn.neurons import LIF, NEURONS
from srcsnn.plasticity import Rule, plastic
from srcsnn.plugins import resolve
from srcsnn.rasters import (
    HDF5Recorder,
    LayerKind,
    LayerLayout,
    RasterLayout,
    RecordPolicy,
    estimate_bytes,
    open_raster,
)
from srcsnn.replay import PoissonMean, Replay
from srcsnn.report import Report, SpikeCounter, report_layer
from srcsnn.seeding import stream
from srcsnn.testing import check_neuron

__all__ = ["SleepResult", "prepare", "run", "sleep"]

_log = logging.getLogger(__name__)

INPUT = "input"
"""Name of the input in rasters."""


@dataclass(frozen=True)
class SleepResult:
    """What a sleep gives.

    Attributes:
        model: the same class of network, slept; everything but the slept weights is as before.
        report: per layer: firing rate, weight change, silent and saturated neurons; warnings.
        config: the settings it slept with.
        seed: of the input spikes.
        raster: the spike file, if one was recorded.
    """

    model: nn.Module
    report: Report
    config: SleepConfig
    seed: int
    raster: Path | None


def prepare(
    model: nn.Module,
    images: Tensor,
    config: str | Path | SleepConfig | Mapping[str, object],
    *,
    neuron: Neuron | Sequence[Neuron] | None = None,
    scales: Mapping[str, Scale] | None = None,
) -> SpikingNetwork:
    """The spiking network that would sleep with these settings.

    Args:
        model: a trained CNN.
        images: (N, C, H, W) in [0, 1]: training images, from which activations are measured.
        config: a name, a TOML file, or the settings, also as a dict.
        neuron: your own model or models in place of the configured one.
        scales: what `converters.measure` found in these images, if it was asked before.

    Raises:
        ConfigError: if there is not one threshold for each spiking layer.
        ConformanceError: if a neuron of your own is not what the network needs.
        DatasetError: if the images are not what the network takes.
        SleepError: if a weight is not finite.
        ConversionError: if the network cannot be converted.
    """
    config = load_config(config)
    check_images(images)
    check_takes(model, images)
    bad = [name for name, weights in model.named_parameters() if not weights.isfinite().all()]
    if bad:
        raise SleepError(f"weights are NaN or infinite before sleep: {', '.join(bad)}")
    own = neuron is not None or config.neuron not in NEURONS
    if neuron is None:
        names = spiking_layers(model, config.layers)
        if len(names) != len(config.thresholds):
            raise ConfigError(
                f"thresholds: {len(config.thresholds)} given for {len(names)} spiking layers "
                f"({', '.join(names)})"
            )
        make = resolve(config.neuron, NEURONS, "neuron", group="srcsnn.neurons")
        neuron = [make(threshold, config.decay) for threshold in config.thresholds]
    snn = to_snn(
        model,
        images if scales is None else scales,
        neuron=neuron,
        layers=config.layers,
        normalization=config.make_normalization(),
        coefficient=config.coefficient,
        bias=config.bias,
    )
    if own:
        _check_neurons(snn, tuple(images.shape[1:]))
    return snn


def _check_neurons(snn: SpikingNetwork, image: tuple[int, ...]) -> None:
    """Raises ConformanceError, with the layer's name, for models that are no neurons."""
    models = [layer.neurons.neuron for layer in snn.layers]
    for layer in snn.layers:  # shapes are found with one that is known to work
        layer.neurons.neuron = LIF(threshold=1.0, decay=0.0)
    shapes = snn.shapes(image)
    for layer, model in zip(snn.layers, models, strict=True):
        layer.neurons.neuron = model
        try:
            check_neuron(model, (1, *shapes[layer.name]))
        except ConformanceError as error:
            raise ConformanceError(f"{layer.name}: {error}") from error


def sleep(
    model: nn.Module,
    images: Tensor,
    config: str | Path | SleepConfig | Mapping[str, object],
    *,
    seed: int,
    raster: str | Path | None = None,
    record: RecordPolicy = RecordPolicy(),  # noqa: B008  # frozen
    overwrite: bool = False,
    provenance: Mapping[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
    neuron: Neuron | Sequence[Neuron] | None = None,
    rule: Rule | None = None,
    replay: Replay | None = None,
    scales: Mapping[str, Scale] | None = None,
) -> SleepResult:
    """Puts a trained CNN to sleep as a spiking network; gives back the CNN with changed weights.

    Args:
        model: a trained CNN; it is not changed.
        images: (N, C, H, W) in [0, 1]: the training images. Activations are measured on all of
            them, and the input spikes are shaped like their mean.
        config: a name such as "paper-mnist", a TOML file, a `SleepConfig`, or a dict.
        seed: of the input spikes. Same seed, same bits: with or without a raster, on any device
            that computes alike, with snnTorch's neuron or the fast one.
        raster: a file to stream the spikes of the input and every spiking layer to.
        record: what of them to keep.
        overwrite: whether an existing raster file may be replaced.
        provenance: what else to note in the raster file.
        progress: called with the steps done and the steps in all.
        neuron: your own neuron model, or one for each spiking layer.
        rule: your own rule in place of the configured `IncDec`.
        replay: your own source of input spikes in place of Poisson noise.
        scales: what `converters.measure` found in these images, for many sleeps of one network.

    Raises:
        ConfigError, ConformanceError, ConversionError, DatasetError, RasterError: as the parts that
            find fault.
        SleepError: if a weight is not finite in the end.
    """
    config = load_config(config)
    snn = prepare(model, images, config, neuron=neuron, scales=scales)
    if replay is None:
        replay = PoissonMean(
            images.mean(0).to(snn.units[0].synapse.weight),
            max_rate_hz=config.max_rate_hz,
            dt_s=config.dt_s,
            rate_factor=config.rate_factor,
        )
    before = {unit.name: unit.synapse.weight.detach().clone() for unit in snn.units}
    counter = SpikeCounter()
    recorder = None
    observers: list[Callable[[str, Tensor], None]] = []
    with _says_what_is_kept(raster), ExitStack() as files:
        if raster is not None:
            recorder = HDF5Recorder(raster, record, overwrite=overwrite, view=torch.from_numpy)
            files.enter_context(recorder)
            notes = {"config": config.model_dump(), "seed": seed} | dict(provenance or {})
            layout = _layout(snn, config, tuple(images.shape[1:]), notes)
            recorder.begin(layout)
            size = estimate_bytes(layout, record)
            _log.info("recording to %s: at most %.1f MB", raster, size / 1e6)
            observers.append(recorder.record)
        if recorder is None or not record.everything:
            observers.append(counter.see)
        started = time.perf_counter()
        run(
            snn,
            replay,
            rule or config.make_rule(),
            steps=config.steps,
            generator=stream(seed, "sleep"),
            observers=observers,
            progress=progress,
        )
        seconds = time.perf_counter() - started
    for unit in snn.units:
        if not torch.isfinite(unit.synapse.weight).all():
            raise SleepError(f"{unit.name}: weights are not finite after sleep; lower inc and dec")
    counts = counter.counts or _recorded(recorder)
    layers = tuple(
        report_layer(u, before[u.name], counts[u.layer.name] / config.steps, config.dt_s)
        for u in snn.units
    )
    return SleepResult(
        model=to_ann(snn, model),
        report=Report(layers, steps=config.steps, seconds=seconds),
        config=config,
        seed=seed,
        raster=Path(raster) if raster is not None else None,
    )


def _recorded(recorder: HDF5Recorder | None) -> dict[str, Tensor]:
    """Spikes of each neuron as `SpikeCounter` has them, from a recorder of everything."""
    totals = recorder.totals if recorder is not None else {}
    return {name: torch.from_numpy(n.astype(np.float32))[None] for name, n in totals.items()}


@contextmanager
def _says_what_is_kept(raster: str | Path | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if raster is not None and Path(raster).exists():
            with open_raster(raster) as kept:
                interrupt.add_note(
                    f"{raster} holds the spikes of {kept.steps_valid} of {kept.steps_planned} steps"
                )
        raise


@torch.inference_mode()
def run(
    snn: SpikingNetwork,
    replay: Replay,
    rule: Rule,
    *,
    steps: int,
    generator: torch.Generator,
    observers: Sequence[Callable[[str, Tensor], None]] = (),
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """The time loop: changes the weights of the network's sleeping units in place.

    Args:
        snn: a spiking network; all its neurons are reset before and after.
        replay: where input spikes come from.
        rule: how weights change.
        steps: number of time steps.
        generator: of the input spikes, on the CPU.
        observers: after every step each is called with a layer's name and its spikes (B, ...),
            "input" first, then every layer in network order. Tensors are made in inference mode.
        progress: called after every step with the steps done and the steps in all.
    """
    spikes: dict[str, Tensor] = {}
    keep_freed()
    snn.reset()
    with plastic(snn, rule), snn.observed(spikes.__setitem__):
        for step in range(steps):
            spikes[INPUT] = replay(step, generator)
            snn(spikes[INPUT])
            for observer in observers:
                for name, fired in spikes.items():
                    observer(name, fired)
            if progress is not None:
                progress(step + 1, steps)
    snn.reset()


def _layout(
    snn: SpikingNetwork, config: SleepConfig, image: tuple[int, ...], notes: dict[str, object]
) -> RasterLayout:
    shapes = snn.shapes(image)
    layers = [LayerLayout(INPUT, image, "input", threshold=None, decay=None)]
    for layer in snn.layers:
        neuron = layer.neurons.neuron
        layers.append(
            LayerLayout(
                layer.name,
                shapes[layer.name],
                _kind([unit for unit in snn.units if unit.layer is layer]),
                threshold=getattr(neuron, "threshold", None),
                decay=getattr(neuron, "decay", None),
            )
        )
    return RasterLayout(tuple(layers), config.steps, config.dt_s, notes)


def _kind(units: Sequence[Unit]) -> LayerKind:
    """What drives a layer: its first synapse, or shortcuts alone."""
    if not units:
        return "sum"
    return "linear" if isinstance(units[0].synapse.operator, nn.Linear) else "conv"
