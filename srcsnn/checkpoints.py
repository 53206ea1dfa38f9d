"""Trained weights: read without running code from the file, written back with nothing else changed.

What torch and safetensors say about a file that they refuse is for their developers; here each bad
file gets one sentence for its owner.
"""

import copy
import hashlib
import io
import json
import pickletools
import platform
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from srcsnn.errors import CheckpointError
from srcsnn.files import check_target, json_text, write_atomically, write_text

__all__ = [
    "Checkpoint",
    "check_output",
    "load_checkpoint",
    "load_into",
    "save_checkpoint",
    "save_new",
    "versions",
]

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIX = "module."
_LEGACY_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")  # first of all in files before torch 1.6
_SAFETENSORS_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint as it was read, and where in it the weights are.

    Args:
        path: of the file.
        sha256: of the file's bytes, in hexadecimal.
        format: how it is written: by `torch.save`, or as safetensors.
        payload: all that the file holds; it is not to be changed.
        wrapper: the entry of the payload that holds the state dict, None if the payload is it.
        prefix: "module." if every key in the file starts with it, else "".
        state_dict: the weights in the order of the file, without the prefix.
    """

    path: Path
    sha256: str
    format: Literal["torch", "safetensors"]
    payload: Mapping[str, Any]  # Any: beside the weights people keep epochs, optimizers, anything
    wrapper: str | None
    prefix: str
    state_dict: dict[str, Tensor]


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint; no code from the file is run.

    Accepted are a state dict written by `torch.save`, one that is wrapped under `state_dict`,
    `model_state_dict` or `model` with other entries around it, keys that all start with `module.`,
    and safetensors, which is recognised by content, whatever the file is called.

    Raises:
        CheckpointError: if the file is missing, empty, truncated, no checkpoint, holds objects that
            only code from the file could rebuild, or anything but dense tensors as weights.
    """
    path = Path(path)
    data = _read(path)
    is_safetensors = _is_safetensors(data)
    payload: Any = _load_safetensors(path, data) if is_safetensors else _load_torch(path, data)
    wrapper = None if is_safetensors else _find_wrapper(path, payload)
    found = payload if wrapper is None else payload[wrapper]
    _check_entries(path, found)
    prefix = _PREFIX if all(name.startswith(_PREFIX) for name in found) else ""
    return Checkpoint(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        format="safetensors" if is_safetensors else "torch",
        payload=payload,
        wrapper=wrapper,
        prefix=prefix,
        state_dict={name.removeprefix(prefix): tensor for name, tensor in found.items()},
    )


