"""Exported rasters, read back by the tools that they are for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import libsonata
import neo
import numpy as np
import pynapple
import pynwb
import pytest
import scipy.sparse

from srcsnn.errors import ConfigError, RasterError
from srcsnn.rasters import HDF5Recorder, LayerLayout, RasterLayout, RecordPolicy, layer, open_raster
from srcsnn.rasters.exporters import nwb, plan_exports
from tests.rasters.conftest import LAYERS
from tests.test_cli import command

ROOT = Path(__file__).parents[2]
DT_S = 7e-4  # no power of two, and no whole number of milliseconds
ALL = (*LAYERS, LayerLayout("silent", (4, 9, 9), "conv"), LayerLayout("one", (1,), "linear"))


@pytest.fixture(params=[1, 3], ids=["every step", "every third step"])
def run(request, tmp_path, draw, record):
    """A raster of layers of all ranks, its spikes (T, *shape), and the steps of its rows."""
    every = request.param
    spikes = draw(100, ALL)
    spikes["silent"][:] = False
    record(tmp_path / "run.h5", spikes, ALL, RecordPolicy(every=every), dt_s=DT_S)
    kept = {name: values[::every] for name, values in spikes.items()}
    return tmp_path / "run.h5", kept, np.arange(0, 100, every)


def export(path, output, *layers, to=None):
    with open_raster(path) as raster:
        for planned in plan_exports(raster, output, to, layers or None):
            planned.write()


def check_units(units, spikes, steps):
    """Compares a table of units with the spikes, neuron by neuron."""
    neurons = {name: values[0].size for name, values in spikes.items()}
    assert list(units["layer"][:]) == [name for name, n in neurons.items() for _ in range(n)]
    assert list(units["neuron"][:]) == [n for number in neurons.values() for n in range(number)]
    for unit, name in enumerate(units["layer"][:]):
        train = spikes[name].reshape(len(steps), -1)[:, units["neuron"][unit]]
        found = np.asarray(units["spike_times"][unit]) / units.resolution
        np.testing.assert_array_equal(np.rint(found), steps[train])


def test_nwb_holds_every_neuron_of_every_layer(run, tmp_path):
    path, spikes, steps = run
    export(path, tmp_path / "run.nwb")
    assert pynwb.validate(path=tmp_path / "run.nwb") == []
    with pynwb.NWBHDF5IO(tmp_path / "run.nwb", "r") as io:
        file = io.read()
        units = file.units
        assert units.resolution == DT_S
        check_units(units, spikes, steps)
        with open_raster(path) as raster:
            assert file.session_start_time.isoformat() == raster.created


def test_nwb_says_where_a_neuron_is(run, tmp_path):
    path, spikes, steps = run
    export(path, tmp_path / "run.nwb")
    with pynwb.NWBHDF5IO(tmp_path / "run.nwb", "r") as io:
        table = io.read().units.to_dataframe()
    axes = {1: [], 2: ["channel", "x"], 3: ["channel", "y", "x"], 4: ["channel", "z", "y", "x"]}
    for name, values in spikes.items():
        rows = table[table["layer"] == name]
        there = axes[values.ndim - 1]
        for _, row in rows.iterrows():
            at = tuple(row[axis] for axis in there) or (row["neuron"],)
            train = values[(slice(None), *at)]
            np.testing.assert_array_equal(np.rint(row["spike_times"] / DT_S), steps[train])
        for axis in {"channel", "z", "y", "x"} - set(there):
            assert set(rows[axis]) == {-1}


def test_nwb_leaves_out_an_axis_that_no_layer_has(run, tmp_path):
    export(run[0], tmp_path / "run.nwb", "line", "fc")
    with pynwb.NWBHDF5IO(tmp_path / "run.nwb", "r") as io:
        columns = io.read().units.colnames
    assert columns == ("spike_times", "obs_intervals", "layer", "neuron", "channel", "x")


def test_nwb_is_the_same_in_many_small_pieces(run, tmp_path, monkeypatch):
    path, spikes, steps = run
    monkeypatch.setattr(nwb, "_COLLECTED", 200)
    monkeypatch.setattr(layer, "_BYTES_AT_ONCE", 4000)
    monkeypatch.setattr(layer, "_EVENTS_AT_ONCE", 1000)
    export(path, tmp_path / "run.nwb")
    with pynwb.NWBHDF5IO(tmp_path / "run.nwb", "r") as io:
        check_units(io.read().units, spikes, steps)


@pytest.mark.filterwarnings("ignore:Some epochs have no duration")  # of neurons that fire once,
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # as is this, within pynapple
def test_nwb_opens_in_pynapple(run, tmp_path):
    path, spikes, steps = run
    export(path, tmp_path / "run.nwb")
    units = pynapple.load_file(str(tmp_path / "run.nwb"))["units"]
    assert len(units) == sum(values[0].size for values in spikes.values())
    of_layer = units[units["layer"] == "features.0"]
    trains = spikes["features.0"].reshape(len(steps), -1).T
    for unit, train in zip(of_layer.values(), trains, strict=True):
        np.testing.assert_array_equal(np.rint(unit.t / DT_S), steps[train])


def test_nwb_opens_in_neo(run, tmp_path):
    path, spikes, steps = run
    export(path, tmp_path / "run.nwb", "silent", "fc")  # in network order all the same
    (block,) = neo.io.NWBIO(str(tmp_path / "run.nwb"), mode="r").read_all_blocks()
    trains = block.segments[0].spiketrains
    wanted = np.hstack([spikes[name].reshape(len(steps), -1) for name in ("fc", "silent")]).T
    for found, train in zip(trains, wanted, strict=True):
        assert found.t_stop.rescale("s").item() == (steps[-1] + 1) * DT_S
        np.testing.assert_array_equal(np.rint(found.rescale("s").magnitude / DT_S), steps[train])


def test_sonata_holds_a_population_for_each_layer(run, tmp_path):
    path, spikes, steps = run
    export(path, tmp_path / "run.sonata.h5")
    reader = libsonata.SpikeReader(str(tmp_path / "run.sonata.h5"))
    assert set(reader.get_population_names()) == set(spikes)
    for name, values in spikes.items():
        population = reader[name]
        assert (population.sorting, population.time_units) == ("by_time", "ms")
        found = population.get_dict()
        rows, neurons = np.nonzero(values.reshape(len(steps), -1))
        np.testing.assert_array_equal(np.rint(found["timestamps"] / (1000 * DT_S)), steps[rows])
        np.testing.assert_array_equal(found["node_ids"], neurons)
        with h5py.File(tmp_path / "run.sonata.h5") as file:
            group = file[f"spikes/{name}"]
            assert tuple(group.attrs["shape"]) == values.shape[1:]
            assert group["timestamps"].attrs["dt_ms"] == 1000 * DT_S


def test_sonata_is_read_by_time_and_neuron(run, tmp_path):
    path, spikes, steps = run
    export(path, tmp_path / "run.sonata.h5", "fc")
    population = libsonata.SpikeReader(str(tmp_path / "run.sonata.h5"))["fc"]
    found = population.get(node_ids=[3], tstart=29.5 * 1000 * DT_S, tstop=60.5 * 1000 * DT_S)
    wanted = steps[spikes["fc"][:, 3]]
    assert [round(time / (1000 * DT_S)) for _, time in found] == [
        step for step in wanted if 30 <= step <= 60
    ]


def test_csr_is_what_scipy_loads(run, tmp_path):
    path, spikes, steps = run
    export(path, tmp_path / "run.npz")
    assert {file.name for file in tmp_path.glob("*.npz")} == {f"run.{name}.npz" for name in spikes}
    for name, values in spikes.items():
        matrix = scipy.sparse.load_npz(tmp_path / f"run.{name}.npz")
        assert isinstance(matrix, scipy.sparse.csr_array)
        assert matrix.has_canonical_format
        assert (matrix.dtype, matrix.indices.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(matrix.toarray(), values.reshape(len(steps), -1))
        with np.load(tmp_path / f"run.{name}.npz") as beside:
            np.testing.assert_array_equal(beside["steps"], steps)
            assert tuple(beside["layer_shape"]) == values.shape[1:]
            assert beside["dt_s"] == DT_S


def test_one_layer_gets_the_name_of_the_output(run, tmp_path):
    path, spikes, _ = run
    export(path, tmp_path / "spikes", "fc", to="csr")
    with open(tmp_path / "spikes", "rb") as file:
        found = scipy.sparse.load_npz(file)
    np.testing.assert_array_equal(found.toarray(), spikes["fc"])


def test_what_a_killed_run_has_left_is_exported_up_to_its_last_valid_step(tmp_path, draw, record):
    fc, part, spikes = LAYERS[-1:], tmp_path / "run.h5.part", draw(100, LAYERS[-1:])
    record(part, spikes, fc, dt_s=DT_S)
    with h5py.File(part, "r+") as file:
        file["steps_valid"][0], file["counts_rows"][...], file["complete"][0] = 60, -1, 0
    for name in "run.nwb", "run.sonata.h5", "run.npz":
        export(part, tmp_path / name)
    valid = {"fc": spikes["fc"][:60]}
    with pynwb.NWBHDF5IO(tmp_path / "run.nwb", "r") as io:
        check_units(io.read().units, valid, np.arange(60))
    ids = libsonata.SpikeReader(str(tmp_path / "run.sonata.h5"))["fc"].get_dict()["node_ids"]
    np.testing.assert_array_equal(ids, np.nonzero(valid["fc"])[1])
    matrix = scipy.sparse.load_npz(tmp_path / "run.npz")
    np.testing.assert_array_equal(matrix.toarray(), valid["fc"])


@pytest.mark.parametrize("dt_s", [1e-3, 7e-4, 1e-4, 1 / 30_000, 0.1])
def test_no_step_up_to_ten_million_is_moved_by_its_time(tmp_path, draw, record, dt_s):
    fc = LAYERS[-1:]
    record(tmp_path / "run.h5", draw(400, fc), fc, RecordPolicy(every=2), dt_s=dt_s)
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file.attrs["every"] = 49_999
        file["steps"][...] = 49_999 * np.arange(200)
    for name in "run.nwb", "run.sonata.h5":
        export(tmp_path / "run.h5", tmp_path / name)
    with open_raster(tmp_path / "run.h5") as raster:
        wanted = raster["fc"].events().steps
    times = libsonata.SpikeReader(str(tmp_path / "run.sonata.h5"))["fc"].get_dict()["timestamps"]
    np.testing.assert_array_equal(np.rint(times / (1000 * dt_s)), wanted)
    with pynwb.NWBHDF5IO(tmp_path / "run.nwb", "r") as io:
        units = io.read().units
        times = np.asarray(units["spike_times"].target.data)
        np.testing.assert_array_equal(np.sort(np.rint(times / units.resolution)), wanted)


def test_slabs_are_cut_where_chunks_are(tmp_path, draw, record):
    layers = (LayerLayout("wide", (40, 30, 40), "conv"), LayerLayout("small", (6, 3, 3), "conv"))
    record(tmp_path / "run.h5", draw(256, layers), layers)
    with open_raster(tmp_path / "run.h5") as raster, h5py.File(tmp_path / "run.h5") as file:
        height = file["layers/wide/bits"].chunks[1]
        assert 1 < height < 40
        slabs = list(raster["wide"].slabs())
        assert [slab.start for slab in slabs] == list(range(0, 40, height))
        assert [c for slab in slabs for c in range(slab.start, slab.stop)] == list(range(40))
        assert list(raster["small"].slabs()) == [slice(0, 6)]


PEAK = """
import sys
from pathlib import Path
from srcsnn.rasters import open_raster
from srcsnn.rasters.exporters import plan_exports

