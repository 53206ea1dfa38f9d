"""What was recorded is what is read."""

import json
import tempfile
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srcsnn.errors import ConfigError, RasterError
from srcsnn.rasters import HDF5Recorder, LayerLayout, RasterLayout, RecordPolicy, open_raster


@given(
    shape=st.lists(st.integers(1, 11), min_size=1, max_size=4).map(tuple),
    steps=st.integers(1, 150),
    rate=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    every=st.integers(1, 5),
    counts_only=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_any_shape_rate_and_policy_comes_back(shape, steps, rate, every, counts_only, seed):
    spikes = np.random.default_rng(seed).random((steps, *shape)) < rate
    kept = spikes[::every]
    layout = RasterLayout((LayerLayout("x", shape, "conv"),), steps, 1e-3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        with HDF5Recorder(path, RecordPolicy(every=every, counts_only=counts_only)) as recorder:
            recorder.begin(layout)
            for step in spikes:
                recorder.record("x", step)
        with open_raster(path) as raster:
            layer = raster["x"]
            assert raster.complete
            assert layer.shape == shape
            assert layer.steps.tolist() == list(range(0, steps, every))
            assert np.array_equal(layer.neuron_counts(), kept.sum(0))
            channels = shape[0] if len(shape) > 1 else 1
            counts = kept.reshape(len(kept), channels, -1).sum(-1)
            assert np.array_equal(layer.channel_counts(), counts)
            assert np.array_equal(layer.population_counts(), counts.sum(1))
            assert np.allclose(layer.rates(), kept.mean(0))
            if counts_only:
                assert layer.counts_only
                with pytest.raises(RasterError, match=r"counts only; use channel_counts"):
                    layer.spikes()
            else:
                assert np.array_equal(layer.spikes(), kept)


def _selections(size):
    index = st.integers(-size, size - 1)
    bound = st.none() | st.integers(-size - 2, size + 2)
    part = st.builds(slice, bound, bound, st.none() | st.integers(1, 4))
    return st.none() | index | part


@given(data=st.data(), shape=st.sampled_from([(9,), (70,), (3, 70), (6, 3, 3), (5, 9, 11)]))
@settings(max_examples=25, deadline=None)
def test_selections_mean_what_they_mean_in_numpy(data, shape):
    spikes = np.random.default_rng(0).random((30, *shape)) < 0.4
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.h5"
        with HDF5Recorder(path) as recorder:
            recorder.begin(RasterLayout((LayerLayout("x", shape, "conv"),), 30, 1e-3))
            for step in spikes:
                recorder.record("x", step)
        with open_raster(path) as raster:
            for _ in range(10):
                steps = data.draw(_selections(30), "steps")
                wanted = {"channels": 0}
                if len(shape) > 1:
                    wanted["cols"] = len(shape) - 1
                if len(shape) > 2:
                    wanted["rows"] = len(shape) - 2
                chosen = {n: data.draw(_selections(shape[a]), n) for n, a in wanted.items()}
                index = [slice(None)] * len(shape)
                for name, axis in wanted.items():
                    index[axis] = slice(None) if chosen[name] is None else chosen[name]
                full = (slice(None) if steps is None else steps, *index)
                read = raster["x"].spikes(steps, **chosen)
                assert read.dtype == np.bool_
                assert read.shape == spikes[full].shape
                assert np.array_equal(read, spikes[full])


def test_layers_of_every_rank_share_a_file_in_network_order(tmp_path, draw, record, layers):
    spikes = draw(100)
    record(tmp_path / "run.h5", spikes, provenance={"seed": 3, "note": "ä"})
    with open_raster(tmp_path / "run.h5") as raster:
        assert raster.layers == tuple(layer.name for layer in layers)
        assert raster.status == "complete"
        assert (raster.steps_planned, raster.steps_valid, raster.dt_s) == (100, 100, 1e-3)
        assert raster.provenance == {"seed": 3, "note": "ä"}
        for layer in layers:
            stored = raster[layer.name]
            assert (stored.shape, stored.kind) == (layer.shape, layer.kind)
            assert (stored.threshold, stored.decay) == (layer.threshold, layer.decay)
            assert stored.neurons == layer.neurons
            assert np.array_equal(stored.spikes(), spikes[layer.name])
        assert np.array_equal(
            raster["volume"].spikes(rows=2, cols=slice(1, 3)), spikes["volume"][..., 2, 1:3]
        )


def test_what_is_not_there_is_named(tmp_path, draw, record):
    record(tmp_path / "run.h5", draw(10))
    with open_raster(tmp_path / "run.h5") as raster:
        with pytest.raises(ConfigError, match="no layer 'conv1'; there are input, "):
            raster["conv1"]
        assert "conv1" not in raster
        with pytest.raises(RasterError, match=r"rows: there is no 9, they go from 0 to 8"):
            raster["features.0"].spikes(rows=9)
        with pytest.raises(RasterError, match=r"layer fc of shape \(21,\) has no cols"):
            raster["fc"].spikes(cols=0)
        with pytest.raises(RasterError, match="step from 1 on"):
            raster["fc"].spikes(slice(None, None, -1))
        with pytest.raises(RasterError, match="must be a slice or a whole number, got True"):
            raster["fc"].spikes(True)
        assert raster.get("conv1") is None
        assert len(raster["features.0"].events(channels=slice(0, 0)).steps) == 0
        layer = raster["fc"]
    with pytest.raises(RasterError, match=r"is closed; read layer fc before that"):
        layer.spikes()
    record(tmp_path / "thin.h5", draw(10), policy=RecordPolicy(every=2))
    with open_raster(tmp_path / "thin.h5") as raster:
        layer = raster["fc"]
    with pytest.raises(RasterError, match=r"is closed; read its steps before that"):
        layer.events()


def test_every_hundredth_step_takes_the_memory_of_a_hundredth(tmp_path):
    shape = (300, 100, 10)

    def spikes(step):
        return np.broadcast_to((np.arange(300) == step % 300)[:, None, None], shape)

    with HDF5Recorder(tmp_path / "run.h5") as recorder:
        recorder.begin(RasterLayout((LayerLayout("x", shape, "conv"),), 3000, 1e-3))
        for step in range(3000):
            recorder.record("x", spikes(step))
    with open_raster(tmp_path / "run.h5") as raster:
        tracemalloc.start()
        found = raster["x"].spikes(slice(5, None, 100))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert np.array_equal(found, [spikes(step) for step in range(5, 3000, 100)])
    assert peak < 4 * found.nbytes + 16 * 1024**2 < 3000 * 300_000 / 8  # all of them, packed


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float32, np.float64])
def test_spikes_may_have_any_dtype_and_a_batch_axis_of_one(tmp_path, dtype):
    spikes = np.random.default_rng(0).random((70, 4, 9, 9)) < 0.2
    with HDF5Recorder(tmp_path / "run.h5") as recorder:
        recorder.begin(RasterLayout((LayerLayout("x", (4, 9, 9), "conv"),), 70, 1e-3))
        for step in spikes:
            recorder.record("x", step[None].astype(dtype))
    with open_raster(tmp_path / "run.h5") as raster:
        assert np.array_equal(raster["x"].spikes(), spikes)


