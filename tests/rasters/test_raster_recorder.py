"""The recorder as its caller meets it: names, order, interruptions, memory."""

import os
import tempfile
import threading
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from srcsnn.errors import ConfigError, RasterError
from srcsnn.rasters import HDF5Recorder, LayerLayout, RasterLayout, RecordPolicy, open_raster
from srcsnn.rasters.thread import WriterThread

PAIR = (LayerLayout("a", (5,), "linear"), LayerLayout("b", (2, 3, 3), "conv"))


def spikes_of(layer, step):
    return np.random.default_rng((step, layer.neurons)).random(layer.shape) < 0.3


def feed(recorder, layers, steps):
    for step in steps:
        for layer in layers:
            recorder.record(layer.name, spikes_of(layer, step))


def abort(path, steps, error, overwrite=False):
    """Records some steps and half of another, then leaves the block by an error."""
    with HDF5Recorder(path, overwrite=overwrite) as recorder:
        recorder.begin(RasterLayout(PAIR, 600, 1e-3))
        feed(recorder, PAIR, range(steps))
        recorder.record("a", np.ones(5))
        raise error


def expected(layer, steps):
    return np.stack([spikes_of(layer, step) for step in steps])


def test_the_file_has_its_name_only_when_closed(tmp_path):
    path = tmp_path / "run.h5"
    with HDF5Recorder(path) as recorder:
        recorder.begin(RasterLayout(PAIR, 3, 1e-3))
        feed(recorder, PAIR, range(3))
        assert os.listdir(tmp_path) == ["run.h5.part"]
    assert os.listdir(tmp_path) == ["run.h5"]


def test_an_existing_file_is_kept_unless_overwriting_was_asked_for(tmp_path):
    path = tmp_path / "run.h5"
    path.write_text("precious")
    with pytest.raises(RasterError, match=r"run\.h5 is there already"):
        HDF5Recorder(path).begin(RasterLayout(PAIR, 3, 1e-3))
    assert path.read_text() == "precious"
    with HDF5Recorder(path, overwrite=True) as recorder:
        recorder.begin(RasterLayout(PAIR, 3, 1e-3))
        feed(recorder, PAIR, range(3))
    with open_raster(path) as raster:
        assert raster.complete


def test_a_file_that_appears_meanwhile_is_kept_and_the_raster_too(tmp_path):
    path = tmp_path / "run.h5"
    recorder = HDF5Recorder(path)
    recorder.begin(RasterLayout(PAIR, 3, 1e-3))
    feed(recorder, PAIR, range(3))
    path.write_text("precious")
    with pytest.raises(RasterError, match=r"appeared meanwhile; the raster is in .*run\.h5\.part"):
        recorder.close()
    assert path.read_text() == "precious"
    with open_raster(tmp_path / "run.h5.part") as raster:
        assert raster.complete


