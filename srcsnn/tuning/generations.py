"""The search: each generation of settings is bred from the best of the ones before (NSGA-II)."""

import hashlib
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import torch
from torch import Tensor, multiprocessing, nn

from converters import Scale, measure
from srcsnn.automatic import settle
from srcsnn.config import AutoConfig, SleepConfig, load_settings
from srcsnn.consolidation import sleep
from srcsnn.distortions import Distortion, default_distortions
from srcsnn.errors import ConfigError, SleepError, SrcsnnError
from srcsnn.plugins import current_folder_importable
from srcsnn.preparation import prepare
from srcsnn.robustness import Robustness, evaluate
from srcsnn.seeding import key, stream
from srcsnn.training import fit_head
from srcsnn.tuning.candidates import Candidate, Search, note, noted
from srcsnn.tuning.space import FIT, Range, check_space, parameters, space_of, suggest
from srcsnn.tuning.studies import Store, open_study

__all__ = ["search", "tuned"]

Progress = Callable[[Candidate, int, int], None]

FIT_IMAGES = 10_000
"""Training images that a head is fitted to, at most; none of them are validation images."""


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
        space: where to look for which settings; that of `space_of`, without fitting heads, if not
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
        every = default_distortions(images.shape[1])
        distortions = [
            replace(each, levels=each.levels[1::2])  # type: ignore[type-var]  # a dataclass
            for each in every
        ]
    if workers > 1 and study is None:
        raise ConfigError(f"workers={workers}: several processes need a study that they share")
    work = _Work(
        model, images, labels, start, space, seed, tuple(distortions), validation, clean_loss
    )
    if isinstance(start, SleepConfig):
        prepare(model, images, start)  # finds fault before anything is tried
    store = Store(study, population, work.identity())
    opened = open_study(store)
    work = replace(work, scales=work.measure_scales(), baseline=work.evaluate(model))
    work = work.with_firsts()
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    if workers == 1:
        _try(opened, store, work, trials, deadline, 0, progress)
    else:
        _try_in_processes(opened, store, work, trials, seconds, workers, progress)
    assert work.baseline is not None
    return Search(work.baseline, noted(opened), clean_loss)


def tuned(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    candidate: Candidate,
    *,
    seed: int,
    validation: int = 1000,
    scales: Mapping[str, Scale] | None = None,
) -> nn.Module:
    """The network slept with a candidate's settings, and its head fitted as they say.

    Args:
        model: a trained CNN; it is not changed.
        images: (N, C, H, W) in [0, 1]: the training images.
        labels: (N,) their class numbers.
        candidate: of a search with the same seed and the same number of validation images.
        seed: of the night, and of the images that the head is fitted to.
        validation: how many images are kept from it.
        scales: what `converters.measure` found in these images, if it was asked before.

    Raises:
        ConfigError, ConversionError, DatasetError, SleepError: as `sleep` and `fit_head`.
    """
    slept = sleep(model, images, candidate.config, seed=seed, scales=scales).model
    if not candidate.fit_epochs:
        return slept
    _, fitting = _split(len(images), validation, seed)
    return fit_head(slept, images[fitting], labels[fitting], seed=seed, epochs=candidate.fit_epochs)


_WAITING = optuna.trial.TrialState.WAITING


