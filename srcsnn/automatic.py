"""Sleep without hand-set numbers: settings found in the network itself, from a rate and a dose."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from converters import Layer, Scale, SpikingNetwork, measure, to_ann, to_snn, unslept
from srcsnn.classifiers import evaluating, scores_of
from srcsnn.config import AutoConfig, SleepConfig
from srcsnn.errors import DatasetError, SrcsnnError
from srcsnn.memory import images_at_once
from srcsnn.neurons import Neuron
from srcsnn.night import run
from srcsnn.plasticity import IncDec, Rule
from srcsnn.preparation import check_before, neuron_maker
from srcsnn.replay import PoissonMean, Replay
from srcsnn.seeding import stream
from srcsnn.synapses import Synapse

__all__ = ["Settled", "settle"]

_CALIBRATION_STEPS = 50
_SAMPLE = 20_000
"""Neurons of a layer whose rate stands for the layer's."""
_PATIENCE = 4
"""How many times as long as planned a night on trial may take to reach its dose."""
_HALVINGS = 12
_WATCHED = 1000
"""Training images whose classes are to be kept."""


@dataclass(frozen=True)
class Settled:
    """Settings that were found, and what they reach.

    Attributes:
        config: all of them, explicit: sleep with these and the same seed gives the same bits.
        auto: what was to be reached.
        rates: spikes per neuron and step of each layer, before anything is learnt.
        unmoved: names of the layers whose weights nothing changes.
        dose: relative change of the weights that was aimed at in the end, as in `AutoConfig`.
        reached: share of it that was reached, the root mean square over the layers that sleep.
        kept: share of the watched training images that keep their class; None if none was watched.
        kept_shifted: the same of these images shifted by a pixel.
    """

    config: SleepConfig
    auto: AutoConfig
    rates: Mapping[str, float]
    unmoved: tuple[str, ...]
    dose: float
    reached: float
    kept: float | None
    kept_shifted: float | None

    @property
    def choices(self) -> tuple[str, ...]:
        """In words, what was chosen."""
        thresholds = zip(self.rates.items(), self.config.thresholds, strict=True)
        found = [
            f"{name}: threshold {threshold:.4g}, at which it fires {rate:.4f} times a step"
            for (name, rate), threshold in thresholds
        ]
        found.append(f"dose {self.dose:.3g}: {self.reached:.0%} of it in {self.config.steps} steps")
        if self.kept is not None:
            found.append(
                f"{self.kept:.1%} of the training images keep their class, {self.kept_shifted:.1%} "
                "shifted by a pixel"
            )
        return tuple(found)

    @property
    def warnings(self) -> tuple[str, ...]:
        """In words, what was not reached."""
        auto = self.auto
        found = [
            f"{name}: fires {rate:.4f} times a step at the best threshold found, not {auto.rate:g}"
            for name, rate in self.rates.items()
            if abs(rate / auto.rate - 1) > auto.tolerance
        ]
        found += [f"{name}: nothing drives a change of its weights" for name in self.unmoved]
        if self.reached < 1:
            found.append(f"the dose was not reached, but {self.reached:.0%} of it")
        for kept, wanted, which in (
            (self.kept, auto.keep, ""),
            (self.kept_shifted, auto.keep_shifted, ", shifted by a pixel,"),
        ):
            if kept is not None and kept < wanted:
                found.append(
                    f"only {kept:.1%} of the training images{which} keep their class, even at this "
                    "dose; the network is very sensitive to its weights"
                )
        return tuple(found)


def settle(
    model: nn.Module,
    images: Tensor,
    auto: AutoConfig,
    *,
    seed: int,
    scales: Mapping[str, Scale] | None = None,
) -> Settled:
    """Settings of a sleep that reaches a rate and a dose in this network.

    First the threshold of each layer, from the input up: such that its neurons fire at the target
    rate while the mean image is replayed and nothing learns. Then inc and dec of each layer, from
    the drift of its weights in such a replay: such that each reaches its dose. Then the number of
    steps: a night on trial ends at the dose, and is repeated with half the dose while too many
    training images change their class.

    Args:
        model: a trained CNN; it is not changed.
        images: (N, C, H, W) in [0, 1]: the training images.
        auto: what to reach.
        seed: of the night that follows; the thresholds are found with other spikes of it.
        scales: what `converters.measure` found in these images, if it was asked before.

    Raises:
        ConfigError, ConversionError, DatasetError, SleepError: as `prepare`.
        SrcsnnError: if classes are to be kept and the network gives no scores (images, classes).
    """
    check_before(model, images)
    make = neuron_maker(auto.neuron)
    watched = _Watched(model, images, seed) if auto.keep else None
    image = images.mean(0)
    scales = measure(model, images, layers=auto.layers) if scales is None else scales

    def network(thresholds: Sequence[float]) -> SpikingNetwork:
        neurons = [make(threshold, auto.decay) for threshold in thresholds]
        one_or_each = neurons[0] if len(neurons) == 1 else neurons
        return to_snn(model, scales, neuron=one_or_each, layers=auto.layers, bias=auto.bias)

    def night(config: SleepConfig, doses: Sequence[float]) -> tuple[int, float, float, float]:
        snn = network(config.thresholds)
        steps, reached = _trial_night(snn, model, config, doses, image, seed)
        return steps, reached, *(watched.kept(to_ann(snn, model)) if watched else (1.0, 1.0))

    found = _calibrate(network([1.0]), auto, make, image, seed)
    for halving in range(_HALVINGS):
        dose = auto.dose / 2**halving
        doses = _doses(dose, auto.tilt, len(found.drift))
        strengths = [
            own / (each * auto.steps) if each else 0.0
            for own, each in zip(doses, found.drift.values(), strict=True)
        ]
        config = found.config.with_changes(
            inc=[(1 - auto.dec_share) * each for each in strengths],
            dec=[auto.dec_share * each for each in strengths],
        )
        steps, reached, kept, kept_shifted = night(config, doses)
        if watched is None or (kept >= auto.keep and kept_shifted >= auto.keep_shifted):
            break
    return Settled(
        config.with_changes(steps=steps),
        auto,
        rates=found.rates,
        unmoved=tuple(name for name, each in found.drift.items() if not each),
        dose=dose,
        reached=reached,
        kept=kept if watched else None,
        kept_shifted=kept_shifted if watched else None,
    )


