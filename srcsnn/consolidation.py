"""Sleep: a trained CNN goes in, sleeps as a spiking network, and comes out with other weights."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from converters import Neuron, Scale, SpikingNetwork, Unit, measure, spiking_layers, to_ann, unslept
from srcsnn.automatic import settle
from srcsnn.config import AutoConfig, SleepConfig, load_settings
from srcsnn.errors import ConfigError, RasterError, SleepError
from srcsnn.files import check_target
from srcsnn.memory import give_back_freed
from srcsnn.night import INPUT, run
from srcsnn.plasticity import Rule
from srcsnn.preparation import check_before, check_rules, prepare, replay_for
from srcsnn.rasters import (
    HDF5Recorder,
    LayerKind,
    LayerLayout,
    RasterLayout,
    Recorder,
    RecordPolicy,
    estimate_bytes,
    open_raster,
)
from srcsnn.replay import Replay
from srcsnn.report import Report, SpikeCounter, report_layer
from srcsnn.seeding import stream

__all__ = ["SleepResult", "sleep"]

_log = logging.getLogger(__name__)


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


def sleep(
    model: nn.Module,
    images: Tensor,
    config: str | Path | SleepConfig | AutoConfig | Mapping[str, object] = "auto",
    *,
    seed: int,
    raster: str | Path | None = None,
    record: RecordPolicy = RecordPolicy(),  # noqa: B008  # frozen
    overwrite: bool = False,
    provenance: Mapping[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
    neuron: Neuron | Sequence[Neuron] | None = None,
    rule: Rule | Sequence[Rule] | None = None,
    replay: Replay | None = None,
    recorder: Recorder | None = None,
    scales: Mapping[str, Scale] | None = None,
) -> SleepResult:
    """Puts a trained CNN to sleep as a spiking network; gives back the CNN with changed weights.

    Args:
        model: a trained CNN; it is not changed.
        images: (N, C, H, W) in [0, 1]: the training images; for Conv1d (N, C, L), for Conv3d
            (N, C, D, H, W). Activations are measured on all of them, and the input spikes are
            shaped like their mean.
        config: a name such as "paper-mnist", a TOML file, a `SleepConfig`, or a dict; "auto" or an
            `AutoConfig` to have `settle` find the settings first.
        seed: of the input spikes. Same seed, same bits: with or without a raster, on any device
            that computes alike, with snnTorch's neuron or the fast one.
        raster: a file to stream the spikes of the input and every spiking layer to.
        record: what of them to keep.
        overwrite: whether an existing raster file may be replaced.
        provenance: what else to note in the raster file.
        progress: called with the steps done and the steps in all.
        neuron: your own neuron model, or one for each spiking layer.
        rule: your own rule in place of the configured `IncDec`, or one for each sleeping layer.
        replay: your own source of input spikes in place of Poisson noise.
        recorder: your own recorder, beside the raster file; it gets every step of every layer.
        scales: what `converters.measure` found in these images, for many sleeps of one network.

    Raises:
        ConfigError, ConformanceError, ConversionError, DatasetError, RasterError: as the parts that
            find fault.
        SleepError: if a weight is not finite in the end.
    """
    settings, settled = load_settings(config), None
    if raster is not None:  # before work that takes long
        check_target(raster, overwrite=overwrite, error=RasterError)
    if rule is not None:
        check_rules(rule)
    check_before(model, images)
    if raster is not None or recorder is not None:
        _check_names(spiking_layers(model, settings.layers, images), record)
    if isinstance(settings, AutoConfig):
        if not (neuron is None and rule is None and replay is None):
            raise ConfigError(
                "auto finds its numbers for the inc/dec rule, the mean image, and neurons by name "
                '(neuron = "module:attribute"); with objects of your own, give all settings'
            )
        if scales is None:  # once, for finding settings and for sleeping with them
            scales = measure(model, images, layers=settings.layers)
        settled = settle(model, images, settings, seed=seed, scales=scales)
        settings = settled.config
    snn = prepare(model, images, settings, neuron=neuron, scales=scales)
    if rule is None:
        rule = settings.make_rules([unit.name for unit in snn.sleeping])
    if replay is None:
        replay = replay_for(snn, settings, images.mean(0))
    notes = {"config": settings.model_dump(), "seed": seed} | dict(provenance or {})
    counter = SpikeCounter()
    file = None
    observers: list[Callable[[str, Tensor], None]] = []
    with _says_what_is_kept(raster), ExitStack() as files:
        if raster is not None or recorder is not None:
            layout = _layout(snn, settings, tuple(images.shape[1:]), notes)
        if raster is not None:
            file = HDF5Recorder(raster, record, overwrite=overwrite, view=torch.from_numpy)
            files.enter_context(file)
            file.begin(layout)
            size = estimate_bytes(layout, record)
            _log.info("recording to %s: at most %.1f MB", raster, size / 1e6)
            observers.append(file.record)
        if recorder is not None:
            recorder.begin(layout)
            # A copy: what somebody does to it must not change the night.
            observers.append(lambda name, spikes: recorder.record(name, spikes.clone()))
        if file is None or not record.everything:
            observers.append(counter.see)
        started = time.perf_counter()
        run(
            snn,
            replay,
            rule,
            steps=settings.steps,
            generator=stream(seed, "sleep"),
            observers=observers,
            progress=progress,
        )
        seconds = time.perf_counter() - started
    counts = counter.counts or _recorded(file)
    layers = tuple(
        report_layer(u, unslept(u, model), counts[u.layer.name] / settings.steps, settings.dt_s)
        for u in snn.units
    )
    give_back_freed()
    return SleepResult(
        model=_woken(snn, model),
        report=Report(
            layers,
            steps=settings.steps,
            seconds=seconds,
            choices=settled.choices if settled else (),
            misses=settled.warnings if settled else (),
        ),
        config=settings,
        seed=seed,
        raster=Path(raster) if raster is not None else None,
    )


def _check_names(layers: Sequence[str], record: RecordPolicy) -> None:
    """Raises unless layers of these names can be recorded, and the policy finds its own."""
    if INPUT in layers:
        raise RasterError(
            f"the network has a layer called {INPUT}, which is what the images are called in a "
            "raster; rename it, or record nothing"
        )
    for name in layers:
        LayerLayout(name, (1,), "conv")  # which finds fault with names
    record.select([INPUT, *layers])


def _woken(snn: SpikingNetwork, model: nn.Module) -> nn.Module:
    """The CNN with the weights of the network that slept, which is of no more use then."""
    slept = to_ann(snn, model, keep=False)
    for unit in snn.units:  # a BatchNorm's factor may be too small to divide by
        weight = slept.get_parameter(f"{unit.name}.weight")
        if not torch.isfinite(weight).all():
            raise SleepError(f"{unit.name}: weights are not finite after sleep; lower inc and dec")
    return slept


def _recorded(file: HDF5Recorder | None) -> dict[str, Tensor]:
    """Spikes of each neuron as `SpikeCounter` has them, from a recorder of everything."""
    totals = file.totals if file is not None else {}
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
    """What drives a layer: its first synapse, or no weights at all."""
    if not units:
        return "sum"
    return "linear" if isinstance(units[0].synapse.operator, nn.Linear) else "conv"