def _digest(tensors: Iterable[Tensor]) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(str(tensor.shape).encode() + tensor.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _split(count: int, validation: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of validation images, and of others that heads are fitted to."""
    validation = min(validation, 2 * count // 3)
    shuffled = torch.randperm(count, generator=stream(seed, "validation"))
    return shuffled[:validation], shuffled[validation:][:FIT_IMAGES]


@dataclass(frozen=True)
class _Work:
    """All that trying settings takes, in whichever process."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    start: SleepConfig | AutoConfig
    space: Mapping[str, Range]
    seed: int
    distortions: tuple[Distortion, ...]
    validation: int
    clean_loss: float
    scales: Mapping[str, Scale] | None = None
    baseline: Robustness | None = None
    firsts: tuple[dict[str, float], ...] = ()

    def with_firsts(self) -> "_Work":
        """With the candidates that are tried before any are bred.

        From auto, a dose that keeps classes, and then most of it in the last layer with the head
        fitted after sleep, as what sleeps well is often of that kind.
        """
        start = self.start
        if not isinstance(start, AutoConfig):
            return replace(self, firsts=(parameters(start, self.space),))
        settled = settle(self.model, self.images, start, seed=self.seed, scales=self.scales)
        start = start.with_changes(keep=0, dose=settled.dose)
        tilted = start.with_changes(tilt=30)
        firsts = [parameters(start, self.space), parameters(tilted, self.space)]
        if FIT in self.space:
            firsts[1][FIT] = 1
        return replace(self, start=start, firsts=tuple(firsts))

    def identity(self) -> dict[str, str]:
        """What a study is of; one of anything else must not go on with this."""
        return {
            "network": _digest(self.model.state_dict().values()),
            "images": _digest([self.images, self.labels]),
            "start": self.start.model_dump_json(),
            "space": repr(dict(self.space)),
            "seed": str(self.seed),
            "distortions": repr(self.distortions),
            "validation": str(self.validation),
            "clean loss": str(self.clean_loss),
        }

    def measure_scales(self) -> Mapping[str, Scale]:
        """Of the activations, once for all candidates."""
        if isinstance(self.start, AutoConfig):
            return measure(self.model, self.images, layers=self.start.layers)
        normalization = self.start.make_normalization()
        return measure(
            self.model, self.images, layers=self.start.layers, normalization=normalization
        )

    def evaluate(self, network: nn.Module) -> Robustness:
        """Accuracy on the validation images, under noise that test images never have."""
        chosen, _ = _split(len(self.images), self.validation, self.seed)
        own = key(self.seed, "validation noise") % 2**63
        return evaluate(
            network,
            self.images[chosen],
            self.labels[chosen],
            distortions=self.distortions,
            seed=own,
        )

    def attempt(self, trial: optuna.Trial) -> float:
        """Tries the settings that a trial suggests; gives the mean accuracy under distortions."""
        found = suggest(trial, self.start, self.space)
        epochs = int(found.pop(FIT, 0))
        settings = self.start.with_changes(**found)
        if isinstance(settings, AutoConfig):
            settled = settle(self.model, self.images, settings, seed=self.seed, scales=self.scales)
            settings = settled.config
        candidate = Candidate(settings, 0.0, 0.0, epochs)
        try:
            network = tuned(
                self.model,
                self.images,
                self.labels,
                candidate,
                seed=self.seed,
                validation=self.validation,
                scales=self.scales,
            )
            counts = self.evaluate(network)
            candidate = replace(candidate, clean=counts.clean, mean=counts.mean())
        except SleepError:  # its weights blew up, which is an answer
            pass
        note(trial, candidate)
        assert self.baseline is not None
        floor = self.baseline.clean - self.clean_loss
        trial.set_constraint("clean accuracy", floor - candidate.clean)
        return candidate.mean


def _try(
    study: optuna.Study,
    store: Store,
    work: _Work,
    trials: int,
    deadline: float,
    worker: int,
    progress: Progress,
) -> None:
    """Tries settings until there are as many as wanted, or it is late."""
    while (done := len(noted(study))) < trials and time.monotonic() < deadline:
        # Seeded anew for each trial, so that a search that was stopped goes on alike.
        if worker == 0 and done < len(work.firsts) and not study.get_trials(states=[_WAITING]):
            study.enqueue_trial(work.firsts[done])
        study.sampler = _sampler(store.population, key(work.seed, "search", worker, done) % 2**32)
        study.optimize(work.attempt, n_trials=1)
        candidates = noted(study)
        progress(candidates[-1], len(candidates), trials)


def _try_in_processes(
    study: optuna.Study,
    store: Store,
    work: _Work,
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
    if failed := [process.exitcode for process in processes if process.exitcode]:
        raise SrcsnnError(f"{len(failed)} of {workers} processes of the search failed, see above")


def _worker(
    store: Store, work: _Work, trials: int, seconds: float | None, number: int, threads: int
) -> None:
    torch.set_num_threads(threads)
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    _try(open_study(store), store, work, trials, deadline, number, lambda *_: None)


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
