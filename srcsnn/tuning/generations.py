"""The search: each generation of settings is bred from the best of the ones before (NSGA-II)."""

import logging
import os
import signal
import socket
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import optuna
import torch
from torch import Tensor, multiprocessing, nn

from srcsnn.config import AutoConfig, SleepConfig, load_settings
from srcsnn.distortions import Distortion
from srcsnn.errors import ConfigError, DatasetError, SrcsnnError
from srcsnn.plugins import current_folder_importable
from srcsnn.preparation import neuron_maker, prepare
from srcsnn.seeding import key
from srcsnn.training import is_fittable_norm
from srcsnn.tuning.candidates import Candidate, Search, noted
from srcsnn.tuning.space import (
    FIT,
    FIT_NORMS,
    Range,
    check_space,
    searched_distortions,
    space_of,
)
from srcsnn.tuning.studies import Store, check_baseline, open_study
from srcsnn.tuning.tryout import Tryout

__all__ = ["search"]

_log = logging.getLogger(__name__)

Progress = Callable[[Candidate, int, int], None]


def search(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: str | Path | SleepConfig | AutoConfig | Mapping[str, object] = "auto",
    *,
    trials: int,
    seed: int,
    distortions: Sequence[Distortion] | None = None,
    validation: int = 1000,
    clean_loss: float = 0.02,
    population: int = 20,
    space: Mapping[str, Range] | None = None,
    study: str | Path | None = None,
    workers: int = 1,
    seconds: float | None = None,
    progress: Progress = lambda candidate, done, total: None,
) -> Search:
    """Tries settings of sleep; gives all that were tried, the best among them.

    Accuracy is that on `validation` of the training images, drawn by the seed, under noise that no
    evaluation of test images has. A network that has learnt them by heart makes its accuracy on
    them too good: train it without them if the gap between training and test images is wide.

    Args:
        model: a trained CNN; it is not changed.
        images: (N, C, H, W) in [0, 1]: the training images.
        labels: (N,) their class numbers.
        config: the settings to start from, which are tried first; what is not in the space stays.
            From "auto", or an `AutoConfig`, its few numbers are searched; what a candidate's night
            must keep is then said by `clean_loss`, and `keep` by the first one alone.
        trials: how many settings are tried, those in the study already included.
        seed: of everything; with one worker, the same seed gives the same search.
        distortions: whose mean is to be high; if not given as `evaluate`, at every second level.
        validation: how many images each candidate is measured on, at most two thirds of them.
        clean_loss: how much clean accuracy a candidate may lose, in [0, 1].
        population: how many settings make a generation.
        space: where to look for which settings; that of `space_of`, without fitting, if not
            given.
        study: a file (SQLite) or the URL of a database that keeps what was tried. A search that
            was stopped goes on from there, with one worker to the same end.
        workers: processes that try settings at the same time; more than one need a study.
        seconds: no settings are begun later than this after the start.
        progress: called after each candidate, with how many were tried and how many there will be.

    Raises:
        ConfigError: if the space names no setting that can be searched, or the study is of another
            network, other images or another search.
        ConversionError, DatasetError, SleepError: as `sleep`.
    """
    start = load_settings(config)
    if start.neuron == "leaky":
        start = start.with_changes(neuron="lif")  # the same spikes, sooner
    space = space_of(start, fit_head=False) if space is None else space
    check_space(start, space)
    if distortions is None:
        distortions = searched_distortions(images.shape[1])
    if len(images) < 3:
        raise DatasetError(f"{len(images)} images: a search needs 3 or more")
    if workers > 1 and study is None:
        raise ConfigError(f"workers={workers}: several processes need a study that they share")
    work = Tryout(
        model, images, labels, start, space, seed, tuple(distortions), validation, clean_loss
    )
    if isinstance(start, SleepConfig):  # find fault before anything is tried
        prepare(model, images, start)
    else:
        neuron_maker(start.neuron)
    if FIT in space and not any(isinstance(module, nn.Linear) for module in model.modules()):
        raise ConfigError(f"space: {FIT}: the network has no linear layer that could be fitted")
    if FIT_NORMS in space and not any(map(is_fittable_norm, model.modules())):
        raise ConfigError(f"space: {FIT_NORMS}: the network has no BatchNorm with statistics")
    store = Store(study, population, work.identity())
    opened = open_study(store)
    baseline = work.evaluate(model)
    check_baseline(opened, study, baseline)
    work = replace(work, scales=work.measure_scales(), baseline=baseline).with_firsts()
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    if workers == 1:
        _try(opened, store, work, trials, deadline, progress)
    else:
        _try_in_processes(opened, store, work, trials, seconds, workers, progress)
    return Search(baseline, noted(opened), clean_loss)


