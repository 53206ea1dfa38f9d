"""A name, or `module:attribute`, to an object. Strings become objects here and nowhere else."""

import difflib
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from srcsnn.errors import ConfigError

__all__ = ["current_folder_importable", "nearest", "resolve"]

T = TypeVar("T")


def nearest(word: str, choices: Iterable[str]) -> str:
    """The end of an error message that names the choice most like the word, or "" if none is.

    >>> nearest("paper-mnits", ["paper-mnist", "paper-cifar10"])
    " (did you mean 'paper-mnist'?)"
    >>> nearest("resnet", ["paper-mnist", "paper-cifar10"])
    ''
    """
    by_lower_case = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), by_lower_case, n=1)
    return f" (did you mean '{by_lower_case[close[0]]}'?)" if close else ""


# Any: what a user's module holds has the type that its author gave it; the caller checks it.
def resolve(name: str, builtins: Mapping[str, T], kind: str, group: str | None = None) -> T | Any:  # noqa: ANN401
    """The object that a name stands for: built-in, of an installed package, or of a module.

    Args:
        name: one of the built-in names, that of an entry point, or `package.module:attribute`. The
            attribute may be dotted (`module:Class.method`). Modules are looked up in the current
            folder, too.
        builtins: objects by their built-in names; these go first.
        kind: what is looked for, in words, such as "architecture"; used in messages only.
        group: of entry points that installed packages may offer names by.

    Raises:
        ConfigError: if the name is neither, the module cannot be found or fails while it is
            imported, or it has no such attribute.

    >>> resolve("half", {"half": 0.5}, "number")
    0.5
    >>> resolve("math:pi", {"half": 0.5}, "number")
    3.141592653589793
    """
    if name in builtins:
        return builtins[name]
    offered = {entry.name: entry.value for entry in entry_points(group=group)} if group else {}
    module_name, colon, attribute = offered.get(name, name).partition(":")
    words = [*module_name.split("."), *attribute.split(".")]
    if name in offered and not colon:
        raise ConfigError(
            f"{kind} {name!r}: an installed package offers {module_name!r} by that name, a module; "
            "right would be an entry point module:attribute"
        )
    if not colon or not all(word.isidentifier() for word in words):
        raise ConfigError(
            f"unknown {kind} {name!r}{nearest(name, [*builtins, *offered])}; right would be "
            f"{', '.join([*builtins, *offered, 'or your own as package.module:attribute'])}"
        )
    found: Any = _import(module_name, name, kind)
    for word in attribute.split("."):
        if not hasattr(found, word):
            raise ConfigError(_no_attribute(found, word, name, kind))
        found = getattr(found, word)
    return found


def _import(module_name: str, name: str, kind: str) -> ModuleType:
    try:
        with current_folder_importable():
            return importlib.import_module(module_name)
    # Whatever a user's module does while it is imported, even exit, is reported as its failure.
    except (Exception, SystemExit) as cause:
        # Of a.b.c the missing module may be a, a.b or a.b.c; any other name is one that it imports.
        if isinstance(cause, ModuleNotFoundError) and f"{module_name}.".startswith(
            f"{cause.name}."
        ):
            raise ConfigError(
                f"{kind} {name!r}: there is no module {cause.name!r} in the current folder or "
                f"installed{_without_suffix(module_name)}"
            ) from cause
        raise ConfigError(
            f"{kind} {name!r}: importing {module_name} failed with {type(cause).__name__}: {cause}"
        ) from cause


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Puts the working directory in front of `sys.path`, as `python -m` does."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()  # a module written a moment ago is found as well
    try:
        yield
    finally:
        # The module may have changed sys.path itself: take out our entry, wherever it is by now.
        if folder in sys.path:
            sys.path.remove(folder)


def _no_attribute(owner: object, word: str, name: str, kind: str) -> str:
    public = [each for each in dir(owner) if not each.startswith("_")]
    where = getattr(owner, "__name__", type(owner).__name__)
    return (
        f"{kind} {name!r}: {where} has no {word!r}{nearest(word, public)}; it has "
        f"{', '.join(public) or 'nothing public'}"
    )


def _without_suffix(module_name: str) -> str:
    stem = module_name.removesuffix(".py")
    return f"; write {stem!r} without .py" if stem != module_name else ""