def test_anything_with_an_array_inside_can_be_recorded(tmp_path):
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return np.array([0.0, 1.0, 0.0])

    with HDF5Recorder(tmp_path / "run.h5") as recorder:
        recorder.begin(RasterLayout((LayerLayout("x", (3,), "linear"),), 1, 1e-3))
        recorder.record("x", Tensor())
    with open_raster(tmp_path / "run.h5") as raster:
        assert raster["x"].spikes().tolist() == [[False, True, False]]


def test_a_buffer_reused_by_the_caller_does_not_change_what_was_recorded(tmp_path):
    buffer = np.zeros(5, bool)
    with HDF5Recorder(tmp_path / "run.h5") as recorder:
        recorder.begin(RasterLayout((LayerLayout("x", (5,), "linear"),), 5, 1e-3))
        for neuron in range(5):
            buffer[:] = False
            buffer[neuron] = True
            recorder.record("x", buffer)
    with open_raster(tmp_path / "run.h5") as raster:
        assert np.array_equal(raster["x"].spikes(), np.eye(5, dtype=bool))


def test_only_the_layers_of_the_policy_are_recorded(tmp_path, draw, record):
    spikes = draw(40)
    record(tmp_path / "run.h5", spikes, policy=RecordPolicy(layers=("f*", "small"), every=4))
    with open_raster(tmp_path / "run.h5") as raster:
        assert raster.layers == ("features.0", "small", "fc")
        assert raster.every == 4
        assert raster["fc"].steps.tolist() == list(range(0, 40, 4))
        assert np.array_equal(raster["small"].spikes(), spikes["small"][::4])


