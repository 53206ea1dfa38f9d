"""Files that are there completely or not at all."""

import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from os.path import exists
from pathlib import Path
from typing import BinaryIO

from srcsnn.errors import ConfigError, SrcsnnError

__all__ = [
    "OVERWRITE",
    "check_distinct",
    "check_target",
    "json_text",
    "replacing",
    "write_atomically",
    "write_json",
    "write_text",
]

OVERWRITE = "give --overwrite (in Python overwrite=True)"
"""What to do about a file that is there already, for the end of an error."""


def check_target(
    path: str | Path, *, overwrite: bool = False, error: type[SrcsnnError] = SrcsnnError
) -> Path:
    """Says now what writing would say later; call it before work that takes long.

    Args:
        path: the file to be written.
        overwrite: whether a file that is there may be replaced.
        error: what to raise.

    Returns:
        The path, of the file itself where it is a symbolic link.

    Raises:
        SrcsnnError: (or the given `error`) if the folder is missing or not writable, the path is a
            folder or a device, or it is there already and `overwrite` is false.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise error(f"cannot write {path}: it is a folder; give the name of a file in it")
    if target.exists() and not target.is_file():
        raise error(f"cannot write {path}: it is a device or a pipe; give the name of a file")
    if target.parent.is_file():
        raise error(f"cannot write {path}: {target.parent} is a file, not a folder")
    if not target.parent.is_dir():
        raise error(f"cannot write {path}: there is no folder {target.parent}; create it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise error(f"cannot write {path}: the folder {target.parent} is not writable")
    if target.exists() and not overwrite:
        raise error(f"{path} is there already; choose another name, or {OVERWRITE}")
    return target


def check_distinct(
    paths: Mapping[str, str | Path | None], *, read: Mapping[str, str] | None = None
) -> None:
    """Raises ConfigError if two of these paths are the same file, by whatever name.

    Args:
        paths: by what they are; None for what is not asked for.
        read: what none of them may be. A name that is no file, of a data set for example, is
            nobody's; several may be one file.
    """
    seen = {os.path.realpath(path): what for what, path in (read or {}).items() if exists(path)}
    for what, path in paths.items():
        if path is None:
            continue
        other = seen.setdefault(os.path.realpath(path), what)
        if other != what:
            raise ConfigError(f"{path} is both {other} and {what}; give each a file of its own")


@contextmanager
def replacing(path: str | Path, *, error: type[SrcsnnError] = SrcsnnError) -> Iterator[Path]:
    """A place to write a file to, whose name only ever shows the old content or the whole new one.

    The content goes to a temporary file in the same folder, to the disk, and only then under its
    name. Whatever interrupts it, a full disk or Ctrl-C, the temporary file is removed and a file
    that was there before stays as it was. Like `os.replace` it replaces; `check_target` refuses.

    Args:
        path: the file to be written.
        error: what to raise when the disk or the folder refuses.

    Yields:
        Where the block must write the file, and close it; nothing is there yet.

    Raises:
        SrcsnnError: (or the given `error`) for whatever `check_target` finds, and for a full disk.
    """
    target = check_target(path, overwrite=True, error=error)
    # Not by tempfile: its files are readable by their owner only, and would stay so.
    temporary = target.with_name(f".srcsnn-{secrets.token_hex(8)}.part")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as cause:
        _remove(temporary)
        reason = cause.strerror or str(cause)
        raise error(f"cannot write {path}: {reason}; nothing was changed") from cause
    except BaseException:
        _remove(temporary)
        raise


def write_atomically(
    path: str | Path,
    write: Callable[[BinaryIO], object],
    *,
    error: type[SrcsnnError] = SrcsnnError,
) -> None:
    """Writes a file as `replacing` does.

    Args:
        path: the file to be written.
        write: is given a binary file to write to; what it raises is passed on.
        error: what to raise when the disk or the folder refuses.

    Raises:
        SrcsnnError: (or the given `error`) for whatever `check_target` finds, and for a full disk.
    """
    with replacing(path, error=error) as temporary, open(temporary, "xb") as file:
        write(file)


def write_text(path: str | Path, text: str, *, error: type[SrcsnnError] = SrcsnnError) -> None:
    """Writes UTF-8 text as `write_atomically` does."""
    write_atomically(path, lambda file: file.write(text.encode()), error=error)


def write_json(path: str | Path, value: object, *, error: type[SrcsnnError] = SrcsnnError) -> None:
    """Writes `json_text` of the value as `write_atomically` does.

    Raises:
        TypeError: if the value holds what JSON cannot; nothing is written then.
    """
    write_text(path, json_text(value), error=error)


def json_text(value: object) -> str:
    r"""JSON with sorted keys and an indent of two, ending in a line break.

    Paths are written as text, and NaN and the infinities, for which JSON has no word, as null.

    Raises:
        TypeError: if the value holds what JSON cannot.

    >>> json_text({"b": float("nan"), "a": Path("x.pt")})
    '{\n  "a": "x.pt",\n  "b": null\n}\n'
    """
    plain = _plain(value)
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str | Path):
        # Bytes of a file name that are no UTF-8, which JSON cannot hold, are spelt out.
        return str(value).encode(errors="backslashreplace").decode()
    return value


def _remove(temporary: Path) -> None:
    with suppress(OSError):  # it may not exist, and the first error is the one to be seen
        temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Makes the new name survive a power cut, where the system has a way to ask for it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
