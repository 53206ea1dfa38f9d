"""Where settings are looked for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna

from srcsnn.config import AutoConfig, SleepConfig
from srcsnn.distortions import Distortion, default_distortions
from srcsnn.errors import ConfigError

__all__ = [
    "AUTO_SPACE",
    "FIT",
    "FIT_NORMS",
    "SPACE",
    "Range",
    "check_space",
    "parameters",
    "searched_distortions",
    "space_of",
    "suggest",
]

FIT = "fit_images"
"""Name of what is no setting of the sleep: how many images the head is fitted to after it."""

FIT_NORMS = "fit_norms"
"""Name of another: whether BatchNorms get the statistics of clean images after it, 1 or 0."""

BATCH = 64
"""Images of a step of fitting; less than that is none."""


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

AUTO_SPACE: Mapping[str, Range] = {
    "rate": Range(0.005, 0.3),
    "dose": Range(0.005, 1.0),
    "tilt": Range(0.003, 100.0),
    "dec_share": Range(0.0, 1.0, log=False),
    "gate": Range(1e-4, 1.0),
    "brightest": Range(0.05, 0.5),
    "steps": Range(5, 300, whole=True),
}
"""The few numbers of `AutoConfig`. A gate as wide as 1 is as good as none."""


def searched_distortions(channels: int) -> list[Distortion]:
    """Those of the paper, at every second level: neighbours tell much the same."""
    return [
        replace(each, levels=each.levels[1::2])  # type: ignore[type-var]  # a dataclass
        for each in default_distortions(channels)
    ]


def space_of(
    start: SleepConfig | AutoConfig, *, fit_head: bool, fit_norms: bool = False
) -> dict[str, Range]:
    """Where to look from these settings on.

    Settings that lie outside the usual ranges widen them, to ten times as far as they are where
    ratios count, and no further than a sleep allows; what is 0 and cannot be reached by ratios
    stays 0, and is not searched.

    Args:
        start: settings, or what settings should reach.
        fit_head: whether fitting the head after sleep is tried as well.
        fit_norms: whether fitting the statistics of BatchNorm is.
    """
    found = {}
    for name, range_ in (AUTO_SPACE if isinstance(start, AutoConfig) else SPACE).items():
        values = _values(start, name, range_)
        if range_.log and 0 in values:
            continue
        found[name] = _widened(range_, min(values), max(values), _most(start, name))
    if fit_head:
        found[FIT] = Range(BATCH // 4, 40_000, whole=True)
    if fit_norms:
        found[FIT_NORMS] = Range(0, 1, log=False, whole=True)
    return found


def _most(start: SleepConfig | AutoConfig, name: str) -> float:
    """The largest value that settings allow, whatever the images."""
    if isinstance(start, SleepConfig) and name == "max_rate_hz":
        return 1 / (start.dt_s * start.rate_factor)  # a white pixel then spikes in every step
    return {"rate": 0.95, "brightest": 1.0, "steps": 1000}.get(name, math.inf)


def _widened(range_: Range, lowest: float, highest: float, most: float) -> Range:
    margin = 10 if range_.log else 1
    low = range_.low if lowest >= range_.low else lowest / margin
    high = range_.high if highest <= range_.high else max(highest, min(highest * margin, most))
    return replace(range_, low=max(low, 1.0) if range_.whole else low, high=high)


def _values(start: SleepConfig | AutoConfig, name: str, range_: Range) -> tuple[float, ...]:
    """What a setting is at the start, in each layer if it is a list."""
    value = getattr(start, name)
    if isinstance(value, tuple):
        return value
    return (range_.high if value == "off" else value,)  # a gate


def check_space(start: SleepConfig | AutoConfig, space: Mapping[str, Range]) -> None:
    """Raises ConfigError if the space names what cannot be searched from these settings on."""
    known = [*(AUTO_SPACE if isinstance(start, AutoConfig) else SPACE), FIT, FIT_NORMS]
    if unknown := sorted(set(space) - set(known)):
        raise ConfigError(f"space: {', '.join(unknown)}: can search {', '.join(known)}")


def parameters(start: SleepConfig | AutoConfig, space: Mapping[str, Range]) -> dict[str, float]:
    """The settings as numbers by name, one for each value of a list, within the space."""
    found: dict[str, float] = {}
    for name, range_ in space.items():
        values = (0.0,) if name in (FIT, FIT_NORMS) else _values(start, name, range_)
        for parameter, value in zip(_parameters(start, name), values, strict=True):
            found[parameter] = min(max(value, range_.low), range_.high)
    return found


def suggest(
    trial: optuna.Trial, start: SleepConfig | AutoConfig, space: Mapping[str, Range]
) -> dict[str, Any]:  # Any: settings of several types
    """Settings that the sampler of this trial would like to see."""

    def one(name: str, range_: Range) -> float:
        if range_.whole:
            return trial.suggest_int(name, int(range_.low), int(range_.high), log=range_.log)
        return trial.suggest_float(name, range_.low, range_.high, log=range_.log)

    found: dict[str, Any] = {}
    for name, range_ in space.items():
        values = [one(parameter, range_) for parameter in _parameters(start, name)]
        found[name] = values if _is_list(start, name) else values[0]
    return found


def _is_list(start: SleepConfig | AutoConfig, name: str) -> bool:
    return isinstance(getattr(start, name, None), tuple)


def _parameters(start: SleepConfig | AutoConfig, name: str) -> list[str]:
    """What a setting is called in the study: a list has a number for each value."""
    if not _is_list(start, name):
        return [name]
    return [f"{name}_{index}" for index in range(len(getattr(start, name)))]