def test_a_window_of_one_channel_reads_only_its_chunks(tmp_path, monkeypatch):
    layers = (LayerLayout("x", (64, 56, 56), "conv"),)
    rng = np.random.default_rng(0)
    with HDF5Recorder(tmp_path / "run.h5") as recorder:
        recorder.begin(RasterLayout(layers, 256, 1e-3))
        for _ in range(256):
            recorder.record("x", rng.random((64, 56, 56), np.float32) < 0.1)
    touched = _reads_of_bits(monkeypatch)
    with open_raster(tmp_path / "run.h5") as raster:
        assert raster["x"].spikes(slice(70, 90), 40).shape == (20, 56, 56)
        assert touched == [(slice(70, 90), slice(40, 41), slice(0, 392))]
        chunk = raster["x"]._bits.chunks
        needed = (89 // chunk[0] - 70 // chunk[0]) + 1
        assert needed <= 2
        assert raster["x"]._bits.id.get_num_chunks() >= 20 * needed


def _reads_of_bits(monkeypatch):
    """Notes every selection that is read from a dataset called bits."""
    touched = []
    read = h5py.Dataset.__getitem__

    def noting(dataset, selection, **options):
        if dataset.name.endswith("/bits"):
            touched.append(selection)
        return read(dataset, selection, **options)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", noting)
    return touched


def test_rows_of_a_channel_read_only_their_bytes(tmp_path, monkeypatch, draw, record):
    spikes = draw(20)
    record(tmp_path / "run.h5", spikes)
    touched = _reads_of_bits(monkeypatch)
    with open_raster(tmp_path / "run.h5") as raster:
        read = raster["features.0"].spikes(channels=slice(2, 4), rows=slice(4, 6))
    assert np.array_equal(read, spikes["features.0"][:, 2:4, 4:6])
    # Rows 4 and 5 of 11 positions: bits 44 to 65, bytes 5 to 8.
    assert touched == [(slice(0, 20), slice(2, 4), slice(5, 9))]


def test_ten_lines_of_the_documentation_read_a_file(tmp_path, draw, record):
    page = Path(__file__).parents[2] / "docs" / "reference" / "raster-format.md"
    code = page.read_text().split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) <= 10
    spikes = draw(90)
    record(tmp_path / "run.h5", spikes)
    names = {}
    exec(code.replace("run.h5", str(tmp_path / "run.h5")), names)  # noqa: S102
    assert np.array_equal(names["spikes"], spikes["features.0"])


def test_a_file_says_what_a_reader_of_another_language_needs(tmp_path, draw, record):
    record(tmp_path / "run.h5", draw(30), policy=RecordPolicy(every=2), provenance={"a": 1})
    with h5py.File(tmp_path / "run.h5") as file:
        assert file.attrs["format"] == "srcsnn-spikes"
        assert file.attrs["format_version"].tolist() == [1, 0]
        assert (file.attrs["dt_s"], file.attrs["every"], file.attrs["steps_planned"]) == (
            1e-3,
            2,
            30,
        )
        assert file.attrs["created"].endswith("+00:00")
        assert file.attrs["software"].startswith("srcsnn")
        assert file["steps_valid"][:].tolist() == [15]
        assert file["complete"][:].tolist() == [1]
        assert file["status"][()] == b"complete"
        assert json.loads(file["provenance/config"][()]) == {"a": 1}
        assert list(file["layers"]) == ["input", "features.0", "small", "line", "volume", "fc"]
        group = file["layers/features.0"]
        assert group.attrs["shape"].tolist() == [5, 9, 11]
        assert [group.attrs[k] for k in ("kind", "bit_order", "packing", "record")] == [
            "conv",
            "little",
            "channel",
            "full",
        ]
        assert (group.attrs["NX_class"], group.attrs["signal"]) == ("NXdata", "counts_ct")
        assert (group.attrs["index"], group.attrs["threshold"]) == (1, 0.7)
        assert file["layers/small"].attrs["packing"] == "layer"
        assert group["bits"].compression == "gzip"
        assert group["counts_ct"].shape == (15, 5)
        assert group["counts_n"].dtype == np.dtype("<u4")


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_files_are_not_larger_than_by_plain_gzip(tmp_path, rate):
    layers = (LayerLayout("x", (10, 26, 26), "conv"),)
    rng = np.random.default_rng(0)
    spikes = rng.random((512, 10, 26, 26)) < rate
    with HDF5Recorder(tmp_path / "run.h5") as recorder:
        recorder.begin(RasterLayout(layers, 2048, 1e-3))
        for step in spikes:
            recorder.record("x", step)
    packed = np.packbits(spikes.reshape(512, 10, 676), axis=-1, bitorder="little")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        plain = file.create_dataset(
            "x", data=packed, chunks=(256, 10, 85), compression="gzip", compression_opts=1
        )
        plain_bytes = plain.id.get_storage_size()
    with h5py.File(tmp_path / "run.h5") as file:
        assert file["layers/x/bits"].id.get_storage_size() <= 1.02 * plain_bytes


def test_steady_firing_is_stored_in_next_to_nothing(tmp_path):
    pattern = np.random.default_rng(0).random((10, 26, 26)) < 0.3
    with HDF5Recorder(tmp_path / "run.h5") as recorder:
        recorder.begin(RasterLayout((LayerLayout("x", pattern.shape, "conv"),), 2048, 1e-3))
        for _ in range(512):
            recorder.record("x", pattern)
    with open_raster(tmp_path / "run.h5") as raster:
        bits = raster["x"]._bits.id.get_storage_size()
    assert bits < 0.05 * 512 * pattern.size / 8
