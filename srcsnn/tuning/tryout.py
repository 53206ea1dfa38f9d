"""One candidate: slept with, its head fitted, and measured on images kept for that."""

import hashlib
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import optuna
import torch
from torch import Tensor, nn

from converters import Scale, measure
from srcsnn.automatic import settle
from srcsnn.config import AutoConfig, SleepConfig
from srcsnn.consolidation import sleep
from srcsnn.distortions import Distortion
from srcsnn.errors import SrcsnnError
from srcsnn.robustness import Robustness, evaluate
from srcsnn.seeding import key
from srcsnn.training import fit_head, fit_norms
from srcsnn.tuning.candidates import Candidate, note
from srcsnn.tuning.space import BATCH, FIT, FIT_NORMS, Range, parameters, suggest
from srcsnn.tuning.splits import Split, split

__all__ = ["Tryout", "fitted", "tuned"]

NORM_IMAGES = 2_000
"""How many of these the statistics of BatchNorm are measured on, at most."""

_BEYOND = 8
"""Times the dose at which classes are kept up to which doses are searched."""

_RESCUE = 5_000
"""Images that the head of a candidate is fitted to, at most, to have its clean accuracy back."""


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
    """The network slept with a candidate's settings, its norms and head fitted as they say.

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
    return fitted(slept, images, labels, candidate, seed=seed, validation=validation)


def fitted(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    candidate: Candidate,
    *,
    seed: int,
    validation: int = 1000,
) -> nn.Module:
    """The network with norms and head fitted as a candidate says; of one awake, the control.

    What this alone gains, sleep has not brought. Arguments as of `tuned`.

    Raises:
        ConfigError, DatasetError: as `fit_head` and `fit_norms`.
    """
    fitting = split(len(images), validation, seed).fitting
    if candidate.fit_norms:
        network = fit_norms(network, images[fitting[:NORM_IMAGES]])
    if not candidate.fit_images:
        return network
    epochs = max(1, round(candidate.fit_images / len(fitting)))
    fitting = fitting[: candidate.fit_images]
    return fit_head(network, images[fitting], labels[fitting], seed=seed, epochs=epochs)


def _digest(tensors: Mapping[str, object], words: str = "") -> str:
    """Of all that are tensors; a network may note other things beside its weights."""
    found = hashlib.sha256(words.encode())
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            continue
        data = tensor.detach().cpu().flatten().view(torch.uint8)  # NumPy has no bfloat16
        found.update(f"{name} {tensor.shape}".encode() + data.numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Tryout:
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

    def with_firsts(self) -> "Tryout":
        """With the candidates that are tried before any are bred.

        From auto, a dose that keeps classes; most of it in the last layer, and the head fitted to
        few images, as what sleeps well is often of that kind; two that are nearly all in the first
        layer, whose weights hardly ever fall; three of short nights, in which negative weights
        rise, around a dose that keeps most classes; and the first, with a head fitted to many.
        What BatchNorms there are get new statistics in all of them, and so these doses.
        """
        start = self.start
        if not isinstance(start, AutoConfig):
            return replace(self, firsts=(parameters(start, self.space),))
        brief = start.with_changes(
            rate=0.02, dose=0.08, dec_share=0.25, gate=0.004, steps=30, keep=0.95, keep_shifted=0.9
        )
        start, brief = self._bearable(start), self._bearable(brief)
        late = start.with_changes(tilt=30)
        early = start.with_changes(tilt=0.01, dec_share=0.1, gate="off")
        settings = [start, late]
        settings += [early.with_changes(dose=dose) for dose in (0.045, 0.015)]
        settings += [brief.with_changes(dose=factor * brief.dose) for factor in (2, 1, 0.5)]
        space = dict(self.space)
        if "dose" in space:  # a network that bears little is searched where it bears it
            doses, own = [each.dose for each in settings], space["dose"]
            most = max(*doses, _BEYOND * start.dose, _BEYOND * brief.dose)
            space["dose"] = replace(own, low=min(own.low, *doses), high=min(own.high, most))
        firsts = [parameters(each, space) for each in settings]
        if FIT_NORMS in space:
            for first in firsts:
                first[FIT_NORMS] = 1
        if FIT in space:
            for first in firsts[1:4]:
                first[FIT] = 1000
            firsts.append(firsts[0] | {FIT: 20_000})
        return replace(self, start=start, space=space, firsts=tuple(firsts))

    def _bearable(self, auto: AutoConfig) -> AutoConfig:
        """With the dose at which classes are kept, which are then no longer watched."""
        fitting = self._split.fitting[:NORM_IMAGES]

        def mend(network: nn.Module) -> nn.Module:
            return fit_norms(network, self.images[fitting])

        found = settle(
            self.model, self.images, auto, seed=self.seed, scales=self.scales,
            **{"mend": mend} if FIT_NORMS in self.space else {},
        )  # fmt: skip
        return auto.with_changes(keep=0, dose=found.dose)

    def identity(self) -> dict[str, str]:
        """What a study is of; one of anything else must not go on with this."""
        weights: dict[str, object] = dict(self.model.state_dict())
        return {
            "network": _digest(weights | dict(self.model.named_buffers()), repr(self.model)),
            "images": _digest({"images": self.images, "labels": self.labels}),
            "start": self.start.model_dump_json(),
            "space": repr(dict(self.space)),
            "seed": str(self.seed),
            # Without the addresses of objects that do not say what they are.
            "distortions": re.sub(" at 0x[0-9a-f]+", "", repr(self.distortions)),
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
        """Accuracy on validation images, under noise that test images never have."""
        return self._distorted(network, self._undistorted(network))

    def _undistorted(self, network: nn.Module) -> Robustness:
        return self._on(self._split.clean, network, ())

    def _distorted(self, network: nn.Module, clean: Robustness) -> Robustness:
        found = self._on(self._split.distorted, network, self.distortions)
        return replace(found, cells=clean.cells + found.cells[1:])

    @property
    def _split(self) -> Split:
        return split(len(self.images), self.validation, self.seed)

    def _on(
        self, chosen: Tensor, network: nn.Module, distortions: tuple[Distortion, ...]
    ) -> Robustness:
        given = self.images[chosen], self.labels[chosen]
        own = key(self.seed, "validation noise") % 2**63
        return evaluate(network, *given, distortions=distortions, seed=own)

    def attempt(self, trial: optuna.Trial) -> float:
        """Tries the settings that a trial suggests; gives the mean accuracy under distortions."""
        found = suggest(trial, self.start, self.space)
        images, norms = int(found.pop(FIT, 0)), bool(found.pop(FIT_NORMS, 0))
        settings = self.start.with_changes(**found)
        if isinstance(settings, AutoConfig):
            settled = settle(self.model, self.images, settings, seed=self.seed, scales=self.scales)
            settings = settled.config
        assert self.baseline is not None
        floor = self.baseline.clean - self.clean_loss
        try:
            wanted = Candidate(settings, 0.0, 0.0, fit_images=images, fit_norms=norms)
            candidate = self._measured(wanted, floor)
        except SrcsnnError as failure:  # weights or scores blew up, which is an answer
            candidate = Candidate(settings, 0.0, 0.0, failure=str(failure))
        note(trial, candidate)
        trial.set_constraint("clean accuracy", floor - candidate.clean)
        return candidate.mean

    def _measured(self, wanted: Candidate, floor: float) -> Candidate:
        """A night as a candidate says, and the head fitted to as many images or to more."""
        config, norms = wanted.config, wanted.fit_norms
        slept = sleep(self.model, self.images, config, seed=self.seed, scales=self.scales).model
        slept = self._fitted(slept, replace(wanted, fit_images=0))

        @cache
        def headed(count: int) -> tuple[nn.Module, Robustness]:
            network = self._fitted(slept, replace(wanted, fit_images=count, fit_norms=False))
            return network, self._undistorted(network)

        count = self._fit_of(wanted.fit_images, lambda count: headed(count)[1].clean >= floor)
        network, clean = headed(count)
        if FIT in self.space and clean.clean < floor:
            return Candidate(config, clean.clean, 0.0, fit_images=count, fit_norms=norms)
        mean = self._distorted(network, clean).mean()
        return Candidate(config, clean.clean, mean, fit_images=count, fit_norms=norms)

    def _fitted(self, network: nn.Module, candidate: Candidate) -> nn.Module:
        given = self.images, self.labels
        return fitted(network, *given, candidate, seed=self.seed, validation=self.validation)

    def _fit_of(self, wanted: int, keeps: Callable[[int], bool]) -> int:
        """How many images to fit the head to: as wanted, or as few more as keep clean accuracy.

        Most nights that help cost clean accuracy, and a head that is fitted to some hundred images
        brings it back; fitted to many thousand it unlearns what the night has brought. Where the
        most of them do not bring it back, nothing between is tried.
        """
        count = wanted if wanted >= BATCH else 0
        more = [max(BATCH, 3 * count // 2)]
        while (further := 3 * more[-1] // 2) <= _RESCUE:
            more.append(further)
        if FIT not in self.space or more[0] > _RESCUE or keeps(count):
            return count
        if not keeps(more[-1]):
            return more[-1]
        return more[bisect_left(more, True, hi=len(more) - 1, key=keeps)]
