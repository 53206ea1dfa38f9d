"""The settings of a sleep: named after the paper's data sets, or read from a TOML file."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from converters import Bias, Diehl, Legacy, Normalization, Percentile
from srcsnn.errors import ConfigError
from srcsnn.plasticity import IncDec
from srcsnn.plugins import nearest
from srcsnn.replay import PoissonMean

__all__ = [
    "AutoConfig",
    "SleepConfig",
    "load_config",
    "load_settings",
    "named_configs",
]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Steps = Annotated[int, Field(gt=0, le=10**9)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

S = TypeVar("S", bound="_Settings")


class _Settings(BaseModel):
    """Settings by name, each checked, none unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_values(cls, settings: object) -> object:
        # pydantic would take true for 1.
        if isinstance(settings, Mapping):
            for name, value in settings.items():
                for each in value if isinstance(value, list | tuple) else (value,):
                    if isinstance(each, bool):
                        word = str(each).lower()
                        raise ValueError(f"{name} = {word}: no setting is true or false")
        return settings

    if not TYPE_CHECKING:  # it would hide from type checkers what settings there are

        def __init__(self, /, **settings: object) -> None:
            try:
                super().__init__(**settings)
            except ValidationError as error:
                raise ConfigError(f"{type(self).__name__}: {_faults(type(self), error)}") from error

    def with_changes(self, /, **changes: object) -> Self:
        """A copy with some settings changed, checked again.

        Raises:
            ConfigError: as `load_config`.
        """
        given = self.model_dump(exclude_unset=True)
        return _validate(type(self), given | changes, "the changed settings")


