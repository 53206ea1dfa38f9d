"""The spiking network that would sleep with given settings."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from converters import Neuron, Scale, SpikingNetwork, spiking_layers, to_snn
from srcsnn.classifiers import check_takes
from srcsnn.config import SleepConfig, load_config
from srcsnn.datasets import check_images
from srcsnn.errors import ConfigError, ConformanceError, SleepError, SrcsnnError
from srcsnn.neurons import LIF, NEURONS
from srcsnn.plasticity import Rule
from srcsnn.plugins import resolve
from srcsnn.replay import PoissonMean
from srcsnn.testing import check_neuron
from srcsnn.testing.verdict import judging

__all__ = [
    "check_before", "check_neurons", "check_rules", "neuron_maker", "prepare", "replay_for",
]  # fmt: skip


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
    check_before(model, images)
    own = neuron is not None or config.neuron not in NEURONS
    if neuron is None:
        names = spiking_layers(model, config.layers, images)
        if len(names) != len(config.thresholds):
            raise ConfigError(
                f"thresholds: {len(config.thresholds)} given for {len(names)} spiking layers "
                f"({', '.join(names)})"
            )
        make = neuron_maker(config.neuron)
        neuron = [make(threshold, config.decay) for threshold in config.thresholds]
    snn = to_snn(
        model,
        images,
        neuron=neuron,
        layers=config.layers,
        normalization=config.make_normalization(),
        coefficient=config.coefficient,
        bias=config.bias,
        scales=scales,
    )
    if own:
        check_neurons(snn, tuple(images.shape[1:]))
    return snn


def replay_for(snn: SpikingNetwork, config: SleepConfig, image: Tensor) -> PoissonMean:
    """The configured noise, in the type and on the device of the network's weights.

    Args:
        snn: what will sleep.
        config: with the input rate.
        image: (C, H, W) in [0, 1], the mean training image.

    Raises:
        ConfigError: if a spike probability is above 1.
    """
    return config.make_replay(image.to(snn.units[0].synapse.weight))


def neuron_maker(name: str) -> Callable[[float, float], Neuron]:
    """What makes a neuron of a threshold and a decay, by its name in the settings.

    Raises:
        ConfigError: if there is no such thing, or it cannot be called, now or when it is.
    """
    make = resolve(name, NEURONS, "neuron", group="srcsnn.neurons")
    if not callable(make):
        raise ConfigError(
            f"neuron {name!r} is a {type(make).__name__}; right would be a class or function that "
            "makes a neuron of a threshold and a decay"
        )

    def made(threshold: float, decay: float) -> Neuron:
        try:
            found: Neuron = make(threshold, decay)
        except SrcsnnError:
            raise
        except Exception as cause:  # whatever the user's own code raises
            raise ConfigError(
                f"neuron {name!r}: calling it with a threshold and a decay failed with "
                f"{type(cause).__name__}: {cause}"
            ) from cause
        return found

    return made


def check_before(model: nn.Module, images: Tensor) -> None:
    """Raises DatasetError or SleepError unless this network can sleep on these images."""
    check_images(images, flat=False)
    empty = [name for name, each in model.named_parameters() if is_lazy(each) or each.is_meta]
    if empty:
        raise SleepError(
            f"weights without values: {', '.join(empty)}; run a batch through a network with lazy "
            "layers first, and load weights into one on the meta device"
        )
    check_takes(model, images)
    bad = [name for name, weights in model.named_parameters() if not weights.isfinite().all()]
    if bad:
        raise SleepError(f"weights are NaN or infinite before sleep: {', '.join(bad)}")


def check_rules(rule: Rule | Sequence[Rule]) -> None:
    """Raises ConformanceError for what is no rule; what one gives is seen when it is asked."""
    for each in rule if isinstance(rule, Sequence) else [rule]:
        with judging(each, "learning rule", "init", "update"):
            pass


def check_neurons(snn: SpikingNetwork, image: tuple[int, ...]) -> None:
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
