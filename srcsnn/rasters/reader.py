"""Reads raster files, lazily: only the chunks that a question needs are touched."""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from srcsnn.errors import ConfigError, RasterError
from srcsnn.rasters.checks import Checked, damage_named, open_file
from srcsnn.rasters.layer import LayerRaster
from srcsnn.rasters.policy import LARGEST_EVERY


def open_raster(path: str | os.PathLike[str]) -> "Raster":
    """Opens a raster file for reading; use it in a `with` statement.

    Args:
        path: A finished file, or the `.part` that a killed run has left.

    Raises:
        RasterError: If it is missing, not a raster file, damaged, of a newer format, without a
            single whole step, or still being written.
    """
    path = Path(path)
    file = open_file(path)
    try:
        with damage_named(path):
            return Raster(file, path)
    except BaseException:
        file.close()
        raise


class NoLayerError(ConfigError, KeyError):
    """A layer that a file does not have; a KeyError, so that `raster.get(name)` works."""

    __str__ = ConfigError.__str__  # a KeyError would put quotes around it


class Raster(Mapping[str, LayerRaster]):
    """An open raster file: a mapping from layer names, in network order, to their spikes.

    Attributes:
        path: Of the file.
        steps_planned: Steps that the run was meant to have.
        steps_valid: Recorded steps in the file.
        complete: Whether the run went to its planned end.
        status: "complete", "stopped at step k of n", "aborted at step k: why", or "recording or
            killed".
        dt_s: Length of a step in seconds.
        every: Every how many steps of the run one was recorded.
        created: When the recording began, ISO 8601, UTC; empty if not noted.
        provenance: Configuration, seeds and versions, as noted by the run.
    """

    def __init__(self, file: Any, path: Path) -> None:  # noqa: ANN401  # h5py ships no types
        self.path = path
        self._file = file
        checked = Checked(file, path)
        checked.check_format()
        self.steps_planned = checked.whole(file, "steps_planned", 0)
        self.every = checked.whole(file, "every", 1)
        self.dt_s = checked.number(file, "dt_s") or math.nan
        self.steps_valid = checked.small("steps_valid", (1,))[0]
        self.complete = checked.small("complete", (1,)) == [1]
        self.status = checked.status()
        if self.status in ("", "recording"):
            self.status = "recording or killed"
        if self.every > LARGEST_EVERY:
            checked.refuse(
                f"damaged: one of {self.every} steps was recorded, more than any run has"
            )
        if self.steps_valid < 1:
            checked.refuse(f"holds no whole step ({self.status}); record again")
        self.created = checked.text(file, "created", "")
        self.provenance = checked.provenance()
        groups = checked.group(file, "layers")
        layers = [(name, checked.group(groups, name)) for name in groups]
        layers.sort(key=lambda layer: checked.whole(layer[1], "index", 0))
        if not layers:
            checked.refuse("damaged: holds no layer")
        counts_rows = checked.small("counts_rows", (2,))
        self._layers = {
            name: LayerRaster(checked, group, self.steps_valid, counts_rows, lambda: self.steps)
            for name, group in layers
        }
        self._steps = checked.steps(self.steps_valid) if self.every > 1 else None

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """Step number in the run of each recorded step, (T,)."""
        if self._steps is None:
            return np.arange(self.steps_valid, dtype=np.int64)
        if not self._file:
            raise RasterError(f"{self.path}: is closed; read its steps before that")
        with damage_named(self.path):
            steps = np.asarray(self._steps[: self.steps_valid], np.int64)
        if (steps != self.every * np.arange(self.steps_valid)).any():
            raise RasterError(f"{self.path}: damaged: steps are not every {self.every}th of a run")
        return steps

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the recorded layers in network order."""
        return tuple(self._layers)

    def __getitem__(self, name: str) -> LayerRaster:
        """The layer of this name; if there is none, a ConfigError that is a KeyError too."""
        if name not in self._layers:
            raise NoLayerError(f"{self.path}: no layer {name!r}; there are {', '.join(self)}")
        return self._layers[name]

    def __contains__(self, name: object) -> bool:
        return name in self._layers

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from srcsnn.rasters.notebook import table_of  # it reads summaries, which read this

        return table_of(self)

    def __repr__(self) -> str:
        return f"<Raster {str(self.path)!r}: {', '.join(self)}; {self.steps_valid} steps>"

    @property
    def name(self) -> str:
        """Name of the file, to be shown."""
        return os.fsencode(self.path.name).decode(errors="replace")

    def close(self) -> None:
        """Closes the file; further calls do nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
