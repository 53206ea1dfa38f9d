"""One family of errors: what was wrong, where, and what would be right.

What a user can mend derives from `SrcsnnError`, but for the `ConversionError` of `converters`,
which knows nothing of this package. Both are ValueErrors, and the command line prints either in a
line or two without a traceback. `ConversionError` is re-exported here when it is first asked for:
`converters` brings torch along, which reading a raster does without.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.errors import ConversionError

__all__ = [
    "CheckpointError",
    "ConfigError",
    "ConformanceError",
    "ConversionError",
    "DatasetError",
    "RasterError",
    "SleepError",
    "SrcsnnError",
]


class SrcsnnError(ValueError):
    """Base of the errors that a user can mend, all but `ConversionError`."""


class ConfigError(SrcsnnError):
    """An option, a name or a configuration that cannot be used as given."""


class ConformanceError(SrcsnnError):
    """A plug-in that does not do what its protocol asks for."""


class CheckpointError(SrcsnnError):
    """A checkpoint that cannot be read, does not fit the network, or cannot be written."""


class DatasetError(SrcsnnError):
    """Images or labels that are missing, malformed, or outside the range [0, 1]."""


class RasterError(SrcsnnError):
    """A raster file that cannot be read or written."""


class SleepError(SrcsnnError):
    """A sleep that cannot start or go on."""


def __getattr__(name: str) -> type[Exception]:
    if name != "ConversionError":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from converters.errors import ConversionError

    return ConversionError
