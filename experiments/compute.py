"""What each kind of cell computes. One thread each, so that the bits depend on no schedule."""

import hashlib
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import srcsnn
from experiments.attention import attention_maps, overlap
from experiments.cells import Cell, Kind
from experiments.gradients import expand, fit_gradient, matching_expansion
from experiments.night import trajectory
from experiments.place import Place, distortions_of
from experiments.store import Record
from srcsnn.checkpoints import versions
from srcsnn.errors import SrcsnnError
from srcsnn.models import ARCHITECTURES
from srcsnn.noise import Noise
from srcsnn.seeding import stream
from srcsnn.training import Protocol, initialize, train

__all__ = ["compute", "one_thread"]

Result = tuple[nn.Module | None, dict[str, Any]]
"""The network, if the cell gives one, and its numbers. Any: JSON."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside this block torch computes on one thread, so that the bits depend on no machine's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def compute(cell: Cell, place: Place) -> Record:
    """Computes a cell whose inputs are finished; gives its line in the ledger.

    A network is saved; one that is there already is not made again.
    """
    if place.images.sha256 != cell.sha256:
        raise SrcsnnError(
            f"{cell}: the images of {place.source} here are others (SHA-256 "
            f"{place.images.sha256[:12]}) than the cell's ({cell.sha256[:12]})"
        )
    models = place.models
    if cell.gives_model and cell in models:
        return models.notes(cell)
    started = time.perf_counter()
    with one_thread():
        model, result = _FUNCTIONS[cell.kind](cell, place)
    seconds = round(time.perf_counter() - started, 2)
    record: Record = {
        "key": cell.key,
        "kind": cell.kind,
        "data": cell.data,
        "data_sha256": cell.sha256,
        "trial": cell.trial,
        "method": cell.method,
        "settings": dict(cell.settings),
        "inputs": [below.key for below in cell.inputs],
        "result": result,
        "seconds": seconds,
        "versions": versions() | {"commit": _commit()},
    }
    if model is not None:
        record["result"] = result | {"weights_sha256": _digest(model)}
        models.save(cell, model, record)
    return record


def _train(cell: Cell, place: Place) -> Result:
    model = initialize(ARCHITECTURES[cell.settings["architecture"]], cell.trial)
    return _trained(cell, model, place.images.train, place.images.train_labels)


def _sleep(cell: Cell, place: Place) -> Result:
    model = place.network(cell.inputs[0])
    config = cell.settings["config"]
    night = srcsnn.sleep(model, place.images.train, config, seed=cell.trial)
    report = night.report.to_dict()
    return night.model, {"layers": report["layers"], "warnings": report["warnings"]}


def _fit_head(cell: Cell, place: Place) -> Result:
    """Feed-forward fitting: all but the convolutions is trained on clean images."""
    model = place.network(cell.inputs[0])
    for weights in _convolutions(model).values():
        weights.requires_grad_(False)
    return _trained(cell, model, place.images.train, place.images.train_labels)


def _fine_tune(cell: Cell, place: Place) -> Result:
    """Training on the clean images and six copies of them, one for each level of distortion.

    With several distortions each image of a copy draws which of them it gets.
    """
    clean, labels, chosen = place.images.train, place.images.train_labels, distortions_of(cell)
    drawn = stream(cell.trial, "fine-tune", *(d.name for d in chosen))
    ranks = len(chosen[0].levels)
    copies = torch.empty(1 + ranks, *clean.shape)
    copies[0] = clean
    for rank in range(ranks):
        which = torch.randint(len(chosen), (len(clean),), generator=drawn)
        for number, distortion in enumerate(chosen):
            level, indices = distortion.levels[rank], torch.nonzero(which == number)[:, 0]
            for part in torch.split(indices, 1000):
                # A name of its own: test images have the noise of the distortion's.
                noise = Noise(cell.trial, f"train {distortion.name}", level, tuple(part.tolist()))
                copies[1 + rank, part] = distortion(clean[part], level, noise)
    model = place.network(cell.inputs[0])
    return _trained(cell, model, copies.flatten(0, 1), labels.repeat(1 + ranks))


def _expand(cell: Cell, place: Place) -> Result:
    """GradExp: gradients as spread as after sleep, without any sleep."""
    model, slept = (place.network(below) for below in cell.inputs)
    target = _convolutions(slept)
    amounts = {}
    for name, weights in _convolutions(model).items():
        amounts[name] = matching_expansion(weights.detach(), fit_gradient(target[name].detach()))
        weights.data = expand(weights.detach(), amounts[name])
    return model, {"amounts": amounts}


def _evaluate(cell: Cell, place: Place) -> Result:
    images = place.images
    clean = cell.settings["distortion"] == "clean"
    counts = srcsnn.evaluate(
        place.network(cell.inputs[0]),
        images.test,
        images.test_labels,
        distortions=[] if clean else distortions_of(cell),
        seed=cell.trial,
    )
    found = counts.cells if clean else counts.cells[1:]
    return None, {"counts": [[each.level, each.correct, each.total] for each in found]}


def _gradients(cell: Cell, place: Place) -> Result:
    weights = _convolutions(place.network(cell.inputs[0]))
    fits = {name: fit_gradient(each.detach()) for name, each in weights.items()}
    return None, {name: {"mean": g.mean, "variance": g.variance} for name, g in fits.items()}


def _attention(cell: Cell, place: Place) -> Result:
    """Mean overlap of Grad-CAM with the clean digit, over the first test images, by level."""
    model = place.network(cell.inputs[0])
    first = slice(cell.settings["images"])
    images, labels = place.images.test[first], place.images.test_labels[first]
    layer = list(_convolutions(model))[-1]
    found: dict[str, list[float]] = {}
    for distortion in distortions_of(cell):
        found[distortion.name] = []
        for level in distortion.levels:
            noise = Noise(cell.trial, distortion.name, level, range(len(images)))
            maps = attention_maps(model, layer, distortion(images, level, noise), labels)
            found[distortion.name].append(float(overlap(maps, images).mean()))
    return None, {"layer": layer, "overlap": found}


def _trained(cell: Cell, model: nn.Module, images: Tensor, labels: Tensor) -> Result:
    losses: list[float] = []
    train(
        model,
        images,
        labels,
        Protocol(**cell.settings["protocol"]),
        seed=cell.trial,
        precision=cell.settings["precision"],
        progress=lambda epoch, loss: losses.append(loss),
    )
    return model, {"losses": losses}


def _convolutions(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the convolutions by the names of their layers, in order."""
    return {name: m.weight for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}


@cache
def _commit() -> str:
    """The last commit of the code, with a plus if it has changed since; "" without git."""
    root = Path(__file__).parents[1]

    def git(*words: str) -> str:
        # S603: the words are our own, none is a user's.
        command = ["git", "-C", str(root), *words, "--", "converters", "srcsnn", "experiments"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    try:
        return git("log", "-1", "--format=%h") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


_FUNCTIONS: Mapping[Kind, Callable[[Cell, Place], Result]] = {
    "train": _train,
    "sleep": _sleep,
    "fit-head": _fit_head,
    "fine-tune": _fine_tune,
    "expand": _expand,
    "evaluate": _evaluate,
    "gradients": _gradients,
    "attention": _attention,
    "trajectory": lambda cell, place: (None, {"snapshots": trajectory(cell, place)}),
}
