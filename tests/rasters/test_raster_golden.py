"""A file written once pins the format: it must stay readable, and be written alike."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from srcsnn.rasters import HDF5Recorder, LayerLayout, RasterLayout, RecordPolicy, open_raster
from srcsnn.rasters.validation import validate

GOLDEN = Path(__file__).with_name("golden-1.0.h5")
STEPS, EVERY = 600, 2
SHAPES = {"input": (1, 9, 11), "features.0": (5, 8, 9), "small": (6, 3, 3), "line": (3, 70),
          "volume": (2, 4, 5, 6), "fc": (21,)}  # fmt: skip


def spikes(name, steps):
    """A closed formula, the same in any language: whole numbers below 2^32 and a remainder."""
    neuron = np.arange(np.prod(SHAPES[name]), dtype=np.uint64)
    numbers = (np.asarray(steps, np.uint64)[:, None] * 2654435761 + neuron * 40503) % 2**32
    return ((numbers >> 13) % 7 == 0).reshape(-1, *SHAPES[name])


def write(path):
    """What made the golden file."""
    layers = tuple(
        LayerLayout(name, shape, "input" if name == "input" else "conv", threshold=0.5, decay=0.9)
        for name, shape in SHAPES.items()
    )
    layout = RasterLayout(layers, STEPS, 1e-3, provenance={"seed": 0, "note": "ä"})
    with HDF5Recorder(path, RecordPolicy(every=EVERY)) as recorder:
        recorder.begin(layout)
        for step in range(STEPS):
            for name in SHAPES:
                recorder.record(name, spikes(name, [step])[0])


def test_it_is_read_with_nothing_but_the_specification():
    with h5py.File(GOLDEN) as file:
        valid = file["steps_valid"][0]
        assert list(file["steps"][:valid]) == list(range(0, STEPS, EVERY))
        for name, shape in SHAPES.items():
            layer = file["layers"][name]
            shape, packed = layer.attrs["shape"], layer["bits"][:valid]
            bits = np.unpackbits(packed, axis=-1, bitorder="little")
            found = bits[..., : shape.prod() // packed.shape[1]].reshape(valid, *shape).astype(bool)
            expected = spikes(name, range(0, STEPS, EVERY))
            assert np.array_equal(found, expected)
            assert np.array_equal(layer["counts_n"], expected.sum(axis=0))


def test_it_is_valid_and_read_by_the_reader():
    assert validate(GOLDEN).violations == ()
    with open_raster(GOLDEN) as raster:
        assert raster.status == "complete"
        assert raster.provenance == {"seed": 0, "note": "ä"}
        for name in SHAPES:
            assert np.array_equal(raster[name].spikes(), spikes(name, range(0, STEPS, EVERY)))


def described(path):
    """Every object of a file: attributes, and type, storage and contents of datasets."""
    found = {}

    def see(name, item):
        attributes = {
            key: (np.asarray(value).dtype.str, np.asarray(value).tolist())
            for key, value in item.attrs.items()
            if key not in ("created", "software")
        }
        found[name] = [attributes]
        if isinstance(item, h5py.Dataset):
            found[name] += [item.dtype.str, item.shape, item.maxshape, item.chunks,
                            item.compression, np.asarray(item[()]).tolist()]  # fmt: skip

    with h5py.File(path) as file:
        see("/", file)
        file.visititems(see)
        found["superblock"] = file.id.get_create_plist().get_version()[0]
    return found


def test_the_same_is_written_today(tmp_path):
    write(tmp_path / "new.h5")
    new, golden = described(tmp_path / "new.h5"), described(GOLDEN)
    assert new.keys() == golden.keys()
    for name, what in golden.items():
        assert new[name] == what, name


@pytest.mark.parametrize("name", SHAPES)
def test_the_formula_fires_as_a_layer_would(name):
    assert 0.05 < spikes(name, range(STEPS)).mean() < 0.25