with open_raster(sys.argv[1]) as raster:
    (export,) = plan_exports(raster, Path(sys.argv[2]))
    export.write()
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux does")
@pytest.mark.parametrize("name", ["run.nwb", "run.sonata.h5", "run.npz"])
def test_eight_times_the_steps_take_no_more_memory(long_runs, tmp_path, name):
    peaks = []
    for path in long_runs:
        words = [sys.executable, "-c", PEAK, path, tmp_path / name]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, env=environment, capture_output=True, check=True)
        peaks.append(1024 * int(done.stdout))
    # Kept, the 11 million spikes more would take 55 MB as 4-byte columns and ones, 88 MB as times.
    assert peaks[1] - peaks[0] < 32e6


@pytest.fixture(scope="module")
def long_runs(tmp_path_factory):
    """Two rasters, of 8192 steps and of 8 times as many, 1.6 and 12.6 million spikes."""
    folder = tmp_path_factory.mktemp("long")
    layers = (LayerLayout("a", (4, 40, 40), "conv"),)
    some = np.random.default_rng(0).random((64, 4, 40, 40)) < 0.03
    paths = []
    for steps in 2**13, 2**16:
        paths.append(folder / f"{steps}.h5")
        with HDF5Recorder(paths[-1]) as recorder:
            recorder.begin(RasterLayout(layers, steps, 1e-3))
            for step in range(steps):
                recorder.record("a", some[step % 64])
    return paths


