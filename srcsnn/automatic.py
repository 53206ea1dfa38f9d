"""Sleep without hand-set numbers: settings found in the network itself, from a rate and a dose."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from converters import Scale, SpikingNetwork, measure, to_ann, to_snn, unslept
from srcsnn.calibration import calibrate, relative
from srcsnn.config import AutoConfig, SleepConfig
from srcsnn.memory import give_back_freed
from srcsnn.neurons import NEURONS
from srcsnn.night import run
from srcsnn.preparation import check_before, check_neurons, neuron_maker, replay_for
from srcsnn.seeding import stream
from srcsnn.watched import Watched

__all__ = ["Settled", "settle"]

_PATIENCE = 4
"""How many times as long as planned a night on trial may take to reach its dose."""
_HALVINGS = 12


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
    mend: Callable[[nn.Module], nn.Module] = lambda network: network,
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
        mend: what will be done to the network after sleep, such as `srcsnn.training.fit_norms`.
            The classes to be kept are those of the network awake after the same was done to it.

    Raises:
        ConfigError, ConversionError, DatasetError, SleepError: as `prepare`.
        SrcsnnError: if classes are to be kept and the network gives no scores (images, classes).
    """
    check_before(model, images)
    make = neuron_maker(auto.neuron)
    # What mending alone changes is no night's fault.
    watched = Watched(mend(model), images, seed) if auto.keep else None
    image = images.mean(0)
    scales = measure(model, images, layers=auto.layers) if scales is None else scales

    def network(thresholds: Sequence[float]) -> SpikingNetwork:
        neurons = [make(threshold, auto.decay) for threshold in thresholds]
        one_or_each = neurons[0] if len(neurons) == 1 else neurons
        return to_snn(
            model, images[:1], neuron=one_or_each, layers=auto.layers, bias=auto.bias, scales=scales
        )

    def night(config: SleepConfig, doses: Sequence[float]) -> tuple[int, float, float, float]:
        snn = network(config.thresholds)
        steps, reached = _trial_night(snn, model, config, doses, image, seed)
        give_back_freed()
        if watched is None:
            return steps, reached, 1.0, 1.0
        return steps, reached, *watched.kept(mend(to_ann(snn, model, keep=False)))

    snn = network([1.0])
    if auto.neuron not in NEURONS:
        check_neurons(snn, tuple(images.shape[1:]))
    found = calibrate(snn, auto, make, image, seed)
    del snn  # which takes as much memory as the network that sleeps
    give_back_freed()
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
            relative(unit.synapse.weight.detach() - weight, weight) / dose
            for unit, weight, dose in zip(snn.sleeping, before, doses, strict=True)
        ]
        share = math.sqrt(math.fsum(each**2 for each in shares) / len(shares))
        return not share < 1  # a NaN ends the night as well

    steps = run(
        snn,
        replay_for(snn, config, image),
        config.make_rules([unit.name for unit in snn.sleeping]),
        steps=_PATIENCE * config.steps,
        generator=stream(seed, "sleep"),
        until=reached,
    )
    return steps, share