def _try(
    study: optuna.Study,
    store: Store,
    work: Tryout,
    trials: int,
    deadline: float,
    progress: Progress,
    *,
    leads: bool = True,
    who: str = "alone",
) -> None:
    """Tries settings until there are as many as wanted, or it is late.

    One of several processes leads: it tries what is tried first.
    """
    begun = datetime.now()
    while time.monotonic() < deadline:
        done = len(noted(study))
        if done + _running(study, begun) >= trials:
            break
        left = [first for first in work.firsts if leads and not _is_tried(study, first, begun)]
        if left:
            study.enqueue_trial(left[0])
        # Seeded anew for each trial, so that a search that was stopped goes on alike.
        study.sampler = _sampler(store.population, key(work.seed, "search", who, done) % 2**32)
        study.optimize(work.attempt, n_trials=1)
        candidates = noted(study)
        progress(candidates[-1], len(candidates), trials)


_STATES = optuna.trial.TrialState


def _is_running(trial: optuna.trial.FrozenTrial, since: datetime) -> bool:
    """Whether a trial that was begun since then goes on; what was killed before stays for ever."""
    return trial.state == _STATES.RUNNING and (trial.datetime_start or since) >= since


def _running(study: optuna.Study, since: datetime) -> int:
    return sum(_is_running(trial, since) for trial in study.get_trials(deepcopy=False))


def _is_tried(study: optuna.Study, settings: Mapping[str, float], since: datetime) -> bool:
    """Whether a trial of these settings is finished, waits, or was begun since then."""
    return any(
        trial.state in (_STATES.COMPLETE, _STATES.WAITING) or _is_running(trial, since)
        for trial in study.get_trials(deepcopy=False)
        if trial.system_attrs.get("fixed_params") == settings
    )


def _try_in_processes(
    study: optuna.Study,
    store: Store,
    work: Tryout,
    trials: int,
    seconds: float | None,
    workers: int,
    progress: Progress,
) -> None:
    """Has processes try settings; tells what they have done."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // workers)
    processes = [
        context.Process(target=_worker, args=(store, work, trials, seconds, number, threads))
        for number in range(workers)
    ]
    told = len(noted(study))
    with current_folder_importable():  # where the network's own class may be
        for process in processes:
            process.start()
    try:
        while any(process.is_alive() for process in processes):
            time.sleep(0.2)
            for candidate in noted(study)[told:]:
                told += 1
                progress(candidate, told, trials)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    if failed := [str(process.exitcode) for process in processes if process.exitcode]:
        words = (
            f"{len(failed)} of {workers} processes of the search failed, with exit code "
            f"{', '.join(failed)}; {store.place} keeps what was tried"
        )
        if len(failed) == workers:
            raise SrcsnnError(words)
        _log.warning(words)  # the others have gone on


def _worker(
    store: Store, work: Tryout, trials: int, seconds: float | None, number: int, threads: int
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this one
    torch.set_num_threads(threads)
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    who = f"{socket.gethostname()} {os.getpid()}"  # no two processes draw the same settings
    study = open_study(store)
    _try(study, store, work, trials, deadline, lambda *_: None, leads=number == 0, who=who)


class _Sampler(optuna.samplers.NSGAIISampler):
    """NSGA-II whose parents come in one order, whether they are chosen anew or read again."""

    def get_parent_population(
        self, study: optuna.Study, generation: int
    ) -> list[optuna.trial.FrozenTrial]:
        """See the base class."""
        found = super().get_parent_population(study, generation)
        return sorted(found, key=lambda trial: trial.number)


def _sampler(population: int, seed: int) -> _Sampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Children near their parents; the default swaps settings and seldom makes a new value.
        crossover = optuna.samplers.nsgaii.SBXCrossover()
    return _Sampler(population_size=population, crossover=crossover, seed=seed)