def test_a_count_that_is_wrong_is_found(tmp_path, draw, record):
    path = tmp_path / "run.h5"
    record(path, draw(50))
    with h5py.File(path, "r+") as file:
        file["layers/fc/counts_n"][0] += 1
        file["layers/fc/counts_n"][1] -= 1
    with pytest.raises(RasterError, match="damaged: neuron 0 of layer fc has not the number"):
        export(path, tmp_path / "run.nwb")
    with h5py.File(path, "r+") as file:
        file["layers/fc/counts_ct"][0] += 1
    for name in "fc.sonata.h5", "fc.npz":
        with pytest.raises(RasterError, match=r"damaged: layer fc has \d+ spikes, its counts say"):
            export(path, tmp_path / name, "fc")
    assert [file.name for file in tmp_path.iterdir()] == ["run.h5"]


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("dt_s", np.nan, "dt_s is nan, not a positive number of seconds"),
        ("dt_s", 1e308, r"dt_s is 1e\+308, not a positive number of seconds"),
        ("created", "yesterday", "created is 'yesterday', not an ISO 8601 time"),
    ],
)
def test_nwb_needs_times(tmp_path, draw, record, attribute, value, message):
    record(tmp_path / "run.h5", draw(5))
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file.attrs[attribute] = value
    with pytest.raises(RasterError, match=message):
        export(tmp_path / "run.h5", tmp_path / "run.nwb")
    assert [file.name for file in tmp_path.iterdir()] == ["run.h5"]


