"""Whatever is wrong with a file, the reader says so in a line and allocates nothing big."""

import re
import shutil
import tracemalloc

import h5py
import numpy as np
import pytest

from srcsnn.errors import RasterError
from srcsnn.rasters import LayerLayout, RecordPolicy, open_raster, summarize


@pytest.fixture
def good(tmp_path, draw, record):
    path = tmp_path / "run.h5"
    record(path, draw(200), policy=RecordPolicy(every=2))
    return path


def refusal(path):
    """The message with which a file is refused: short, and it names the file."""
    with pytest.raises(RasterError) as caught, open_raster(path):
        pass
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400
    return message.removeprefix(f"{path}: ")


def test_a_missing_file(tmp_path):
    assert refusal(tmp_path / "run.h5") == "no such file"


def test_a_missing_file_whose_part_is_there(tmp_path):
    (tmp_path / "run.h5.part").touch()
    assert re.match(r"no such file; there is run\.h5\.part", refusal(tmp_path / "run.h5"))


def test_a_folder(tmp_path):
    assert refusal(tmp_path) == "is a folder, not a raster file"


def test_an_empty_file(tmp_path):
    (tmp_path / "run.h5").touch()
    assert refusal(tmp_path / "run.h5").startswith("is empty")


def test_a_text_file(tmp_path):
    (tmp_path / "run.h5").write_text("step,layer,neuron\n" * 100)
    assert refusal(tmp_path / "run.h5").startswith("is not HDF5")


def test_another_hdf5_file(tmp_path):
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["images"] = np.zeros(3)
    assert refusal(tmp_path / "run.h5").startswith("HDF5, but not a raster file")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_file_that_is_cut_short(good, share):
    whole = good.read_bytes()
    good.write_bytes(whole[: int(share * len(whole))])
    assert refusal(good).startswith(("is cut short", "is not HDF5", "is damaged"))


def test_bytes_overwritten_anywhere_never_give_anything_but_a_raster_error(good, tmp_path):
    whole = good.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(whole)
        at = int(rng.integers(0, len(whole) - 8))
        damaged[at : at + 8] = rng.bytes(8)
        path = tmp_path / "damaged.h5"
        path.write_bytes(damaged)
        try:
            with open_raster(path) as raster:
                summarize(raster)
                for layer in raster.values():
                    layer.spikes()
            outcomes.add("read")
        except RasterError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_a_newer_major_version(good):
    with h5py.File(good, "r+") as file:
        file.attrs["format_version"] = (2, 0)
    assert refusal(good) == (
        "written in format version 2.0, this reader knows up to 1; update srcsnn"
    )


def test_a_newer_minor_version_is_read(good):
    with h5py.File(good, "r+") as file:
        file.attrs["format_version"] = (1, 7)
        file["layers/fc"].attrs["colour"] = "blue"
        file["layers/fc/more"] = np.zeros(3)
    with open_raster(good) as raster:
        assert raster["fc"].spikes().shape == (100, 21)


def test_no_whole_step(good):
    with h5py.File(good, "r+") as file:
        file["steps_valid"][0] = 0
        file["status"][()] = b"recording"
    assert refusal(good) == "holds no whole step (recording or killed); record again"


BIG = 10**15

DAMAGE = {
    "steps_valid lies": lambda f: f["steps_valid"].__setitem__(0, BIG),
    "steps_valid is negative": lambda f: f["steps_valid"].__setitem__(0, -1),
    "steps_valid and extents lie": lambda f: (
        f["steps_valid"].__setitem__(0, BIG),
        [f[f"layers/{n}/{d}"].resize(BIG, 0) for n in f["layers"] for d in ("bits", "counts_ct")],
        f["steps"].resize(BIG, 0),
    ),
    "steps_valid is a float": lambda f: replace(f, "steps_valid", np.zeros(1)),
    "steps_valid is gone": lambda f: f.__delitem__("steps_valid"),
    "complete is gone": lambda f: f.__delitem__("complete"),
    "counts_rows is gone": lambda f: f.__delitem__("counts_rows"),
    "steps is gone": lambda f: f.__delitem__("steps"),
    "layers is gone": lambda f: f.__delitem__("layers"),
    "layers is empty": lambda f: [f.__delitem__(f"layers/{n}") for n in list(f["layers"])],
    "a layer is a dataset": lambda f: f["layers"].create_dataset("x", data=3),
    "version is a text": lambda f: f.attrs.__setitem__("format_version", "one"),
    "version before the first": lambda f: f.attrs.__setitem__("format_version", (0, 1)),
    "version is gone": lambda f: f.attrs.__delitem__("format_version"),
    "every is zero": lambda f: f.attrs.__setitem__("every", 0),
    "dt_s is a text": lambda f: f.attrs.__setitem__("dt_s", "1 ms"),
    "steps_planned is gone": lambda f: f.attrs.__delitem__("steps_planned"),
    "config is not JSON": lambda f: replace(f, "provenance/config", "{"),
    "config is a list": lambda f: replace(f, "provenance/config", "[1]"),
    "config is a number": lambda f: replace(f, "provenance/config", 3),
    "shape lies": lambda f: f["layers/fc"].attrs.__setitem__("shape", [BIG]),
    "shape is enormous": lambda f: f["layers/fc"].attrs.__setitem__("shape", [2**62, 2**62]),
    "shape has a zero": lambda f: f["layers/fc"].attrs.__setitem__("shape", [0]),
    "shape is a text": lambda f: f["layers/fc"].attrs.__setitem__("shape", "21"),
    "shape is gone": lambda f: f["layers/fc"].attrs.__delitem__("shape"),
    "index is gone": lambda f: f["layers/fc"].attrs.__delitem__("index"),
    "threshold is a list": lambda f: f["layers/fc"].attrs.__setitem__("threshold", [1.0, 2.0]),
    "bits run the other way": lambda f: f["layers/fc"].attrs.__setitem__("bit_order", "big"),
    "bits are gone": lambda f: f["layers/fc"].__delitem__("bits"),
    "bits are floats": lambda f: replace(f, "layers/fc/bits", np.zeros((100, 1, 3))),
    "bits are not chunked": lambda f: replace(f, "layers/fc/bits", np.zeros((100, 1, 3), "u1")),
    "bits have huge chunks": lambda f: replace(
        f, "layers/fc/bits", None, shape=(100, 1, 3), maxshape=(None, 1, 3), chunks=(10**8, 1, 3)
    ),
    "bits were never written": lambda f: replace(
        f, "layers/fc/bits", None, shape=(100, 1, 3), maxshape=(None, 1, 3), chunks=(64, 1, 3)
    ),
    "counts_ct has too few rows": lambda f: f["layers/fc/counts_ct"].resize(50, 0),
    "counts_ct has other channels": lambda f: replace(
        f, "layers/fc/counts_ct", np.zeros((100, 9), "u1")
    ),
    "counts_n is gone": lambda f: f["layers/fc"].__delitem__("counts_n"),
    "counts_n was never written": lambda f: (
        replace(f, "layers/fc/counts_n", None, shape=(BIG,), dtype="u4"),
        f["layers/fc"].attrs.__setitem__("shape", [BIG]),
    ),
}


