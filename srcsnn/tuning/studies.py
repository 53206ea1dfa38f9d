"""Where a search keeps what was tried: memory, an SQLite file, or a database."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna

from srcsnn.errors import ConfigError
from srcsnn.robustness import Robustness

__all__ = ["Store", "check_baseline", "open_study"]

_NAME = "srcsnn"


@dataclass(frozen=True)
class Store:
    """Where a search is kept, and what it is a search of.

    Attributes:
        place: a file, the URL of a database, or None for memory.
        population: how many settings make a generation.
        identity: of what, in words; a study of anything else is refused.
    """

    place: str | Path | None
    population: int
    identity: Mapping[str, str]


def open_study(store: Store) -> optuna.Study:
    """The study that is there, or a new one.

    Raises:
        ConfigError: if it cannot be opened, or is of something else.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns of Ctrl-C, with a traceback
    try:
        study = _create(store.place)
    # The errors of every database's driver, and that a driver is missing.
    except Exception as cause:
        why = next(iter(str(cause).splitlines()), type(cause).__name__)
        raise ConfigError(
            f"study {store.place}: cannot be opened: {why}; right would be the name of an SQLite "
            "file in a folder that is there, or the URL of a database whose driver is installed"
        ) from cause
    wanted = {**store.identity, "population": str(store.population)}
    found = study.user_attrs.get("of")
    if found is None:
        study.set_user_attr("of", wanted)
    elif other := [name for name in wanted if found.get(name) != wanted[name]]:
        raise ConfigError(
            f"study {store.place} is of another search: {', '.join(other)} differ; "
            "give a new name, or the same options to go on"
        )
    return study


def check_baseline(study: optuna.Study, place: object, baseline: Robustness) -> None:
    """Notes what the network does before sleep, or refuses a study in which it did something else.

    Two networks may have the same weights and layers, and another `forward`.

    Raises:
        ConfigError: if more than one in a hundred images differ, which rounding does not explain.
    """
    now = [cell.correct for cell in baseline.cells]
    before = study.user_attrs.get("baseline")
    if before is None:
        study.set_user_attr("baseline", now)
        return
    most = baseline.cells[0].total / 100
    if any(abs(a - b) > most for a, b in zip(before, now, strict=True)):
        raise ConfigError(
            f"study {place} is of another network: before sleep it had {before[0]} of the "
            f"validation images right, and this one has {now[0]}; give a new name"
        )


def _create(place: str | Path | None, patience: int = 20) -> optuna.Study:
    try:
        return optuna.create_study(
            storage=_storage(place), study_name=_NAME, direction="maximize", load_if_exists=True
        )
    except Exception as cause:
        # Another process makes the same study at this moment, and was first.
        if not patience or "already exists" not in str(cause):
            raise
    time.sleep(0.1)
    return _create(place, patience - 1)


def _storage(place: str | Path | None) -> optuna.storages.BaseStorage | None:
    if place is None:
        return None
    url = str(place) if "://" in str(place) else f"sqlite:///{Path(place)}"
    if url.startswith("sqlite"):
        # Processes wait for each other's writing instead of giving up.
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
    return optuna.storages.RDBStorage(url)