def load_into(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Gives the network, in place, the weights of the checkpoint, by value in the network's dtypes.

    Raises:
        CheckpointError: if keys are missing, unexpected or mis-shaped, all of which are listed, or
            weights are NaN or infinite. The network is as it was then.
    """
    target = model.state_dict()
    _check_fit(checkpoint, target)
    _check_finite(
        {key: weights.to(target[key].dtype) for key, weights in checkpoint.state_dict.items()},
        f"{checkpoint.path}: cannot use these weights",
    )
    try:
        model.load_state_dict(checkpoint.state_dict, strict=True)
    except RuntimeError as cause:  # a network with rules of its own about what it loads
        raise CheckpointError(f"{checkpoint.path} does not fit the network: {cause}") from cause


def check_output(
    path: str | Path, checkpoint: Checkpoint | None = None, *, overwrite: bool = False
) -> Path:
    """Says now what `save_checkpoint` or `save_new` would say later; call it before a long sleep.

    Raises:
        CheckpointError: if the folder is missing or not writable, the path or the provenance beside
            it is there already and `overwrite` is false, or the suffix belongs to another format.
    """
    path = Path(path)
    if checkpoint is not None:
        _check_name(path, checkpoint)
        is_input = path.exists() and checkpoint.path.exists() and path.samefile(checkpoint.path)
        if is_input and not overwrite:
            raise CheckpointError(
                f"{path} is the checkpoint that was read; choose another name, or ask to "
                "overwrite it"
            )
    check_target(_provenance_path(path), overwrite=overwrite, error=CheckpointError)
    return check_target(path, overwrite=overwrite, error=CheckpointError)


def save_checkpoint(
    path: str | Path,
    checkpoint: Checkpoint,
    model: nn.Module,
    provenance: Mapping[str, object],
    overwrite: bool = False,
) -> None:
    """Writes the checkpoint again with the changed weights of the network and all else as it was.

    Keys, their order and prefix, dtypes and extra entries stay; a weight that the network did not
    change comes back bit for bit, also if the network holds it in another dtype than the file. Of
    safetensors only the bytes of changed tensors differ. The file is written atomically; beside
    it, as `<path>.json`, goes what the caller knows about its origin, with the SHA-256 of input and
    output, versions and the time.

    Raises:
        CheckpointError: for all that `check_output` finds, a network that does not fit the
            checkpoint, weights that are NaN or infinite in the file's dtype, or a full disk.
    """
    check_output(path, checkpoint, overwrite=overwrite)
    changed = _changed_weights(checkpoint, model)
    _check_finite(changed, f"cannot write {path}: the network is no good")
    if checkpoint.format == "safetensors":
        data = _patch_safetensors(checkpoint, changed)
    else:
        data = _torch_bytes(_with_weights(checkpoint, changed))
    _write(path, data, {**provenance, "input_sha256": checkpoint.sha256})


def save_new(
    path: str | Path,
    model: nn.Module,
    provenance: Mapping[str, object],
    overwrite: bool = False,
) -> None:
    """Writes the plain state dict of a freshly trained network, and its provenance beside it.

    The format is safetensors if the name ends in .safetensors, else that of `torch.save`.

    Raises:
        CheckpointError: for all that `check_output` finds, weights that are NaN or infinite, or a
            full disk.
    """
    check_output(path, overwrite=overwrite)
    weights = model.state_dict()
    for key in weights:
        weights[key] = weights[key].detach().cpu()
    _check_finite(weights, f"cannot write {path}: the network is no good")
    write = safetensors.torch.save if _named_safetensors(Path(path)) else _torch_bytes
    _write(path, write(weights), provenance)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on, by name."""
    found = {"python": platform.python_version()}
    for package in ("numpy", "snntorch", "srcsnn", "torch"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "not installed"
    return found


# Reading


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the checkpoint file in it")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except OSError as cause:
        raise CheckpointError(f"cannot read {path}: {cause.strerror}") from cause
    if not data:
        raise CheckpointError(f"{path} is empty; was it copied or downloaded completely?")
    return data


def _is_safetensors(data: bytes) -> bool:
    length = int.from_bytes(data[:8], "little")
    return data[8:9] == b"{" and length <= _SAFETENSORS_HEADER_LIMIT


def _load_safetensors(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        tensors = safetensors.torch.load(data)
        return {name: tensors[name] for name in _safetensors_header(data)}
    except (safetensors.SafetensorError, ValueError, KeyError) as cause:
        raise CheckpointError(
            f"{path} begins like safetensors but is truncated or damaged ({cause}); get it again"
        ) from cause


def _safetensors_header(data: bytes) -> dict[str, Any]:  # Any: JSON
    """Entries of the header by tensor, in its order, without the metadata of the file."""
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return header


def _load_torch(path: Path, data: bytes) -> Any:  # noqa: ANN401  # a file may hold anything
    zipped = data.startswith(b"PK")
    if zipped:
        _check_zip(path, data)
    elif not data.startswith(b"\x80"):  # every pickle of protocol 2 or later starts with this byte
        raise CheckpointError(f"{path} is not a checkpoint: it looks like {_looks_like(data)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on pickles that end in an error anyway
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


def _check_zip(path: Path, data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
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


# What torch refuses


def _refused_classes(data: bytes, message: str) -> list[str]:
    """Classes and functions that the pickle asks for and torch does not rebuild."""
    try:
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
            "rebuild; nothing in it was run. In the environment that made it, run\n"
            f"  torch.save(model.state_dict(), {_resaved(path)!r})"
        )
    wrapper = next((f'["{key}"]' for key in _WRAPPERS if key in words), "")
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


# What a payload holds


def _find_wrapper(path: Path, payload: object) -> str | None:
    if not isinstance(payload, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(payload).__name__}; right would be a dict of tensors, as "
            "torch.save(model.state_dict(), ...) writes it"
        )
    wrappers = [key for key in _WRAPPERS if _has_tensors(payload.get(key))]
    if len(wrappers) > 1:
        raise CheckpointError(
            f"{path} holds more than one state dict: {', '.join(wrappers)}; save the one to use "
            "in a file of its own"
        )
    if not wrappers and not _has_tensors(payload):
        raise CheckpointError(
            f"{path} holds no weights: {_entries(payload)}. Right would be tensors by name, or a "
            f"dict of them under {', '.join(_WRAPPERS)}"
        )
    return wrappers[0] if wrappers else None


def _has_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(each, Tensor) for each in value.values())


def _entries(payload: Mapping[Any, object]) -> str:
    if not payload:
        return "it is an empty dict"
    described = (f"{name} ({_kind(value)})" for name, value in payload.items())
    return "its entries are " + ", ".join(described)


def _kind(value: object) -> str:
    with_tensors = " with tensors in it" if _has_tensors(value) else ""
    return type(value).__name__ + with_tensors


def _check_entries(path: Path, found: Mapping[Any, object]) -> None:
    """Raises CheckpointError unless all of the state dict is dense tensors by name."""
    if not found:
        raise CheckpointError(f"{path} holds no weights: it is an empty set of tensors")
    odd = [f"{name} ({_oddity(value)})" for name, value in found.items() if _oddity(value)]
    odd += [f"{name!r} (a key that is no text)" for name in found if not isinstance(name, str)]
    if odd:
        raise CheckpointError(
            f"{path} holds entries among its weights that are no dense tensors: {', '.join(odd)}; "
            f"save the tensors alone under {_WRAPPERS[0]!r}, and the rest beside them"
        )


def _oddity(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.is_quantized:
        return "quantized tensor"
    return "" if value.layout is torch.strided else f"{value.layout} tensor"


# Does it fit, is it sound


def _check_fit(checkpoint: Checkpoint, target: Mapping[str, Tensor]) -> None:
    """Raises one CheckpointError with everything in which keys, shapes and kinds differ."""
    found = checkpoint.state_dict
    both = [key for key in target if key in found]
    problems = {
        "missing (the network has them, the file does not)": [
            f"{key} {_shape(weights)}" for key, weights in target.items() if key not in found
        ],
        "unexpected (the file has them, the network does not)": [
            f"{key} {_shape(weights)}" for key, weights in found.items() if key not in target
        ],
        "of another shape": [
            f"{key} is {_shape(found[key])} in the file, {_shape(target[key])} in the network"
            for key in both
            if found[key].shape != target[key].shape
        ],
        "of another kind": [
            f"{key} is {found[key].dtype} in the file, {target[key].dtype} in the network"
            for key in both
            if _number_kind(found[key]) != _number_kind(target[key])
        ],
    }
    if not any(problems.values()):
        return
    fitting = sum(found[key].shape == target[key].shape for key in both)
    lines = [f"{checkpoint.path} does not fit the network:{_advice(found, target, fitting)}"]
    for problem, keys in problems.items():
        if keys:
            lines += [f"{len(keys)} {problem}:", *(f"  {key}" for key in keys)]
    raise CheckpointError("\n".join(lines))


def _advice(found: Mapping[str, Tensor], target: Mapping[str, Tensor], fitting: int) -> str:
    first = next(iter(target), "")
    for prefix in {key.removesuffix(first) for key in found if first and key.endswith(first)}:
        if prefix and [*found] == [prefix + key for key in target]:
            return f" every key starts with {prefix!r}; save the weights without it"
    if 2 * fitting < max(len(found), len(target)):
        return (
            f" only {fitting} of its {len(found)} tensors do, so it looks like a checkpoint of "
            "another network; is the architecture (--arch) right?"
        )
    return ""


def _shape(weights: Tensor) -> str:
    return str(tuple(weights.shape))


def _number_kind(weights: Tensor) -> tuple[bool, bool]:
    return weights.is_floating_point(), weights.is_complex()


def _check_finite(weights: Mapping[str, Tensor], problem: str) -> None:
    bad = [
        f"{key} ({count} of {values.numel()}, {values.dtype})"
        for key, values in weights.items()
        if (count := int((~_finite(values)).sum()))
    ]
    if bad:
        raise CheckpointError(f"{problem}: NaN or infinite values in {', '.join(bad)}")


def _finite(values: Tensor) -> Tensor:
    # torch has no isfinite for the 8-bit floats
    return torch.isfinite(values.float() if values.dtype.itemsize == 1 else values)


# Writing


def _changed_weights(checkpoint: Checkpoint, model: nn.Module) -> dict[str, Tensor]:
    """The tensors that the network changed, by key without prefix, in the dtypes of the file.

    Elements that it did not change keep the bits of the file: a float64 file read into a float32
    network would otherwise come back rounded everywhere.
    """
    now = model.state_dict()
    _check_fit(checkpoint, now)
    changed = {}
    for key, before in checkpoint.state_dict.items():
        after = now[key].detach().cpu()
        same = after == before.detach().to(after.dtype)
        if not same.all():
            weights = torch.empty_like(before)  # keeps the strides
            weights.copy_(torch.where(same, before.detach(), after.to(before.dtype)))
            changed[key] = weights
    return changed


def _with_weights(checkpoint: Checkpoint, changed: Mapping[str, Tensor]) -> Mapping[str, Any]:
    """The payload with some weights replaced; the one that was read stays as it is.

    The dicts are copied, not rebuilt, so that their type and attributes (`_metadata`) stay, and the
    tensors replaced, not written to, since an extra entry may share their memory.
    """
    wrapper = checkpoint.wrapper
    weights: Any = checkpoint.payload if wrapper is None else checkpoint.payload[wrapper]
    weights = copy.copy(weights)
    for key, values in changed.items():
        old = weights[checkpoint.prefix + key]
        kept = nn.Parameter(values) if isinstance(old, nn.Parameter) else values
        weights[checkpoint.prefix + key] = kept.requires_grad_(old.requires_grad)
    if wrapper is None:
        return weights  # type: ignore[no-any-return]
    payload: Any = copy.copy(checkpoint.payload)
    payload[wrapper] = weights
    return payload  # type: ignore[no-any-return]


def _check_name(path: Path, checkpoint: Checkpoint) -> None:
    if _named_safetensors(path) != (checkpoint.format == "safetensors"):
        right = "not end" if _named_safetensors(path) else "end"
        raise CheckpointError(
            f"cannot write {path}: {checkpoint.path.name} is in the {checkpoint.format} format and "
            f"stays in it, so the name must {right} in .safetensors"
        )


def _torch_bytes(payload: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


def _patch_safetensors(checkpoint: Checkpoint, changed: Mapping[str, Tensor]) -> bytes:
    data = bytearray(_read(checkpoint.path))
    if hashlib.sha256(data).hexdigest() != checkpoint.sha256:
        raise CheckpointError(f"{checkpoint.path} changed since it was read; nothing was written")
    header = _safetensors_header(bytes(data))
    start = 8 + int.from_bytes(data[:8], "little")
    for key, weights in changed.items():
        begin, end = header[checkpoint.prefix + key]["data_offsets"]
        new = weights.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert len(new) == end - begin  # same shape and dtype as in the file
        data[start + begin : start + end] = new
    return bytes(data)


def _write(path: str | Path, data: bytes, provenance: Mapping[str, object]) -> None:
    record = {
        **provenance,
        "output_sha256": hashlib.sha256(data).hexdigest(),
        "versions": versions(),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = json_text(record)  # first, since what it cannot express must not cost the checkpoint
    write_atomically(path, lambda file: file.write(data), error=CheckpointError)
    write_text(_provenance_path(Path(path)), text, error=CheckpointError)


def _provenance_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _named_safetensors(path: Path) -> bool:
    return path.suffix.lower() == ".safetensors"