def replace(file, name, data, **options):
    del file[name]
    if data is None:
        options = {"dtype": "u1"} | options
    file.create_dataset(name, data=data, **options)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_without_a_big_allocation(good, damage):
    with h5py.File(good, "r+") as file:
        DAMAGE[damage](file)
    tracemalloc.start()
    message = refusal(good)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    assert any(word in message for word in ("damaged", "holds no whole step", "bit order"))


def test_steps_as_far_apart_as_no_run_has_them(tmp_path, draw, record):
    path = tmp_path / "run.h5"
    record(path, draw(50, rate=1.0), policy=RecordPolicy(every=2), steps_planned=50)
    with h5py.File(path, "r+") as file:
        file.attrs["every"] = BIG
    assert "more than any run has" in refusal(path)
    with h5py.File(path, "r+") as file:
        file.attrs["every"] = 10**9
        file["steps"][...] = 10**9 * np.arange(25)
    with open_raster(path) as raster, pytest.raises(RasterError, match="the histogram goes up to"):
        raster["fc"].isi()


def test_a_chunk_that_was_lost_is_noticed(tmp_path, draw, record):
    # HDF5 would read it as zeros: a layer that fell silent for a while.
    layers = (LayerLayout("x", (40, 80, 80), "conv"),)
    record(tmp_path / "run.h5", draw(64, layers), layers)
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        bits = file["layers/x/bits"]
        shape, chunks, count = bits.shape, bits.chunks, bits.id.get_num_chunks()
        raw = bits.id.read_direct_chunk((0, 0, 0))[1]
        del file["layers/x/bits"]
        options = {"maxshape": (None, *shape[1:]), "chunks": chunks, "compression": "gzip"}
        file["layers/x"].create_dataset("bits", shape, "u1", **options).id.write_direct_chunk(
            (0, 0, 0), raw
        )
    assert count > 1
    assert f"has 1 chunks of the {count} for its 64 rows" in refusal(tmp_path / "run.h5")


def test_a_damaged_chunk_is_named_when_it_is_read(tmp_path, draw, record):
    layers = (LayerLayout("x", (9, 30, 30), "conv"),)
    record(tmp_path / "run.h5", draw(64, layers), layers)
    with h5py.File(tmp_path / "run.h5") as file:
        chunk = file["layers/x/bits"].id.get_chunk_info(0)
    damaged = bytearray((tmp_path / "run.h5").read_bytes())
    damaged[chunk.byte_offset : chunk.byte_offset + 100] = bytes(100)
    (tmp_path / "run.h5").write_bytes(damaged)
    with open_raster(tmp_path / "run.h5") as raster:
        with pytest.raises(RasterError, match="is damaged and cannot be read"):
            raster["x"].spikes()
        assert raster["x"].neuron_counts().sum() > 0


def test_a_file_that_may_not_be_read_is_closed_again(good, tmp_path):
    copy = tmp_path / "copy.h5"
    shutil.copy(good, copy)
    with h5py.File(copy, "r+") as file:
        del file["layers"]
    refusal(copy)
    with h5py.File(copy, "r+"):  # refused while somebody has it open
        pass


def test_more_spikes_than_steps(good):
    with h5py.File(good, "r+") as file:
        totals = []
        file.visititems(lambda name, item: totals.append(item) if "counts_n" in name else None)
        for each in totals:
            each[...] = 101
    with open_raster(good) as raster, pytest.raises(RasterError, match="101 spikes in 100 steps"):
        summarize(raster)