@dataclass(frozen=True)
class _Calibration:
    """What is known of a network when nothing has been learnt yet.

    Attributes:
        config: with thresholds, without inc and dec.
        rates: spikes per neuron and step of each layer.
        drift: relative change in a step of each layer that sleeps, if inc + dec were 1.
    """

    config: SleepConfig
    rates: dict[str, float]
    drift: dict[str, float]


def _calibrate(
    snn: SpikingNetwork,
    auto: AutoConfig,
    make: Callable[[float, float], Neuron],
    image: Tensor,
    seed: int,
) -> _Calibration:
    config = _undosed(auto, image, len(snn.layers))
    replay = _replay(snn, config, image)
    thresholds, rates = [], {}
    for layer in snn.layers:  # from the input up, as a layer's currents are spikes of those below
        currents = _currents(snn, layer, replay, stream(seed, "calibration"))
        threshold, rates[layer.name] = _bisect(currents, make, auto)
        layer.neurons.neuron = make(threshold, auto.decay)
        thresholds.append(threshold)
    config = config.with_changes(thresholds=thresholds)
    return _Calibration(config, rates, _drift(snn, auto, replay, stream(seed, "calibration")))


def _undosed(auto: AutoConfig, image: Tensor, layers: int) -> SleepConfig:
    """The settings that do not depend on weights; thresholds, inc and dec are yet to be found."""
    brightest = float(image.max())
    if not brightest > 0:
        raise DatasetError("the mean of the training images is black: there is nothing to replay")
    return SleepConfig(
        steps=auto.steps,
        coefficient=1.0,
        thresholds=(1.0,) * layers,
        decay=auto.decay,
        inc=0.0,
        dec=0.0,
        gate=auto.gate,
        dt_s=0.001,
        max_rate_hz=1000 * auto.brightest / brightest,
        layers=auto.layers,
        bias=auto.bias,
        neuron=auto.neuron,
    )


def _replay(snn: SpikingNetwork, config: SleepConfig, image: Tensor) -> PoissonMean:
    """The input spikes, in the type and on the device of the weights."""
    return config.make_replay(image.to(snn.units[0].synapse.weight))


