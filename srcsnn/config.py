"""The settings of a sleep: named after the paper's data sets, or read from a TOML file."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from converters import Bias, Diehl, Legacy, Normalization, Percentile
from srcsnn.errors import ConfigError
from srcsnn.plasticity import IncDec
from srcsnn.plugins import nearest

__all__ = ["SleepConfig", "load_config", "named_configs", "parse_changes"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SleepConfig(BaseModel):
    """All numbers of a sleep. Where the paper leaves a choice, the default is ours and said so.

    Attributes:
        steps: number of time steps (Ts).
        coefficient: factor on every alpha.
        thresholds: one for each spiking layer, in network order.
        decay: share of the voltage kept from step to step, in [0, 1].
        inc: change of a weight when post and pre spike, 0 or more, in the CNN's units.
        dec: amount subtracted when post spikes and pre is silent, 0 or more.
        gate: width of the weight-dependent gate on every change (`IncDec`), in the CNN's units, or
            "off".
        dt_s: duration of a step in seconds.
        max_rate_hz: input rate of a pixel of value 1.
        rate_factor: factor on the input rate; the 2022 MATLAB code fires at twice the nominal rate.
        layers: the layers to put to sleep: "conv", "all", or a list of names.
        normalization: "diehl", "legacy" (the recursion of the 2022 code) or "percentile".
        percentile: percent of the positive activations that lambda covers; for "percentile" only.
        bias: "scaled" by Diehl's rule, or "off". The paper's networks have none.
        neuron: "leaky" (snnTorch), "lif" (the same spikes, faster), or `module:attribute`, called
            with a threshold and a decay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    steps: Annotated[int, Field(gt=0)]
    coefficient: Positive
    thresholds: Annotated[tuple[Positive, ...], Field(min_length=1)]
    decay: Annotated[float, Field(ge=0, le=1)]
    inc: NotNegative
    dec: NotNegative
    gate: Literal["off"] | Positive = "off"
    dt_s: Positive = 0.001
    max_rate_hz: Positive
    rate_factor: Positive = 1.0
    layers: Literal["conv", "all"] | tuple[str, ...] = "conv"
    normalization: Literal["diehl", "legacy", "percentile"] = "diehl"
    percentile: Annotated[float, Field(gt=0, le=100)] = 99.9
    bias: Bias = "scaled"
    neuron: str = "leaky"

    @model_validator(mode="before")
    @classmethod
    def _no_truth_values(cls, settings: object) -> object:
        # pydantic would take true for 1.
        if isinstance(settings, Mapping):
            for name, value in settings.items():
                if isinstance(value, bool):
                    raise ValueError(f"{name} = {str(value).lower()}: no setting is true or false")
        return settings

    @model_validator(mode="after")
    def _percentile_is_used(self) -> Self:
        # Its default may be written out: the settings noted beside a result are settings again.
        default = type(self).model_fields["percentile"].default
        if self.percentile != default and self.normalization != "percentile":
            raise ValueError('percentile is used with normalization = "percentile" only')
        return self

    def make_normalization(self) -> Normalization:
        """The normalisation that the words name."""
        if self.normalization == "percentile":
            return Percentile(self.percentile)
        return Legacy() if self.normalization == "legacy" else Diehl()

    def make_rule(self) -> IncDec:
        """The learning rule with these numbers."""
        return IncDec(self.inc, self.dec, None if self.gate == "off" else self.gate)

    def with_changes(self, **changes: object) -> "SleepConfig":
        """A copy with some settings changed, checked again.

        Raises:
            ConfigError: as `load_config`.
        """
        return _validate(self.model_dump(exclude_unset=True) | changes, "the changed settings")


def named_configs() -> tuple[str, ...]:
    """The names that `load_config` knows."""
    found = (files("srcsnn") / "configs").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in found if f.name.endswith(".toml")))


def load_config(config: "str | Path | SleepConfig | Mapping[str, object]") -> SleepConfig:
    """A configuration by name, from a TOML file, from settings by name, or as it is.

    Raises:
        ConfigError: for an unknown name, a missing or broken file, or with every setting that is
            unknown, missing or out of range.

    >>> load_config("paper-mnist").thresholds
    (4.15, 9.47)
    """
    if isinstance(config, SleepConfig):
        return config
    if isinstance(config, Mapping):
        return _validate(dict(config), "the settings")
    if str(config) in named_configs():
        source = files("srcsnn") / "configs" / f"{config}.toml"
        return _validate(tomllib.loads(source.read_text("utf-8")), str(config))
    path = Path(config)
    if not path.is_file():
        raise ConfigError(
            f"no configuration {str(config)!r}{nearest(str(config), named_configs())}: "
            f"neither a TOML file nor one of {', '.join(named_configs())}"
        )
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    return _validate(settings, str(path))


def parse_changes(assignments: Sequence[str]) -> dict[str, object]:
    """Settings out of words like `steps=400`, values as in TOML; a bare word is a string.

    Raises:
        ConfigError: if a word has no equals sign.

    >>> parse_changes(["steps=400", "thresholds=[4.0, 9.0]", "layers=all"])
    {'steps': 400, 'thresholds': [4.0, 9.0], 'layers': 'all'}
    """
    changes: dict[str, object] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{assignment!r}: write a setting as name=value")
        try:
            changes[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            changes[name.strip()] = value.strip()
    return changes


def _validate(settings: dict[str, object], source: str) -> SleepConfig:
    try:
        return SleepConfig.model_validate(settings)
    except ValidationError as error:
        # Once each: a setting of two kinds is refused twice.
        found = "; ".join(dict.fromkeys(_explain(one) for one in error.errors(include_url=False)))
        raise ConfigError(f"{source}: {found}") from error


def _explain(error: object) -> str:
    assert isinstance(error, dict)  # pydantic's ErrorDetails
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown setting {name!r}{nearest(name, SleepConfig.model_fields)}"
    if error["type"] == "missing":
        return f"{name} is missing"
    if name.startswith("layers."):  # pydantic tells why it is neither of the two kinds
        return f'layers = {error["input"]!r}: right would be "conv", "all", or a list of names'
    if name.startswith("gate."):
        return f'gate = {error["input"]!r}: right would be "off", or a number above 0'
    message = error["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
    return f"{name} = {error['input']!r}: {message}" if name else message
