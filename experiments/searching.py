"""The search behind Table II: settings for one trial's network, kept as a variant of the study."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from converters import Layers, spiking_layers
from experiments.compute import one_thread
from experiments.place import Place
from experiments.study import CONFIGS, Study, targets
from srcsnn.config import load_config
from srcsnn.distortions import DISTORTIONS
from srcsnn.errors import ConfigError
from srcsnn.files import write_text
from srcsnn.tuning import Candidate, Search, search

__all__ = ["LINEAR_THRESHOLD", "search_variant"]

TRIAL = 0
"""Whose network the settings are found for, as in the paper on one trial."""

LINEAR_THRESHOLD = 10.0
"""Where the search for the threshold of a linear layer begins; the paper has none."""


def search_variant(
    study: Study,
    place: Place,
    name: str,
    layers: Layers,
    candidates: int,
    results: Path,
    progress: Callable[[Candidate, int, int], None],
) -> Path:
    """Searches settings, writes the best as a variant of the study and all as JSON.

    Args:
        study: of the data set.
        place: where the network of the trial is.
        name: of the variant.
        layers: that sleep; those below spike as well.
        candidates: how many settings to try.
        results: folder for all that was tried.
        progress: told of each candidate.

    Returns:
        The TOML file of the best settings.

    Raises:
        ConfigError: if the network has not been trained yet, or no settings keep clean accuracy.
    """
    cell = next(targets(study, place.images.sha256, [TRIAL], ["baseline"])).inputs[0]
    if cell not in place.models:
        raise ConfigError(f"{cell} is not there; `run {study.data} --methods baseline` first")
    model, images = place.network(cell), place.images
    start = load_config(study.config)
    more = len(spiking_layers(model, layers)) - len(start.thresholds)
    thresholds = (*start.thresholds, *[LINEAR_THRESHOLD] * more)
    start = start.with_changes(layers=layers, thresholds=thresholds)
    with one_thread():
        found = search(
            model,
            images.train,
            images.train_labels,
            start,
            trials=candidates,
            seed=TRIAL,
            distortions=[DISTORTIONS[distortion] for distortion in study.distortions],
            progress=progress,
        )
    write_text(results / f"{study.data}-{name}.json", _as_json(found))
    path = CONFIGS / study.data / f"{name}.toml"
    # Where nothing was added to the published settings, they are in the study already.
    tried = found.candidates if more else found.candidates[1:]
    write_text(path, _as_toml(found, replace(found, candidates=tried).best))
    return path


def _as_json(found: Search) -> str:
    """All candidates, a line each."""
    baseline = json.dumps({"clean": found.baseline.clean, "mean": found.baseline.mean()})
    candidates = (
        json.dumps(asdict(each) | {"config": each.config.model_dump(exclude_unset=True)})
        for each in found.candidates
    )
    return (
        f'{{"baseline": {baseline}, "clean_loss": {found.clean_loss}, "candidates": [\n'
        + ",\n".join(candidates)
        + "\n]}\n"
    )


def _as_toml(found: Search, best: Candidate | None) -> str:
    """Settings, with what the search knows of them."""
    tried, start = len(found.candidates), found.candidates[0]
    if best is None:
        raise ConfigError(f"all of {tried} settings lose more than {found.clean_loss:.0%}")
    rows = {
        "before sleep": (found.baseline.mean(), found.baseline.clean),
        "start": (start.mean, start.clean),
        "these": (best.mean, best.clean),
    }
    lines = [f"# The best of {tried} candidates of `python -m experiments search`."]
    lines += [
        f"# {name}: {100 * mean:.2f} % of validation images under distortions, "
        f"{100 * clean:.2f} % clean"
        for name, (mean, clean) in rows.items()
    ]
    return "\n".join(lines) + "\n" + best.config.with_changes(neuron="leaky").to_toml()