def test_the_part_of_a_killed_run_is_kept_unless_overwriting_was_asked_for(tmp_path):
    part = tmp_path / "run.h5.part"
    part.write_text("what a killed run left")
    with pytest.raises(RasterError, match=r"run that was killed.*rename or remove"):
        HDF5Recorder(tmp_path / "run.h5").begin(RasterLayout(PAIR, 3, 1e-3))
    assert part.read_text() == "what a killed run left"
    with HDF5Recorder(tmp_path / "run.h5", overwrite=True) as recorder:
        recorder.begin(RasterLayout(PAIR, 3, 1e-3))
        feed(recorder, PAIR, range(3))
    assert os.listdir(tmp_path) == ["run.h5"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_recorders_cannot_write_the_same_file(tmp_path, overwrite):
    with HDF5Recorder(tmp_path / "run.h5") as first:
        first.begin(RasterLayout(PAIR, 100, 1e-3))
        feed(first, PAIR, range(70))
        with pytest.raises(RasterError, match="is being written by another run"):
            HDF5Recorder(tmp_path / "run.h5", overwrite=overwrite).begin(
                RasterLayout(PAIR, 3, 1e-3)
            )
        feed(first, PAIR, range(70, 100))
    with open_raster(tmp_path / "run.h5") as raster:
        assert np.array_equal(raster["a"].spikes(), expected(PAIR[0], range(100)))


def test_a_missing_folder_is_named_at_the_beginning(tmp_path):
    with pytest.raises(RasterError, match=r"no folder .*/nowhere"):
        HDF5Recorder(tmp_path / "nowhere" / "run.h5").begin(RasterLayout(PAIR, 3, 1e-3))
    with pytest.raises(RasterError, match="it is a folder"):
        HDF5Recorder(tmp_path).begin(RasterLayout(PAIR, 3, 1e-3))


def test_a_folder_that_is_not_writable_is_named_at_the_beginning():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        child = os.fork()
        if child == 0:  # not root, to whom every folder is writable
            try:
                if os.getuid() == 0:
                    os.setuid(65534)
                HDF5Recorder(Path(folder) / "run.h5").begin(RasterLayout(PAIR, 3, 1e-3))
            except RasterError as error:
                os._exit(42 if "is not writable" in str(error) else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
        Path(folder).chmod(0o755)


def test_provenance_that_is_not_json_is_refused_and_leaves_nothing(tmp_path):
    for value in (float("nan"), object(), {1, 2}):
        with pytest.raises(RasterError, match="provenance of a raster must be plain JSON"):
            HDF5Recorder(tmp_path / "run.h5").begin(RasterLayout(PAIR, 3, 1e-3, {"x": value}))
    assert os.listdir(tmp_path) == []


def test_a_glob_without_a_layer_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ConfigError, match="'c' matches no layer; the layers are a, b"):
        HDF5Recorder(tmp_path / "run.h5", RecordPolicy(("c",))).begin(RasterLayout(PAIR, 3, 1e-3))
    assert os.listdir(tmp_path) == []


def test_wrong_calls_say_what_is_wrong(tmp_path):
    recorder = HDF5Recorder(tmp_path / "run.h5", RecordPolicy(("a", "b")))
    with pytest.raises(RasterError, match="has not begun"):
        recorder.record("a", np.zeros(5))
    recorder.begin(RasterLayout(PAIR, 3, 1e-3))
    with pytest.raises(RasterError, match="records one run"):
        recorder.begin(RasterLayout(PAIR, 3, 1e-3))
    with pytest.raises(RasterError, match="'c' is not in the layout; its layers are a, b"):
        recorder.record("c", np.zeros(5))
    for wrong in ((1,), (2, 5), (18,)):
        with pytest.raises(RasterError, match=r"layer a: spikes of shape .* \(5,\)"):
            recorder.record("a", np.zeros(wrong))
    recorder.record("a", np.zeros(5))
    with pytest.raises(RasterError, match="a came twice in step 0; still missing: b"):
        recorder.record("a", np.zeros(5))
    recorder.record("b", np.zeros((2, 3, 3)))
    recorder.close()
    recorder.close()
    with pytest.raises(RasterError, match="is closed"):
        recorder.record("a", np.zeros(5))
    with open_raster(tmp_path / "run.h5") as raster:
        assert raster.steps_valid == 1


def test_layers_may_come_in_any_order(tmp_path):
    with HDF5Recorder(tmp_path / "run.h5") as recorder:
        recorder.begin(RasterLayout(PAIR, 80, 1e-3))
        for step in range(80):
            feed(recorder, PAIR[:: 1 if step % 2 else -1], [step])
    with open_raster(tmp_path / "run.h5") as raster:
        for layer in PAIR:
            assert np.array_equal(raster[layer.name].spikes(), expected(layer, range(80)))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError("weights\nexploded")])
