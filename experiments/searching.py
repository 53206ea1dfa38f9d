"""The search behind Table II: settings for one trial's network, kept as a variant of the study."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from converters import Layers, spiking_layers
from experiments.compute import Place, one_thread
from experiments.study import CONFIGS, Study, targets
from srcsnn.config import SleepConfig, load_config
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
    write_text(results / f"{study.data}-{name}.json", json.dumps(_as_json(found), indent=1) + "\n")
    if found.best is None:
        raise ConfigError(f"none of {candidates} settings lose at most {found.clean_loss:.0%}")
    path = CONFIGS / study.data / f"{name}.toml"
    head = (
        f"# The best of {candidates} candidates of `python -m experiments search`: on validation\n"
        f"# images {100 * found.best.mean:.2f} % under distortions (baseline "
        f"{100 * found.baseline.mean():.2f}), {100 * found.best.clean:.2f} % clean "
        f"({100 * found.baseline.clean:.2f}).\n"
    )
    write_text(path, head + _as_toml(found.best.config))
    return path


def _as_json(found: Search) -> dict[str, Any]:
    return {
        "baseline": {"clean": found.baseline.clean, "mean": found.baseline.mean()},
        "clean_loss": found.clean_loss,
        "candidates": [
            asdict(each) | {"config": each.config.model_dump()} for each in found.candidates
        ],
    }


def _as_toml(config: SleepConfig) -> str:
    # Numbers, words and lists of them are written alike in JSON and TOML.
    settings = config.model_dump(exclude_unset=True) | {"neuron": "leaky"}
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