class SleepConfig(_Settings):
    """All numbers of a sleep. Where the paper leaves a choice, the default is ours and said so.

    Attributes:
        steps: number of time steps (Ts).
        coefficient: factor on every alpha.
        thresholds: one for each spiking layer, in network order.
        decay: share of the voltage kept from step to step, in [0, 1].
        inc: change of a weight when post and pre spike, 0 or more, in the CNN's units; one for all
            layers that sleep, or one for each, in network order.
        dec: amount subtracted when post spikes and pre is silent, likewise.
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

    steps: Steps
    coefficient: Positive
    thresholds: Annotated[tuple[Positive, ...], Field(min_length=1)]
    decay: Annotated[float, Field(ge=0, le=1)]
    inc: NotNegative | Annotated[tuple[NotNegative, ...], Field(min_length=1)]
    dec: NotNegative | Annotated[tuple[NotNegative, ...], Field(min_length=1)]
    gate: Literal["off"] | Positive = "off"
    dt_s: Positive = 0.001
    max_rate_hz: Positive
    rate_factor: Positive = 1.0
    layers: Literal["conv", "all"] | tuple[str, ...] = "conv"
    normalization: Literal["diehl", "legacy", "percentile"] = "diehl"
    percentile: Annotated[float, Field(gt=0, le=100)] = 99.9
    bias: Bias = "scaled"
    neuron: str = "leaky"

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

    def make_rules(self, layers: Sequence[str]) -> tuple[IncDec, ...]:
        """The learning rule with these numbers, for each of the named layers that sleep.

        Raises:
            ConfigError: if there is neither one inc, or dec, for all nor one for each.
        """
        gate = None if self.gate == "off" else self.gate
        incs, decs = (_one_each(name, getattr(self, name), layers) for name in ("inc", "dec"))
        return tuple(IncDec(inc, dec, gate) for inc, dec in zip(incs, decs, strict=True))

    def make_replay(self, image: Tensor) -> PoissonMean:
        """Poisson noise shaped like this image (C, H, W), the mean of the training images."""
        return PoissonMean(
            image, max_rate_hz=self.max_rate_hz, dt_s=self.dt_s, rate_factor=self.rate_factor
        )

    def to_toml(self) -> str:
        """All settings, defaults too, as a TOML file that `load_config` reads."""
        # Numbers, words and lists of them are written alike in JSON and TOML.
        settings = self.model_dump()
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())


class AutoConfig(_Settings):
    """What a sleep should reach; `settle` finds the settings that reach it in a given network.

    The defaults were chosen on training images of networks trained here; see the explanation
    "Sleep without hand-set numbers".

    Attributes:
        rate: spikes per neuron and step that the mean image should call up in every layer, in
            (0, 1); a threshold for each layer is found that gives it.
        tolerance: how far from the rate a layer may stay, as a share of it.
        dose: relative change of a layer's weights (Frobenius norms) at which the night ends, in the
            root mean square over the layers that sleep, above 0.
        tilt: dose of the last layer that sleeps over that of the first, in equal ratios in between,
            above 0; `dose` is their geometric mean.
        keep: share of training images that must be classed as before the night, in [0, 1]; the
            dose is halved until they are. Needs no labels. 0 to look at no classes at all.
        keep_shifted: the same for these images shifted by a pixel, which the network has not seen:
            it may know its training images by heart.
        dec_share: dec / (inc + dec), in [0, 1]. A synapse grows if its pre spikes in more than
            this share of the post spikes.
        steps: time steps that the dose is spread over.
        brightest: spike probability of the brightest pixel of the mean image, in (0, 1].
        decay: share of the voltage kept from step to step, in [0, 1].
        gate: as in `SleepConfig`.
        layers: the layers to put to sleep: "conv", "all", or a list of names.
        bias: "scaled" by Diehl's rule, or "off".
        neuron: as in `SleepConfig`.
    """

    rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.1
    dose: Positive = 0.3
    tilt: Positive = 1.0
    keep: Annotated[float, Field(ge=0, le=1)] = 0.99
    keep_shifted: Annotated[float, Field(ge=0, le=1)] = 0.95
    dec_share: Annotated[float, Field(ge=0, le=1)] = 0.9
    steps: Steps = 100
    brightest: Annotated[float, Field(gt=0, le=1)] = 0.25
    decay: Annotated[float, Field(ge=0, le=1)] = 1.0
    gate: Literal["off"] | Positive = 0.001
    layers: Literal["conv", "all"] | tuple[str, ...] = "conv"
    bias: Bias = "scaled"
    neuron: str = "leaky"


_FOUND = SleepConfig.model_fields.keys() - AutoConfig.model_fields.keys()
"""What auto finds, or does not use."""


def named_configs() -> tuple[str, ...]:
    """The names that `load_config` knows."""
    found = (files("srcsnn") / "configs").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in found if f.name.endswith(".toml")))


def load_settings(
    config: "str | Path | SleepConfig | AutoConfig | Mapping[str, object]",
) -> SleepConfig | AutoConfig:
    """As `load_config`, and an `AutoConfig` for the name "auto" or as it is.

    Raises:
        ConfigError: as `load_config`.
    """
    if isinstance(config, AutoConfig):
        return config
    return AutoConfig() if config == "auto" else load_config(config)


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
        return _validate(SleepConfig, dict(config), "the settings")
    if str(config) in named_configs():
        source = files("srcsnn") / "configs" / f"{config}.toml"
        return _validate(SleepConfig, tomllib.loads(source.read_text("utf-8")), str(config))
    if config == "auto":
        raise ConfigError('"auto" finds its settings in a network and its images: see settle')
    path = Path(config)
    if not path.is_file():
        raise ConfigError(
            f"no configuration {str(config)!r}{nearest(str(config), named_configs())}: "
            f"neither a TOML file nor one of auto, {', '.join(named_configs())}"
        )
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    return _validate(SleepConfig, settings, str(path))


def _one_each(name: str, value: float | Sequence[float], layers: Sequence[str]) -> Sequence[float]:
    """A setting for each sleeping layer, out of one for all or one for each."""
    if not isinstance(value, Sequence):
        return [value] * len(layers)
    if len(value) != len(layers):
        raise ConfigError(
            f"{name}: {len(value)} given for {len(layers)} sleeping layers ({', '.join(layers)})"
        )
    return value


def _validate(kind: type[S], settings: dict[str, object], source: str) -> S:
    try:
        return kind(**{str(name): value for name, value in settings.items()})
    except ConfigError as error:
        faults = str(error).removeprefix(f"{kind.__name__}: ")
        raise ConfigError(f"{source}: {faults}") from error.__cause__


def _faults(kind: type[_Settings], error: ValidationError) -> str:
    # pydantic drops wrong numbers and then calls the list that is left too short.
    told = (
        _explain(one, kind)
        for one in error.errors(include_url=False)
        if not (one["type"] == "too_short" and one["input"])
    )
    # Once each: a setting of two kinds is refused twice.
    return "; ".join(dict.fromkeys(told))


def _explain(error: object, kind: type[_Settings]) -> str:
    assert isinstance(error, dict)  # pydantic's ErrorDetails
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden" and kind is AutoConfig and name in _FOUND:
        return f"{name} is found by auto; to set it yourself, give all settings (--config)"
    if error["type"] == "extra_forbidden":
        return f"unknown setting {name!r}{nearest(name, kind.model_fields)}"
    if error["type"] == "missing":
        return f"{name} is missing"
    if name.startswith("layers."):  # pydantic tells why it is neither of the two kinds
        return f'layers = {error["input"]!r}: right would be "conv", "all", or a list of names'
    if name.startswith("gate."):
        return f'gate = {error["input"]!r}: right would be "off", or a number above 0'
    if name.startswith(("inc.", "dec.")):
        right = "a number, 0 or more, or a list with one for each sleeping layer"
        return f"{name.partition('.')[0]} = {error['input']!r}: right would be {right}"
    message = error["msg"].removeprefix("Value error, ")
    message = message.replace("valid tuple", "list").replace("Tuple", "List")
    return f"{name} = {error['input']!r}: {message}" if name else message