@pytest.mark.parametrize("step", [1, 255, 256, 257, 400])
def test_an_interrupted_run_keeps_all_whole_steps(tmp_path, error, step):
    path = tmp_path / "run.h5"
    with pytest.raises((KeyboardInterrupt, ZeroDivisionError)):
        abort(path, step, error)
    assert os.listdir(tmp_path) == ["run.h5"]
    with open_raster(path) as raster:
        why = "KeyboardInterrupt" if error is KeyboardInterrupt else "ZeroDivisionError: weights"
        assert raster.status.startswith(f"aborted at step {step}: {why}")
        assert "\n" not in raster.status
        assert not raster.complete
        assert (raster.steps_planned, raster.steps_valid) == (600, step)
        for layer in PAIR:
            wanted = expected(layer, range(step))
            assert np.array_equal(raster[layer.name].spikes(), wanted)
            assert np.array_equal(raster[layer.name].neuron_counts(), wanted.sum(0))


def test_a_run_interrupted_before_its_first_step_leaves_nothing_and_takes_nothing(tmp_path):
    path = tmp_path / "run.h5"
    path.write_text("precious")
    with pytest.raises(KeyboardInterrupt):
        abort(path, 0, KeyboardInterrupt, overwrite=True)
    assert os.listdir(tmp_path) == ["run.h5"]
    assert path.read_text() == "precious"


def test_a_very_long_reason_fits(tmp_path):
    with pytest.raises(ZeroDivisionError):
        abort(tmp_path / "run.h5", 3, ZeroDivisionError("ä" * 1000))
    with open_raster(tmp_path / "run.h5") as raster:
        assert raster.status.startswith("aborted at step 3: ZeroDivisionError: ää")
        assert len(raster.status.encode()) <= 256


def test_a_run_closed_early_says_where_it_stopped(tmp_path):
    with HDF5Recorder(tmp_path / "run.h5", RecordPolicy(every=4)) as recorder:
        recorder.begin(RasterLayout(PAIR, 222, 1e-3))
        feed(recorder, PAIR, range(10))
    with open_raster(tmp_path / "run.h5") as raster:
        assert (raster.status, raster.complete) == ("stopped at step 10 of 222", False)
        assert raster["a"].steps.tolist() == [0, 4, 8]


def test_a_layer_that_never_came_is_named(tmp_path):
    with HDF5Recorder(tmp_path / "run.h5") as recorder:
        recorder.begin(RasterLayout(PAIR, 3, 1e-3))
        feed(recorder, PAIR, range(2))
        recorder.record("a", np.zeros(5))
    with open_raster(tmp_path / "run.h5") as raster:
        assert raster.status == "aborted at step 2: closed while b was missing"
        assert raster.steps_valid == 2


def test_more_steps_than_planned_are_kept(tmp_path):
    with HDF5Recorder(tmp_path / "run.h5") as recorder:
        recorder.begin(RasterLayout(PAIR, 3, 1e-3))
        feed(recorder, PAIR, range(100))
    with open_raster(tmp_path / "run.h5") as raster:
        assert raster.complete
        assert np.array_equal(raster["b"].spikes(), expected(PAIR[1], range(100)))


def test_no_thread_and_no_open_file_is_left_behind(tmp_path):
    with HDF5Recorder(tmp_path / "run.h5") as recorder:
        recorder.begin(RasterLayout(PAIR, 3, 1e-3))
        feed(recorder, PAIR, range(3))
    assert all(thread.name != "raster-writer" for thread in threading.enumerate())
    with h5py.File(tmp_path / "run.h5", "r+") as file:  # refused while it is open elsewhere
        assert file["complete"][0] == 1


def test_memory_does_not_grow_with_the_number_of_steps(tmp_path):
    layer = LayerLayout("x", (16, 20, 20), "conv")
    spikes = np.random.default_rng(0).random((64, *layer.shape)) < 0.1

    def peak(steps):
        tracemalloc.start()
        with HDF5Recorder(tmp_path / f"{steps}.h5") as recorder:
            recorder.begin(RasterLayout((layer,), 10**6, 1e-3))
            for step in range(steps):
                recorder.record("x", spikes[step % 64])
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    short, long = peak(1500), peak(9000)
    two_blocks = 2 * 256 * layer.neurons
    assert short < 2.5 * two_blocks
    assert long < 1.1 * short


