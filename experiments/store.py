"""Where results are kept: numbers in one small file that is committed, networks in a folder."""

import fcntl
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open

from experiments.cells import Cell, in_order
from srcsnn.errors import SrcsnnError
from srcsnn.files import write_atomically, write_text

__all__ = ["Ledger", "Models", "missing"]

Record = dict[str, Any]
"""A finished cell: what it was, its result, seconds and versions. Any: JSON."""


class Ledger:
    """The numbers of all finished cells, a line of JSON each, sorted by key.

    Every addition writes the whole file anew, atomically: it is small, and its bytes do not depend
    on the order in which cells were finished.

    Args:
        path: of the file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        self._read()

    def _read(self) -> None:
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        self.records = {(record := json.loads(line))["key"]: record for line in lines}

    def __contains__(self, cell: Cell) -> bool:
        return cell.key in self.records

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside this block no other process may hold the ledger; it is read again first.

        Raises:
            SrcsnnError: if another run holds it.
        """
        with self.path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as cause:
                raise SrcsnnError(
                    f"another run is writing {self.path}; let it end, or use its cluster"
                ) from cause
            self._read()
            yield

    def add(self, record: Record) -> None:
        """Adds a finished cell.

        Raises:
            SrcsnnError: if it is a network that was made again with other bits, since the measures
                that are there are of the one before.
        """
        before = self.records.get(record["key"], record)["result"].get("weights_sha256")
        if before != record["result"].get("weights_sha256"):
            raise SrcsnnError(
                f"{record['data']} trial {record['trial']}, {record['method']}: the network came "
                f"out with other bits than the one in {self.path}, as it may on another processor "
                f"or with other versions; take the lines of trial {record['trial']} out to measure "
                "it anew"
            )
        # As it will be read again: tuples are lists then.
        self.records[record["key"]] = json.loads(json.dumps(record))
        lines = (json.dumps(self.records[key], sort_keys=True) for key in sorted(self.records))
        write_text(self.path, "".join(f"{line}\n" for line in lines))


class Models:
    """The networks of finished cells, a safetensors file each, named by the cell's key.

    Args:
        folder: it need not be there yet. Workers on other machines must see the same.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, cell: Cell) -> Path:
        """Of the cell's network."""
        return self.folder / f"{cell.data}-{cell.kind}-{cell.trial}-{cell.key}.safetensors"

    def __contains__(self, cell: Cell) -> bool:
        return self.path(cell).exists()

    def load(self, cell: Cell, model: torch.nn.Module) -> torch.nn.Module:
        """The network with the weights of a finished cell, in eval mode."""
        model.load_state_dict(safetensors.torch.load_file(self.path(cell)))
        return model.eval()

    def notes(self, cell: Cell) -> Record:
        """What was noted beside the weights."""
        with safe_open(self.path(cell), framework="pt") as file:
            found: Record = json.loads(file.metadata()["notes"])
            return found

    def save(self, cell: Cell, model: torch.nn.Module, notes: Record) -> None:
        """Writes a network atomically: it is there completely or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        text = {"notes": json.dumps(notes, sort_keys=True)}
        write_atomically(
            self.path(cell), lambda file: file.write(safetensors.torch.save(state, text))
        )


def missing(targets: Iterable[Cell], ledger: Ledger, models: Models) -> list[Cell]:
    """What must be computed for the targets, inputs first.

    A network that only finished cells need is not made again.
    """
    wanted: dict[str, Cell] = {}

    def want(cell: Cell) -> None:
        done = cell in ledger and (cell in models or not cell.gives_model)
        if not done and cell.key not in wanted:
            wanted[cell.key] = cell
            for below in cell.inputs:
                # One that is there without its numbers was finished by a run that was then killed.
                if below not in models or below not in ledger:
                    want(below)

    for target in targets:
        if target not in ledger:
            want(target)
    return [cell for cell in in_order(wanted.values()) if cell.key in wanted]
