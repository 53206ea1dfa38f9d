"""Where settings are looked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from srcsnn.config import AutoConfig, SleepConfig
from srcsnn.errors import ConfigError

__all__ = [
    "AUTO_SPACE",
    "FIT",
    "SPACE",
    "Range",
    "check_space",
    "parameters",
    "space_of",
    "suggest",
]

FIT = "fit_epochs"
"""Name of what is no setting of the sleep: passes of fitting the head after it."""


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
    "tilt": Range(0.1, 100.0),
    "dec_share": Range(0.0, 1.0, log=False),
    "gate": Range(1e-4, 1.0),
    "brightest": Range(0.05, 0.5),
}
"""The few numbers of `AutoConfig`. A gate as wide as 1 is as good as none."""


def space_of(start: SleepConfig | AutoConfig, *, fit_head: bool) -> dict[str, Range]:
    """Where to look from these settings on.

    Args:
        start: settings, or what settings should reach.
        fit_head: whether fitting the head after sleep is tried as well.
    """
    found = dict(AUTO_SPACE if isinstance(start, AutoConfig) else SPACE)
    return found | {FIT: Range(0, 5, log=False, whole=True)} if fit_head else found


def check_space(start: SleepConfig | AutoConfig, space: Mapping[str, Range]) -> None:
    """Raises ConfigError if the space names what cannot be searched from these settings on."""
    known = space_of(start, fit_head=True)
    if unknown := sorted(set(space) - set(known)):
        raise ConfigError(f"space: {', '.join(unknown)}: can search {', '.join(known)}")


def parameters(start: SleepConfig | AutoConfig, space: Mapping[str, Range]) -> dict[str, float]:
    """The settings as numbers by name, one for each threshold, within the space."""
    found: dict[str, float] = {}
    for name, range_ in space.items():
        value = 0 if name == FIT else getattr(start, name)
        value = range_.high if value == "off" else value  # a gate
        for index, each in enumerate(value if isinstance(value, tuple) else (value,)):
            found[_parameter(name, index)] = min(max(each, range_.low), range_.high)
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
        many = isinstance(start, SleepConfig) and name == "thresholds"
        number = len(start.thresholds) if isinstance(start, SleepConfig) and many else 1
        values = [one(_parameter(name, index), range_) for index in range(number)]
        found[name] = values if many else values[0]
    return found


def _parameter(name: str, index: int) -> str:
    return f"threshold_{index}" if name == "thresholds" else name
