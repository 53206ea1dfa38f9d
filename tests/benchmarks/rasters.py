"""Storing spikes: this project's format beside a plain bool dataset and a list of events.

    python -m tests.benchmarks.rasters

45,000 neurons, 10,000 steps, at four rates. Every way writes blocks of 256 steps with gzip. Spikes
are drawn beforehand, 1,024 steps that are written again and again, further apart than gzip sees.
Reads are of files opened anew, from the system's cache.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from srcsnn.rasters import HDF5Recorder, LayerLayout, RasterLayout, open_raster

Spikes = npt.NDArray[np.bool_]
SHAPE, STEPS, BLOCK, POOL = (50, 30, 30), 10_000, 256, 1024
NEURONS = 45_000
RATES = (0.001, 0.01, 0.1, 0.5)
WINDOW, CHANNEL, NEURON = slice(5000, 5100), 17, (17, 3, 5)
FLAT = int(np.ravel_multi_index(NEURON, SHAPE))
CHANNELS = slice(CHANNEL * 900, (CHANNEL + 1) * 900)


def blocks(pool: Spikes) -> Iterator[Spikes]:
    for first in range(0, STEPS, BLOCK):
        start = first % POOL
        yield pool[start : start + min(BLOCK, STEPS - first)]


class Raster:
    """Our own."""

    name = "srcsnn"

    def write(self, path: Path, pool: Spikes) -> None:
        with HDF5Recorder(path) as recorder:
            recorder.begin(RasterLayout((LayerLayout("x", SHAPE, "conv"),), STEPS, 1e-3))
            for block in blocks(pool):
                for step in block:
                    recorder.record("x", step)

    def reads(self, path: Path) -> dict[str, Callable[[], npt.NDArray[np.generic]]]:
        @contextmanager
        def layer():  # type: ignore[no-untyped-def]
            with open_raster(path) as raster:
                yield raster["x"]

        def window() -> Spikes:
            with layer() as x:
                return x.spikes(WINDOW).reshape(100, -1)

        def channel() -> Spikes:
            with layer() as x:
                return x.spikes(channels=CHANNEL).reshape(STEPS, -1)

        def neuron() -> Spikes:
            with layer() as x:
                return x.spikes(None, *NEURON)

        def population() -> npt.NDArray[np.int64]:
            with layer() as x:
                return x.population_counts()

        return {"window": window, "channel": channel, "neuron": neuron, "population": population}


class Bools:
    """A bool for each neuron and step, chunks of the size that h5py chooses, gzip as it comes."""

    name = "bool, gzip"

    def write(self, path: Path, pool: Spikes) -> None:
        with h5py.File(path, "w") as file:
            data = file.create_dataset("x", (0, NEURONS), bool, maxshape=(None, NEURONS),
                                       chunks=True, compression="gzip")  # fmt: skip
            for block in blocks(pool):
                data.resize(len(data) + len(block), 0)
                data[-len(block) :] = block.reshape(len(block), -1)

    def reads(self, path: Path) -> dict[str, Callable[[], npt.NDArray[np.generic]]]:
        def part(*index: slice | int) -> Callable[[], Spikes]:
            def read() -> Spikes:
                with h5py.File(path) as file:
                    return np.asarray(file["x"][index])

            return read

        def population() -> npt.NDArray[np.int64]:
            with h5py.File(path) as file:
                parts = [file["x"][t : t + BLOCK].sum(axis=1) for t in range(0, STEPS, BLOCK)]
            return np.concatenate(parts)

        whole = slice(None)
        return {"window": part(WINDOW), "channel": part(whole, CHANNELS),
                "neuron": part(whole, FLAT), "population": population}  # fmt: skip


class Events:
    """The numbers of the neurons that fire, step after step, and where each step begins."""

    name = "events, gzip"

    def write(self, path: Path, pool: Spikes) -> None:
        with h5py.File(path, "w") as file:
            options = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
            who = file.create_dataset(
                "who", (0,), "u2", maxshape=(None,), chunks=(65_536,), **options
            )
            ends = [0]
            for block in blocks(pool):
                step, neuron = np.nonzero(block.reshape(len(block), -1))
                who.resize(len(who) + len(neuron), 0)
                who[len(who) - len(neuron) :] = neuron
                ends += (ends[-1] + np.bincount(step, minlength=len(block)).cumsum()).tolist()
            file["ends"] = np.array(ends)

    def reads(self, path: Path) -> dict[str, Callable[[], npt.NDArray[np.generic]]]:
        def dense(steps: slice, neurons: slice) -> Spikes:
            with h5py.File(path) as file:
                ends = file["ends"][steps.start : steps.stop + 1]
                who = file["who"][ends[0] : ends[-1]]
            step = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
            chosen = (who >= neurons.start) & (who < neurons.stop)
            spikes = np.zeros((len(ends) - 1, neurons.stop - neurons.start), bool)
            spikes[step[chosen], who[chosen] - neurons.start] = True
            return spikes

        def population() -> npt.NDArray[np.int64]:
            with h5py.File(path) as file:
                return np.diff(file["ends"][...])

        whole = slice(0, STEPS)
        return {"window": lambda: dense(WINDOW, slice(0, NEURONS)),
                "channel": lambda: dense(whole, CHANNELS),
                "neuron": lambda: dense(whole, slice(FLAT, FLAT + 1))[:, 0],
                "population": population}  # fmt: skip


def fastest(call: Callable[[], object], repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    table = Table(title=f"{NEURONS:,} neurons, {STEPS:,} steps")
    for heading in ("rate", "stored as", "write, us/step", "bits/neuron-step", "window, ms",
                    "channel, ms", "neuron, ms", "population, ms"):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "stored as" else "right")
    for rate in RATES:
        pool = np.random.default_rng(0).random((POOL, *SHAPE), np.float32) < rate
        answers: list[dict[str, npt.NDArray[np.generic]]] = []
        for way in (Raster(), Bools(), Events()):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "x.h5"
                started = time.perf_counter()
                way.write(path, pool)
                written = time.perf_counter() - started
                bits = 8 * path.stat().st_size / NEURONS / STEPS
                reads = way.reads(path)
                times = [f"{1e3 * fastest(read):.1f}" for read in reads.values()]
                answers.append({name: read() for name, read in reads.items()})
            cells = [f"{1e6 * written / STEPS:.0f}", f"{bits:.4f}", *times]
            table.add_row(f"{rate:.1%}", way.name, *cells, end_section=way.name == Events.name)
        for name, answer in answers[0].items():
            assert all(np.array_equal(answer, other[name]) for other in answers[1:]), name
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
