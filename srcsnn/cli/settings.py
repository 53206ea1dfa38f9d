"""Settings as the words of a command line say them."""

import tomllib
from collections.abc import Sequence
from typing import Literal

from srcsnn.config import AutoConfig, SleepConfig, load_settings
from srcsnn.errors import ConfigError

__all__ = ["parse_changes", "parse_layers", "settings_of"]


def settings_of(config: str, changes: Sequence[str] | None) -> SleepConfig | AutoConfig:
    """What `--config` names, with what `--set` changes.

    Raises:
        ConfigError: as `load_settings` and `parse_changes`.
    """
    return load_settings(config).with_changes(**parse_changes(changes or []))


def parse_changes(assignments: Sequence[str]) -> dict[str, object]:
    """Settings out of words like `steps=400`, values as in TOML; a bare word is a string.

    Raises:
        ConfigError: if a word has no equals sign.

    >>> parse_changes(["steps=400", "thresholds=[4.0, 9.0]", "layers=conv1,conv2"])
    {'steps': 400, 'thresholds': [4.0, 9.0], 'layers': ('conv1', 'conv2')}
    """
    changes: dict[str, object] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{assignment!r}: write a setting as name=value")
        name, value = name.strip(), value.strip()
        try:
            changes[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            changes[name] = parse_layers(value) if name == "layers" else value
    return changes


def parse_layers(words: str) -> Literal["conv", "all"] | tuple[str, ...]:
    """Which layers sleep, as `layers` of the settings, out of "conv", "all", or names with commas.

    >>> parse_layers("all"), parse_layers("conv1, conv2")
    ('all', ('conv1', 'conv2'))
    """
    if words in ("conv", "all"):
        return words  # type: ignore[return-value]  # mypy narrows no `in`
    return tuple(name.strip() for name in words.split(","))
