"""Runs cells in this process, in processes of this machine, or on a Dask cluster; one graph."""

from asyncio import CancelledError
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from experiments.cells import Cell
from experiments.compute import compute
from experiments.place import Place
from experiments.store import Ledger, Record
from srcsnn.errors import SrcsnnError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Finished", "cluster", "run_here", "run_on"]

Finished = Callable[[Cell, Record], None]
"""Told of every finished cell, in the process that called."""


def run_here(cells: Sequence[Cell], place: Place, ledger: Ledger, finished: Finished) -> None:
    """Computes the cells one after another.

    Args:
        cells: inputs first, as `missing` gives them.
        place: data and folder.
        ledger: gets each result as soon as it is there, so that a killed run can go on.
        finished: for progress.

    Raises:
        SrcsnnError: with every cell that failed, after all others were computed.
    """
    failed: dict[str, str] = {}
    for cell in cells:
        if any(below.key in failed for below in cell.inputs):
            failed[cell.key] = f"{cell}: needs one of those above"
            continue
        try:
            record = compute(cell, place)
        except (ValueError, RuntimeError, OSError) as error:
            failed[cell.key] = f"{cell}: {error}"
            continue
        ledger.add(record)
        finished(cell, record)
    _raise(failed.values(), cells)


def _raise(problems: Collection[str], cells: Sequence[Cell]) -> None:
    if problems:
        listed = "\n  ".join(problems)
        raise SrcsnnError(f"{len(problems)} of {len(cells)} cells failed:\n  {listed}")


@contextmanager
def cluster(workers: int | None, scheduler: str | None) -> "Iterator[Client]":
    """A client of the cluster at an address, or of as many processes on this machine.

    Workers elsewhere must be able to import this checkout, and see the same data and folder.

    Raises:
        SrcsnnError: if nobody answers at that address.
    """
    from distributed import Client, LocalCluster

    if scheduler is None:
        local = LocalCluster(  # type: ignore[no-untyped-call]  # Dask
            n_workers=workers, threads_per_worker=1, dashboard_address=None, memory_limit=0
        )
        with local, Client(local) as client:  # type: ignore[no-untyped-call]  # Dask
            yield client
        return
    try:
        client = Client(scheduler, timeout=10)  # type: ignore[no-untyped-call]  # Dask
    except (OSError, ValueError) as cause:
        raise SrcsnnError(
            f"--scheduler {scheduler}: no Dask scheduler answers ({cause}); start one with "
            "`dask scheduler`, and workers with `dask worker`"
        ) from cause
    with client:
        yield client


def run_on(
    client: "Client", cells: Sequence[Cell], place: Place, ledger: Ledger, finished: Finished
) -> None:
    """Computes the cells on a cluster; those that depend on nothing missing run side by side.

    No more at a time than there are threads, and always the first that can be computed: a run that
    is stopped has measured what it trained, where Dask, told of all cells, trains everything first.
    A worker that dies costs the cell that it was at, which another one begins again. This process
    alone writes the ledger.

    Raises:
        SrcsnnError: with every cell that failed, after all others were computed.
    """
    from distributed import as_completed

    waiting = list(cells)
    running: dict[object, Cell] = {}  # by the keys of their futures
    failed: dict[str, str] = {}
    completed = as_completed()  # type: ignore[no-untyped-call]  # Dask
    while waiting or running:
        unfinished = {cell.key for cell in (*waiting, *running.values())}
        threads = sum(client.nthreads().values())  # type: ignore[no-untyped-call]  # Dask
        for cell in list(waiting):
            inputs = {below.key for below in cell.inputs}
            if inputs & failed.keys():
                failed[cell.key] = f"{cell}: needs one of those above"
            elif inputs.isdisjoint(unfinished) and len(running) < max(1, threads):
                future = client.submit(compute, cell, place, key=f"{cell.kind}-{cell.key}")
                running[future.key] = cell
                completed.add(future)  # type: ignore[no-untyped-call]  # Dask
            else:
                continue
            waiting.remove(cell)
        if not running:
            continue
        future = next(completed)
        cell = running.pop(future.key)
        try:
            # Waits once more where a finished result was lost with its worker.
            record = future.result()
        except (Exception, CancelledError) as error:  # whatever the cell or the cluster raised
            failed[cell.key] = f"{cell}: {error or type(error).__name__}"
            continue
        ledger.add(record)
        finished(cell, record)
    _raise(failed.values(), cells)
