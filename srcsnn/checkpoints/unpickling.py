"""Reads what `torch.save` wrote without running code from it, and explains what it refuses.

What torch says about a file that it refuses is for its developers; here each bad file gets one
sentence for its owner.
"""

import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct, scalar

from srcsnn.checkpoints.payload import WRAPPERS
from srcsnn.errors import CheckpointError

__all__ = ["load_torch"]

_BYTES_AT_ONCE = 2**20
_LEGACY_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")  # first of all in files before torch 1.6

_NUMBERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (scalar, "numpy._core.multiarray.scalar"),
    (scalar, "numpy.core.multiarray.scalar"),  # its name in numpy 1
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"),
]
"""What NumPy's numbers and arrays of numbers are rebuilt from; none of it runs code of the file's.
Training scripts leave the best accuracy so far as the one, losses as the other."""


def load_torch(path: Path, data: bytes) -> Any:  # noqa: ANN401  # a file may hold anything
    """The payload of a file that `torch.save` wrote.

    Raises:
        CheckpointError: if it is none, is damaged, or only code from it could rebuild its objects.
    """
    zipped = data.startswith(b"PK")
    if zipped:
        _check_zip(path, data)
    elif not data.startswith(b"\x80"):  # every pickle of protocol 2 or later starts with this byte
        raise CheckpointError(f"{path} is not a checkpoint: it looks like {_looks_like(data)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on pickles that end in an error anyway
            with torch.serialization.safe_globals(_NUMBERS):
                return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as cause:  # bytes from anywhere make torch raise almost anything
        refused = _refused_classes(data, str(cause))
        if refused and not _is_cut(data):  # half the name of a class is refused as well
            raise CheckpointError(_explain_refusal(path, data, refused)) from cause
        if not zipped and _LEGACY_MAGIC not in data[:32]:
            raise CheckpointError(
                f"{path} is not a checkpoint but another kind of pickle; nothing in it was run"
            ) from cause
        if "Unsupported operand" in str(cause):  # a later protocol, or bytes that are none
            raise CheckpointError(
                f"{path} is damaged, or pickled in a way that torch cannot read without running "
                "code from it; nothing in it was run. Right would be torch.save with its own "
                "pickle_protocol"
            ) from cause
        raise CheckpointError(
            f"{path} is truncated or damaged ({_first_line(cause)}); get it again"
        ) from cause


def _first_line(cause: Exception) -> str:
    return f"{type(cause).__name__}: {cause}".split("\n")[0][:120]


def _check_sum(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    """Raises BadZipFile if bytes of a part are not those that were written."""
    with archive.open(part) as file:
        while file.read(_BYTES_AT_ONCE):
            pass


def _check_zip(path: Path, data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
            for part in archive.infolist():
                if part.CRC:  # 0 where torch was asked to compute none; torch.load looks at no sum
                    _check_sum(archive, part)
    except Exception as cause:  # names in it may be no text, its parts of an unknown kind
        raise CheckpointError(f"{path} is truncated or damaged ({cause}); get it again") from cause
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path} is a TorchScript archive, which holds a program beside its weights; if you "
            "trust it, run in Python\n"
            f"  torch.save(torch.jit.load({path.name!r}).state_dict(), {_resaved(path)!r})"
        )
    if "data.pkl" not in names:
        raise CheckpointError(f"{path} is not a checkpoint but another kind of zip archive")


def _looks_like(data: bytes) -> str:
    known = {
        b"\x89PNG": "a PNG image",
        b"\xff\xd8\xff": "a JPEG image",
        b"\x89HDF": "an HDF5 file",
        b"\x1f\x8b": "a gzip archive; unpack it first",
        b"\x93NUMPY": "a NumPy array",
        b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
    }
    for start, kind in known.items():
        if data.startswith(start):
            return kind
    head = data[:512].lower()
    if b"<html" in head or b"<!doctype" in head:
        return "a web page; was the download refused?"
    is_text = re.fullmatch(rb"[\t\n\r\f\x20-\x7e]*", head)
    return "text" if is_text else "random bytes, or a format unknown here"


def _refused_classes(data: bytes, message: str) -> list[str]:
    """Classes and functions that the pickle asks for and torch does not rebuild."""
    try:
        with torch.serialization.safe_globals(_NUMBERS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data)))
    except Exception:  # only for zip archives of a common protocol; torch has named the first one
        return re.findall(r"GLOBAL (\S+) (?:was|whose)", message)


def _explain_refusal(path: Path, data: bytes, refused: list[str]) -> str:
    names = ", ".join(refused)
    if any(_DANGEROUS.match(name) for name in refused):
        return (
            f"{path} would run {names} when loaded, which no weights need: it may be malicious. "
            "Nothing in it was run; do not load it by other means, and get the weights elsewhere"
        )
    is_dict, words = _glance(data)
    whole = any(re.match(r"torch\.nn\.modules\.(?!loss\.)", name) for name in refused)
    if whole and not is_dict:
        return (
            f"{path} is a whole pickled network ({names}), which only code from the file could "
            "rebuild; nothing in it was run. If you trust the file, run in the environment that "
            "made it\n"
            f"  model = torch.load({path.name!r}, weights_only=False)\n"
            f"  torch.save(model.state_dict(), {_resaved(path)!r})"
        )
    wrapper = next((f'["{key}"]' for key in WRAPPERS if key in words), "")
    return (
        f"{path} holds, beside weights, objects of {names}, which only code from the file could "
        "rebuild; nothing in it was run. If you trust the file, save its weights alone:\n"
        f"  checkpoint = torch.load({path.name!r}, weights_only=False)\n"
        f"  torch.save(checkpoint{wrapper}{'.state_dict()' if whole else ''}, {_resaved(path)!r})"
    )


_DANGEROUS = re.compile(
    r"(os|posix|nt|subprocess|sys|shutil|socket|runpy|importlib|pickle|webbrowser|ctypes|pty)\."
    r"|(builtins|__builtin__)\.(eval|exec|compile|open|getattr|setattr|__import__|breakpoint)$"
)
"""What an attack asks for and a pickle of weights never does."""


def _resaved(path: Path) -> str:
    return f"{path.stem}-weights.pt"


def _is_cut(data: bytes) -> bool:
    """Whether a file of before torch 1.6 ends within its pickle; a zip archive shows by itself."""
    if _LEGACY_MAGIC not in data[:32]:
        return False
    try:
        for _ in _operations(data):
            pass
    except ValueError:
        return True
    return False


def _glance(data: bytes) -> tuple[bool, set[str]]:
    """Whether the pickled object is a dict, and the words in it, without building any of it."""
    try:
        operations = _operations(data)
        first = next(operations)[0]
        words = {word for _, word in operations if isinstance(word, str)}
    except Exception:  # a damaged pickle or archive; the words only serve the advice
        return False, set()
    return first == "EMPTY_DICT", words


def _operations(data: bytes) -> Iterator[tuple[str, object]]:
    """The pickle operations that build the payload, without the protocol number in front."""
    stream = io.BytesIO(data)
    if data.startswith(b"PK"):
        with zipfile.ZipFile(stream) as archive:
            name = next(each for each in archive.namelist() if each.endswith("/data.pkl"))
            stream = io.BytesIO(archive.read(name))
    else:  # before torch 1.6: three pickles about the file stand before that of the object
        for _ in range(3):
            for _ in pickletools.genops(stream):
                pass
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name != "PROTO":
            yield operation.name, argument