def test_a_failed_write_is_raised_by_record_and_the_caller_is_never_blocked(tmp_path, monkeypatch):
    asked = []

    def fail_from_the_second_block_on(*_):
        asked.append(1)
        if len(asked) > 2:  # once for the empty file, once for the first block
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("srcsnn.rasters.writer.require_space", fail_from_the_second_block_on)
    recorder = HDF5Recorder(tmp_path / "run.h5")
    recorder.begin(RasterLayout(PAIR, 10_000, 1e-3))
    with pytest.raises(RasterError, match=r"run\.h5: Input/output error; its first 256 recorded"):
        feed(recorder, PAIR, range(5000))
    with pytest.raises(RasterError, match="first 256 recorded steps are kept"):
        recorder.close()
    with open_raster(tmp_path / "run.h5") as raster:
        assert raster.status == "aborted at step 256: Input/output error"
        assert np.array_equal(raster["a"].spikes(), expected(PAIR[0], range(256)))
        assert np.array_equal(raster["a"].neuron_counts(), raster["a"].spikes().sum(0))


def test_a_failed_write_does_not_hide_why_the_block_was_left(tmp_path, monkeypatch):
    recorder = HDF5Recorder(tmp_path / "run.h5")
    with pytest.raises(ZeroDivisionError) as caught, recorder:  # noqa: PT012
        recorder.begin(RasterLayout(PAIR, 10_000, 1e-3))
        feed(recorder, PAIR, range(10))

        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("srcsnn.rasters.writer.require_space", fail)
        raise ZeroDivisionError
    assert "No space left on device; nothing was kept" in caught.value.__notes__[0]
    assert os.listdir(tmp_path) == []


class Undecided:
    def __bool__(self):
        raise ValueError("neither a spike nor none")


def record_run(path, steps, last=None):
    with HDF5Recorder(path) as recorder:
        recorder.begin(RasterLayout(PAIR, 222, 1e-3))
        feed(recorder, PAIR, range(steps))
        if last is not None:
            recorder.record("a", last)


def test_a_layer_whose_spikes_could_not_be_copied_is_still_missing(tmp_path):
    path = tmp_path / "run.h5"
    with pytest.raises(ValueError, match="neither a spike"):
        record_run(path, 2, last=np.array([Undecided()] * 5))
    with open_raster(path) as raster:
        assert raster.steps_valid == 2
        assert raster.status.startswith("aborted at step 2: ValueError")


def test_an_interrupt_while_a_block_is_handed_over_loses_no_step(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    put = WriterThread.put

    def interrupted(thread, block):
        monkeypatch.setattr(WriterThread, "put", put)
        thread._full.put(block)  # handed over, but the thread's caller never heard of it
        raise KeyboardInterrupt

    monkeypatch.setattr(WriterThread, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record_run(path, 600)
    with open_raster(path) as raster:
        assert raster.steps_valid == 256
        np.testing.assert_array_equal(raster["a"].spikes(), expected(PAIR[0], range(256)))


def test_rows_may_be_arrays_of_another_library(tmp_path):
    path = tmp_path / "run.h5"
    with HDF5Recorder(path, view=torch.from_numpy) as recorder:
        recorder.begin(RasterLayout(PAIR, 3, 1e-3))
        for step in range(3):
            for layer in PAIR:
                recorder.record(layer.name, torch.from_numpy(spikes_of(layer, step))[None].float())
        with pytest.raises(RasterError, match=r"shape \(4,\) do not fit"):
            recorder.record("a", torch.zeros(4))
    with open_raster(path) as raster:
        for layer in PAIR:
            np.testing.assert_array_equal(raster[layer.name].spikes(), expected(layer, range(3)))
