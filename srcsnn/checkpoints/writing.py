"""Writes a checkpoint again with nothing changed but the weights that slept."""

import copy
import hashlib
import io
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from srcsnn.checkpoints.fit import check_finite, check_fit, prefix_of
from srcsnn.checkpoints.reading import Checkpoint, read_bytes
from srcsnn.checkpoints.tensorfile import patch
from srcsnn.errors import CheckpointError
from srcsnn.files import OVERWRITE, check_target, json_text, write_atomically, write_text

__all__ = ["check_output", "save_checkpoint", "save_new", "versions"]


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
                f"{path} is the checkpoint that was read; choose another name, or {OVERWRITE}"
            )
    target = check_target(path, overwrite=overwrite, error=CheckpointError)
    check_target(_provenance_path(path), overwrite=overwrite, error=CheckpointError)
    return target


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
    check_finite(changed, f"cannot write {path}: the network is no good")
    if checkpoint.format == "safetensors":
        data = _patched(checkpoint, changed)
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
    check_finite(weights, f"cannot write {path}: the network is no good")
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


def _changed_weights(checkpoint: Checkpoint, model: nn.Module) -> dict[str, Tensor]:
    """The tensors that the network changed, by key without "module.", in the dtypes of the file.

    Elements that it did not change keep the bits of the file: a float64 file read into a float32
    network would otherwise come back rounded everywhere.
    """
    now = model.state_dict()
    prefix = prefix_of(checkpoint.state_dict, now)
    now = {prefix + key: weights for key, weights in now.items()}
    check_fit(checkpoint.path, checkpoint.state_dict, now)
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
        return weights  # type: ignore[no-any-return]  # as it was loaded
    payload: Any = copy.copy(checkpoint.payload)
    payload[wrapper] = weights
    return payload  # type: ignore[no-any-return]  # as it was loaded


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


def _patched(checkpoint: Checkpoint, changed: Mapping[str, Tensor]) -> bytes:
    data = read_bytes(checkpoint.path)
    if hashlib.sha256(data).hexdigest() != checkpoint.sha256:
        raise CheckpointError(f"{checkpoint.path} changed since it was read; nothing was written")
    return patch(data, {checkpoint.prefix + key: weights for key, weights in changed.items()})


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
