"""Processes that are killed, and disks that fill up, in processes of their own."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from srcsnn.errors import RasterError
from srcsnn.rasters import (
    HDF5Recorder,
    LayerLayout,
    RasterLayout,
    RecordPolicy,
    open_raster,
)

ROOT = Path(__file__).parents[2]

# Spikes are a function of layer and step alone, so that any prefix can be checked.
SPIKES = """
import numpy as np

SHAPES = {"input": (1, 28, 28), "conv": (6, 20, 20), "fc": (50,)}

def spikes(name, step):
    rng = np.random.default_rng((step % 97, len(name)))
    return rng.random(SHAPES[name]) < 0.1 + 0.2 * (step % 3)
"""

RUN = (
    SPIKES
    + """
import itertools, resource, signal, sys
from srcsnn.errors import RasterError
from srcsnn.rasters import HDF5Recorder, LayerLayout, RasterLayout

path, limit = sys.argv[1], int(sys.argv[2])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
layers = tuple(LayerLayout(name, shape, "conv") for name, shape in SHAPES.items())
try:
    with HDF5Recorder(path) as recorder:
        recorder.begin(RasterLayout(layers, 900, 1e-3))
        for step in itertools.count():
            for name in SHAPES:
                recorder.record(name, spikes(name, step))
except RasterError as error:
    print(f"RasterError: {error}", flush=True)
    # In the same process too, what was kept can be read.
    try:
        from srcsnn.rasters import open_raster
        with open_raster(path) as raster:
            assert raster["conv"].spikes(0).tolist() == spikes("conv", 0).tolist()
    except RasterError as second:
        print(f"second: {second}")
"""
)

names: dict = {}
exec(SPIKES, names)  # noqa: S102
spikes, SHAPES = names["spikes"], names["SHAPES"]


def run_with(code, *arguments):
    """Runs Python code to its end, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )


def check_exact(path):
    """Every step up to steps_valid is bit-exact; returns how many there are."""
    with open_raster(path) as raster:
        for name in SHAPES:
            wanted = np.stack([spikes(name, step) for step in range(raster.steps_valid)])
            layer = raster[name]
            assert np.array_equal(layer.neuron_counts(), wanted.sum(0))
            flat = wanted.reshape(len(wanted), layer.channel_counts().shape[1], -1)
            assert np.array_equal(layer.channel_counts(), flat.sum(-1))
            if not layer.counts_only:
                assert np.array_equal(layer.spikes(), wanted)
        return raster.steps_valid


@contextmanager
def endless_run(path, record="full"):
    """A forked process that records until it is killed; yields its id once it has begun."""
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads around
        child = os.fork()
    if child == 0:
        try:
            layers = tuple(LayerLayout(name, shape, "conv") for name, shape in SHAPES.items())
            recorder = HDF5Recorder(path, RecordPolicy(counts_only=record == "counts"))
            recorder.begin(RasterLayout(layers, 900, 1e-3))
            os.write(writes, b".")
            for step in itertools.count():
                for name in SHAPES:
                    recorder.record(name, spikes(name, step))
        finally:
            os._exit(1)
    os.close(writes)
    try:
        assert os.read(reads, 1) == b"."
        yield
        os.kill(child, signal.SIGKILL)
    finally:
        os.close(reads)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("record", ["full"] * 4 + ["counts"] * 3)
def test_a_killed_run_leaves_a_file_that_is_exact_up_to_steps_valid(tmp_path, record):
    delay = random.SystemRandom().uniform(0.1, 0.5)
    path, part = tmp_path / "run.h5", tmp_path / "run.h5.part"
    with endless_run(path, record):
        time.sleep(delay)
    assert os.listdir(tmp_path) == ["run.h5.part"]
    with pytest.raises(RasterError, match=r"no such file; there is run\.h5\.part"):
        open_raster(path)
    with h5py.File(part) as file:  # without any of our code
        valid = int(file["steps_valid"][0])
        assert valid <= file["layers/conv/counts_ct"].shape[0]
    if valid == 0:
        pytest.skip(f"killed after {delay} s, before the first block was written")
    assert check_exact(part) == valid
    with open_raster(part) as raster:
        assert raster.status == "recording or killed"
        assert not raster.complete


def test_a_file_is_refused_while_it_is_written(tmp_path):
    with (
        endless_run(tmp_path / "run.h5"),
        pytest.raises(RasterError, match="is being written by another process"),
    ):
        open_raster(tmp_path / "run.h5.part")


@pytest.mark.parametrize("limit", [400_000, 800_000])
def test_a_full_disk_ends_the_recording_and_keeps_what_there_is(tmp_path, limit):
    path = tmp_path / "run.h5"
    run = run_with(RUN, path, limit)
    kept = check_exact(path)
    assert kept >= 256
    assert run.stderr == ""  # nothing from HDF5 at the exit of the interpreter either
    assert run.stdout == (
        f"RasterError: cannot write {path}: File too large; "
        f"its first {kept} recorded steps are kept\n"
    )
    with open_raster(path) as raster:
        assert raster.status == f"aborted at step {kept}: File too large"
    assert path.stat().st_size <= limit
    assert os.listdir(tmp_path) == ["run.h5"]


def test_a_disk_that_is_full_from_the_beginning_leaves_nothing(tmp_path):
    path = tmp_path / "run.h5"
    run = run_with(RUN, path, 20_000)
    assert run.stdout.startswith(f"RasterError: cannot create {path}: File too large\n")
    assert run.stderr == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("limit", [60_000, 600_000])
def test_a_write_that_fails_inside_hdf5_keeps_the_file_readable(tmp_path, limit):
    # Quotas and other writers are not seen by the check before each block.
    path = tmp_path / "run.h5"
    code = "import srcsnn.rasters.writer as w; w.require_space = lambda *_: None\n" + RUN
    run = run_with(code, path, limit)
    assert run.stderr == ""
    assert run.returncode == 0
    assert "RasterError: cannot " in run.stdout
    assert "File too large" in run.stdout
    if limit == 60_000:
        assert os.listdir(tmp_path) == []
    else:
        assert os.listdir(tmp_path) == ["run.h5"]
        assert check_exact(path) >= 256


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs root to mount")
def test_a_small_file_system_that_fills_up(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    try:
        run = run_with(RUN, disk / "run.h5", 0)
        kept = check_exact(disk / "run.h5")
        assert f"No space left on device; its first {kept} recorded steps are kept" in run.stdout
        assert run.stderr == ""
        with open_raster(disk / "run.h5") as raster:
            assert raster.status == f"aborted at step {kept}: No space left on device"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_recorder_that_nobody_closes_does_not_hang_or_complain(tmp_path):
    code = SPIKES + (
        "from srcsnn.rasters import *\n"
        f"r = HDF5Recorder({str(tmp_path / 'run.h5')!r})\n"
        "layers = tuple(LayerLayout(n, s, 'conv') for n, s in SHAPES.items())\n"
        "r.begin(RasterLayout(layers, 600, 1e-3))\n"
        "for step in range(600):\n"
        "    for name in SHAPES: r.record(name, spikes(name, step))\n"
    )
    run = run_with(code)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert check_exact(tmp_path / "run.h5.part") in (256, 512)
