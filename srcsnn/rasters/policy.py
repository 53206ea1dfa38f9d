"""What of a run is recorded: which layers, how often, spikes or only their counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from srcsnn.errors import ConfigError

LARGEST_EVERY = 10**9
"""As many as a run may have steps."""


@dataclass(frozen=True)
class RecordPolicy:
    """What of a run is recorded; by default every spike of every layer at every step.

    Attributes:
        layers: Globs such as `"conv*"`; a layer is recorded if any of them matches its name.
        every: Keep steps 0, every, 2 * every, ...
        counts_only: Keep only the spike counts per channel and step and per neuron.

    Raises:
        ConfigError: If a field has the wrong type or is out of range.
    """

    layers: tuple[str, ...] = ("*",)
    every: int = 1
    counts_only: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.layers, str) or not all(isinstance(glob, str) for glob in self.layers):
            raise ConfigError(
                f"record layers must be a list of globs such as ['conv*'], got {self.layers!r}"
            )
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise ConfigError("record layers is empty; ['*'] records every layer")
        whole = isinstance(self.every, int) and not isinstance(self.every, bool)
        if not whole or not 1 <= self.every <= LARGEST_EVERY:
            raise ConfigError(
                f"record every must be a whole number from 1 to 10^9, got {self.every!r}"
            )
        if not isinstance(self.counts_only, bool):
            raise ConfigError(f"record counts_only must be true or false, got {self.counts_only!r}")

    @property
    def everything(self) -> bool:
        """Whether the spikes of every neuron in every step are kept, or at least counted."""
        return self.layers == ("*",) and self.every == 1

    def select(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names that are recorded, in the order given.

        Raises:
            ConfigError: If a glob matches no name; the message lists the names there are.
        """
        for glob in self.layers:
            if not any(fnmatchcase(name, glob) for name in names):
                raise ConfigError(
                    f"record layers: {glob!r} matches no layer; the layers are {', '.join(names)}"
                )
        return tuple(name for name in names if any(fnmatchcase(name, g) for g in self.layers))

    def rows(self, steps: int) -> int:
        """How many of the first `steps` steps are kept."""
        return -(-steps // self.every)
