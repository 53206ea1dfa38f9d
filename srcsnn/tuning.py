"""Searches the settings of a sleep by a genetic algorithm, on training images alone.

The paper found its Table II so (Delanois et al. 2023, Section 4): a genetic algorithm, and the
mean validation accuracy under distortions of one trial's network.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import torch
from torch import Tensor, nn

from converters import measure
from srcsnn.config import SleepConfig, load_config
from srcsnn.consolidation import sleep
from srcsnn.distortions import Distortion
from srcsnn.errors import ConfigError, SleepError
from srcsnn.preparation import prepare
from srcsnn.robustness import Robustness, evaluate
from srcsnn.seeding import key, stream

__all__ = ["SPACE", "Candidate", "Range", "Search", "search"]


@dataclass(frozen=True)
class Range:
    """Where a setting is looked for.

    Attributes:
        low: smallest value.
        high: largest value.
        log: whether ratios count, not differences.
        whole: whether it is a whole number.
    """

    low: float
    high: float
    log: bool = True
    whole: bool = False


SPACE: Mapping[str, Range] = {
    "steps": Range(10, 600, whole=True),
    "coefficient": Range(1.0, 50.0),
    "thresholds": Range(0.5, 50.0),
    "decay": Range(0.8, 1.0, log=False),
    "inc": Range(1e-5, 1e-2),
    "dec": Range(1e-5, 1e-2),
    "max_rate_hz": Range(20.0, 500.0),
}
"""Settings that the paper's search found, and about a decade around what it found."""


@dataclass(frozen=True)
class Candidate:
    """Settings that were tried.

    Attributes:
        config: all of them.
        clean: accuracy on undistorted validation images, in [0, 1]; 0 if the weights blew up.
        mean: mean accuracy over the distortions, in [0, 1].
    """

    config: SleepConfig
    clean: float
    mean: float


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        baseline: the network before sleep, on the same validation images.
        candidates: in the order in which they were tried; the settings given come first.
        clean_loss: how much clean accuracy a candidate may lose, in [0, 1].
    """

    baseline: Robustness
    candidates: tuple[Candidate, ...]
    clean_loss: float

    @property
    def best(self) -> Candidate | None:
        """The best mean of those that keep their clean accuracy; None if there is no such one."""
        floor = self.baseline.clean - self.clean_loss
        kept = [candidate for candidate in self.candidates if candidate.clean >= floor]
        return max(kept, key=lambda candidate: candidate.mean, default=None)


def search(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: str | SleepConfig | Mapping[str, object],
    *,
    trials: int,
    seed: int,
    distortions: Sequence[Distortion] | None = None,
    validation: int = 2000,
    clean_loss: float = 0.02,
    population: int = 20,
    space: Mapping[str, Range] = SPACE,
    progress: Callable[[Candidate, int, int], None] | None = None,
) -> Search:
    """Tries settings of sleep, each generation bred from the best of the ones before (NSGA-II).

    Accuracy is that on `validation` of the training images, drawn by the seed, under noise that no
    evaluation of test images has. A network that has learnt them by heart makes its accuracy on
    them too good: train it without them if the gap between training and test images is wide.

    Args:
        model: a trained CNN; it is not changed.
        images: (N, C, H, W) in [0, 1]: the training images.
        labels: (N,) their class numbers.
        config: the settings to start from, which are tried first; what is not in the space stays.
        trials: how many settings are tried.
        seed: of everything; the same seed gives the same search.
        distortions: whose mean is to be high; as `evaluate` if not given.
        validation: how many images each candidate is measured on.
        clean_loss: how much clean accuracy a candidate may lose, in [0, 1].
        population: how many settings make a generation.
        space: where to look for which settings.
        progress: called after each candidate, with how many were tried and how many there will be.

    Raises:
        ConfigError: if the space names no setting that can be searched.
        ConversionError, DatasetError, SleepError: as `sleep`.
    """
    start = load_config(config).with_changes(neuron="lif")  # the same spikes, sooner
    if unknown := sorted(set(space) - set(SPACE)):
        raise ConfigError(f"space: {', '.join(unknown)}: can search {', '.join(SPACE)}")
    prepare(model, images, start)  # finds fault before anything is tried
    chosen = torch.randperm(len(images), generator=stream(seed, "validation"))[:validation]

    def measured(network: nn.Module) -> Robustness:
        own = key(seed, "validation noise") % 2**63
        return evaluate(network, images[chosen], labels[chosen], distortions=distortions, seed=own)

    scales = measure(model, images, layers=start.layers, normalization=start.make_normalization())
    baseline = measured(model)
    candidates: list[Candidate] = []

    def attempt(trial: optuna.Trial) -> float:
        found = start.with_changes(**_suggest(trial, start, space))
        try:
            counts = measured(sleep(model, images, found, seed=seed, scales=scales).model)
            candidates.append(Candidate(found, counts.clean, counts.mean()))
        except SleepError:  # its weights blew up, which is an answer
            candidates.append(Candidate(found, 0.0, 0.0))
        floor = baseline.clean - clean_loss
        trial.set_constraint("clean accuracy", floor - candidates[-1].clean)
        if progress is not None:
            progress(candidates[-1], len(candidates), trials)
        return candidates[-1].mean

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Children near their parents; the default swaps settings and seldom makes a new value.
        crossover = optuna.samplers.nsgaii.SBXCrossover()
    sampler = optuna.samplers.NSGAIISampler(
        population_size=population, crossover=crossover, seed=key(seed, "search") % 2**32
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial(_as_parameters(start, space))
    study.optimize(attempt, n_trials=trials)
    return Search(baseline, tuple(candidates), clean_loss)


def _as_parameters(config: SleepConfig, space: Mapping[str, Range]) -> dict[str, float]:
    """The settings as numbers by name, one for each threshold, within the space."""
    found: dict[str, float] = {}
    for name, range_ in space.items():
        value = getattr(config, name)
        for index, each in enumerate(value if isinstance(value, tuple) else (value,)):
            found[_parameter(name, index)] = min(max(each, range_.low), range_.high)
    return found


def _parameter(name: str, index: int) -> str:
    return f"threshold_{index}" if name == "thresholds" else name


def _suggest(
    trial: optuna.Trial, start: SleepConfig, space: Mapping[str, Range]
) -> dict[str, Any]:  # Any: settings of several types
    def one(name: str, range_: Range) -> float:
        if range_.whole:
            return trial.suggest_int(name, int(range_.low), int(range_.high), log=range_.log)
        return trial.suggest_float(name, range_.low, range_.high, log=range_.log)

    found: dict[str, Any] = {}
    for name, range_ in space.items():
        number = len(start.thresholds) if name == "thresholds" else 1
        values = [one(_parameter(name, index), range_) for index in range(number)]
        found[name] = values if name == "thresholds" else values[0]
    return found