def test_the_command_tells_the_size_before_and_the_name_after(run, tmp_path, capsys):
    path, spikes, _ = run
    assert command("export-raster", path, "-o", tmp_path / "run.nwb", "--layer", "fc") == 0
    told = capsys.readouterr()
    assert f"{spikes['fc'].sum()} spikes, about 0.3 MB: {tmp_path / 'run.nwb'}" in told.err
    assert told.out == f"written: {tmp_path / 'run.nwb'}\n"


@pytest.mark.parametrize("suffix", [".nwb", ".sonata.h5", ".npz"])
def test_the_size_told_is_about_right(tmp_path, draw, record, suffix):
    layers = (LayerLayout("wide", (40, 30, 40), "conv"),)
    record(tmp_path / "run.h5", draw(256, layers), layers)
    with open_raster(tmp_path / "run.h5") as raster:
        (planned,) = plan_exports(raster, tmp_path / f"run{suffix}")
        planned.write()
    assert planned.bytes == pytest.approx(planned.path.stat().st_size, rel=0.5)


def refused(capsys, code, message, *words):
    assert command("export-raster", *words) == code
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_the_command_says_what_cannot_be_exported(tmp_path, draw, record, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record(Path("run.h5"), draw(20))
    record(Path("counts.h5"), draw(20), policy=RecordPolicy(counts_only=True))
    Path("there.npz").write_bytes(b"mine")
    Path("there.fc.npz").write_bytes(b"mine")
    run = "run.h5"
    refused(capsys, 2, "out.csv: its suffix names no format; use .nwb", run, "-o", "out.csv")
    refused(capsys, 2, "no format 'mat'; there are nwb, sonata, csr", run, "-o", "o", "--to", "mat")
    refused(capsys, 2, "no layer 'c'; there are input", run, "-o", "out.nwb", "--layer", "c")
    refused(capsys, 1, "layer input was recorded as counts only", "counts.h5", "-o", "out.nwb")
    refused(capsys, 1, "nowhere.h5: no such file", "nowhere.h5", "-o", "out.nwb")
    refused(capsys, 2, "is both the raster to read and the file to write",
            run, "-o", run, "--to", "sonata", "--overwrite")  # fmt: skip
    refused(capsys, 2, "there.npz is there already", run, "-o", "there.npz", "--layer", "fc")
    refused(capsys, 2, "there.fc.npz is there already", run, "-o", "there.npz")
    refused(capsys, 2, "there is no folder", run, "-o", "no/where.nwb")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "counts.h5", "run.h5", "there.fc.npz", "there.npz"
    ]  # fmt: skip
    assert Path("there.fc.npz").read_bytes() == b"mine"
    assert command("export-raster", run, "-o", "there.npz", "--layer", "fc", "--overwrite") == 0
    assert scipy.sparse.load_npz("there.npz").shape == (20, 21)


def test_without_pynwb_the_command_says_how_to_get_it(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    refused(capsys, 2, 'pip install "srcsnn[nwb]"', run[0], "-o", tmp_path / "run.nwb")
    with open_raster(run[0]) as raster, pytest.raises(ConfigError, match="needs pynwb"):
        plan_exports(raster, tmp_path / "run.nwb")


def test_the_others_need_no_library_of_their_own(run, tmp_path):
    code = (
        "import sys\n"
        "for name in 'pynwb', 'hdmf', 'scipy', 'libsonata', 'torch': sys.modules[name] = None\n"
        "from srcsnn.cli import main\nmain(sys.argv[1:])"
    )
    for name in "run.sonata.h5", "run.npz":
        done = subprocess.run(
            [sys.executable, "-c", code, "export-raster", run[0], "-o", tmp_path / name],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["run.nwb", "run.sonata.h5", "run.npz"])
def test_an_interrupted_export_changes_nothing(run, tmp_path, monkeypatch, capsys, name):
    (tmp_path / name).write_bytes(b"mine")
    before = sorted(tmp_path.iterdir())
    words = [run[0], "-o", tmp_path / name, "--layer", "fc", "--overwrite"]

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # Reached in the middle of all three: the file is there, the spikes are not.
        patch.setattr(np, "nonzero", interrupt)
        assert command("export-raster", *words) == 1
    assert f"interrupted while writing {tmp_path / name}" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
        assert command("export-raster", *words) == 1
    assert "No space left on device; nothing was changed" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / name).read_bytes() == b"mine"
