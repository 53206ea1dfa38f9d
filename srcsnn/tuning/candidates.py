"""What a search has tried."""

import json
from dataclasses import dataclass
from typing import Any

import optuna

from srcsnn.config import SleepConfig, load_config
from srcsnn.robustness import Robustness

__all__ = ["Candidate", "Search", "note", "noted"]


@dataclass(frozen=True)
class Candidate:
    """Settings that were tried.

    Attributes:
        config: all of them, explicit.
        clean: accuracy on undistorted validation images, in [0, 1]; 0 if it failed.
        mean: mean accuracy over the distortions, in [0, 1]; 0 if it failed, or where no fitting of
            the head brings clean accuracy back, so that it was not measured.
        fit_images: training images that the head was fitted to after sleep; 0 if it was not.
        fit_norms: whether BatchNorms got the statistics of clean training images after sleep.
        failure: what was wrong with it, if anything: that its weights blew up, for example.
    """

    config: SleepConfig
    clean: float
    mean: float
    fit_images: int = 0
    fit_norms: bool = False
    failure: str = ""


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        baseline: the network before sleep, on the same validation images.
        candidates: in the order in which they were finished; the settings given come first.
        clean_loss: how much clean accuracy a candidate may lose, in [0, 1].
    """

    baseline: Robustness
    candidates: tuple[Candidate, ...]
    clean_loss: float

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """Those that keep their clean accuracy."""
        floor = self.baseline.clean - self.clean_loss
        return tuple(candidate for candidate in self.candidates if candidate.clean >= floor)

    @property
    def best(self) -> Candidate | None:
        """The best mean of those that keep their clean accuracy; None if there is no such one."""
        return max(self.kept, key=lambda candidate: candidate.mean, default=None)


def note(trial: optuna.Trial, candidate: Candidate) -> None:
    """Writes a candidate into its trial, so that `noted` can read it again."""
    found = {
        "config": json.dumps(candidate.config.model_dump(exclude_unset=True)),
        "clean": candidate.clean,
        "mean": candidate.mean,
        "fit_images": candidate.fit_images,
        "fit_norms": candidate.fit_norms,
        "failure": candidate.failure,
    }
    trial.set_user_attr("candidate", found)


def noted(study: optuna.Study) -> tuple[Candidate, ...]:
    """The candidates of all finished trials, in the order in which they were finished."""
    finished = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    found: list[dict[str, Any]] = [  # Any: JSON
        trial.user_attrs["candidate"] for trial in sorted(finished, key=_finished)
    ]
    return tuple(
        Candidate(**each | {"config": load_config(json.loads(each["config"]))}) for each in found
    )


def _finished(trial: optuna.trial.FrozenTrial) -> tuple[float, int]:
    assert trial.datetime_complete is not None  # the states asked for are finished ones
    return trial.datetime_complete.timestamp(), trial.number