class _Probe:
    """A neuron that never fires and keeps the currents into a sample of its layer."""

    def __init__(self) -> None:
        self.currents: list[Tensor] = []

    def init_state(self, current: Tensor) -> None:
        """None."""

    def __call__(self, current: Tensor, state: None) -> tuple[Tensor, None]:
        """Silence."""
        flat = current.flatten()
        self.currents.append(flat[:: -(-len(flat) // _SAMPLE)].clone())
        return torch.zeros_like(current), None


def _currents(
    snn: SpikingNetwork, layer: Layer, replay: Replay, generator: torch.Generator
) -> Tensor:
    """The currents into a sample of a layer's neurons, (steps, neurons), while nothing learns."""
    probe, neuron = _Probe(), layer.neurons.neuron
    layer.neurons.neuron = probe
    snn.reset()
    with torch.inference_mode():
        for step in range(_CALIBRATION_STEPS):
            snn(replay(step, generator))
    snn.reset()
    layer.neurons.neuron = neuron
    return torch.stack(probe.currents)


@torch.inference_mode()
def _bisect(
    currents: Tensor, make: Callable[[float, float], Neuron], auto: AutoConfig
) -> tuple[float, float]:
    """The threshold at which such neurons fire at the target rate, and the rate that they have."""

    def rate_at(threshold: float) -> float:
        neuron = make(threshold, auto.decay)
        state, spikes = neuron.init_state(currents[0]), 0.0
        for current in currents:
            fired, state = neuron(current.clone(), state)
            spikes += float(fired.sum())
        return spikes / currents.numel()

    # The rate falls with the threshold. Outside these bounds no threshold makes sense: one below a
    # millionth of the largest current is none, and no voltage is above the sum of all.
    largest = float(currents.max())
    if not largest > 0:
        return 1.0, 0.0
    low, high = 1e-6 * largest, 2 * largest * len(currents)
    while True:
        middle = math.sqrt(low * high)
        rate = rate_at(middle)
        if abs(rate / auto.rate - 1) <= auto.tolerance or high / low < 1.001:
            return middle, rate
        low, high = (middle, high) if rate > auto.rate else (low, middle)


class _Tally:
    """A rule that changes nothing and adds up what another would change."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.total = rule, torch.tensor(0.0)

    def init(self, synapse: Synapse) -> Any:  # noqa: ANN401  # the other rule's state
        """The other rule's."""
        return self.rule.init(synapse)

    def update(
        self,
        synapse: Synapse,
        pre: Tensor,
        post: Tensor,
        state: Any,  # noqa: ANN401
    ) -> tuple[Tensor, Any]:
        """No change."""
        change, state = self.rule.update(synapse, pre, post, state)
        self.total = self.total.to(change) + change
        return torch.zeros_like(change), state


def _drift(
    snn: SpikingNetwork, auto: AutoConfig, replay: Replay, generator: torch.Generator
) -> dict[str, float]:
    """The relative change of each sleeping layer in a step, if inc + dec were 1."""
    gate = None if auto.gate == "off" else auto.gate
    rule = IncDec(1 - auto.dec_share, auto.dec_share, gate)
    tallies = [_Tally(rule) for _ in snn.sleeping]
    run(snn, replay, tallies, steps=_CALIBRATION_STEPS, generator=generator)
    return {
        unit.name: _share(tally.total, unit.synapse.weight.detach()) / _CALIBRATION_STEPS
        for tally, unit in zip(tallies, snn.sleeping, strict=True)
    }


def _doses(dose: float, tilt: float, layers: int) -> list[float]:
    """Of each layer: their geometric mean is the dose, the last is tilt times the first."""
    ends = range(1 - layers, layers, 2)  # as far below the middle as above it
    return [dose * tilt ** (end / (2 * max(layers - 1, 1))) for end in ends]


def _trial_night(
    snn: SpikingNetwork,
    model: nn.Module,
    config: SleepConfig,
    doses: Sequence[float],
    image: Tensor,
    seed: int,
) -> tuple[int, float]:
    """Sleeps until the doses; gives the steps that it took, and the share that was reached."""
    share = 0.0

    def reached() -> bool:
        nonlocal share
        before = (unslept(unit, model) for unit in snn.sleeping)
        shares = [
            _share(unit.synapse.weight.detach() - weight, weight) / dose
            for unit, weight, dose in zip(snn.sleeping, before, doses, strict=True)
        ]
        share = math.sqrt(math.fsum(each**2 for each in shares) / len(shares))
        return not share < 1  # a NaN ends the night as well

    steps = run(
        snn,
        _replay(snn, config, image),
        config.make_rules([unit.name for unit in snn.sleeping]),
        steps=_PATIENCE * config.steps,
        generator=stream(seed, "sleep"),
        until=reached,
    )
    return steps, share


def _share(change: Tensor, weights: Tensor) -> float:
    """How large a change is beside the weights; 0 beside none."""
    norm = float(weights.norm())
    return float(change.norm()) / norm if norm else 0.0


class _Watched:
    """Training images whose classes a night should keep, as they are and shifted by a pixel.

    A network may know its training images by heart, and keep their classes where those of others
    go. Shifted, they are images that it has not seen.
    """

    def __init__(self, model: nn.Module, images: Tensor, seed: int) -> None:
        chosen = torch.randperm(len(images), generator=stream(seed, "watched"))[:_WATCHED]
        self.images = images[chosen]
        self.shifted = self.images.roll((1, 1), (2, 3))
        try:
            self.classes = self._classes(model, self.images)
            self.shifted_classes = self._classes(model, self.shifted)
        except SrcsnnError as cause:
            raise SrcsnnError(f"{cause}, or keep = 0, with which no classes are watched") from cause

    def kept(self, model: nn.Module) -> tuple[float, float]:
        """The shares of the images, and of the shifted, that it puts where the first one did."""
        both = (self.images, self.classes), (self.shifted, self.shifted_classes)
        kept, shifted = (
            float((self._classes(model, images) == before).float().mean())
            for images, before in both
        )
        return kept, shifted

    @torch.inference_mode()
    def _classes(self, model: nn.Module, images: Tensor) -> Tensor:
        batches = torch.split(images, images_at_once(images))
        with evaluating(model):
            scores = [scores_of(model, batch) for batch in batches]
        return torch.cat(scores).argmax(1)
