import math

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcsnn.errors import ConfigError, RasterError
from srcsnn.rasters import LayerLayout, RasterLayout, RecordPolicy, estimate_bytes
from srcsnn.rasters.layout import (
    CHUNK_BYTES,
    Packing,
    block_steps,
    chunk_shape,
    counts_dtype,
    pack,
    packing_of,
    unpack,
)

SHAPES = st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple)


def test_golden_bytes_of_a_small_layer():
    # Neurons 0, 3 and 9 of 10: bits 0 and 3 of byte 0 (1 + 8 = 9), bit 1 of byte 1 (2).
    spikes = np.zeros((2, 10), bool)
    spikes[0, [0, 3, 9]] = True
    spikes[1, 7] = True  # the highest bit of byte 0: 128
    assert pack(spikes).tolist() == [[[9, 2]], [[128, 0]]]


def test_golden_bytes_of_a_map_with_a_row_per_channel(tmp_path, record):
    # 8 x 9 = 72 positions, 9 bytes a row. Channel 1, y = 2, x = 5: position 2 * 9 + 5 = 23,
    # byte 2, bit 7 (128). Channel 0, y = 7, x = 8: position 71, byte 8, bit 7 (128).
    layer = LayerLayout("conv", (2, 8, 9), "conv")
    spikes = np.zeros((1, 2, 8, 9), bool)
    spikes[0, 1, 2, 5] = spikes[0, 0, 7, 8] = spikes[0, 0, 0, 1] = True
    record(tmp_path / "run.h5", {"conv": spikes}, (layer,))
    with h5py.File(tmp_path / "run.h5") as file:
        stored = file["layers/conv/bits"][: file["steps_valid"][0]]
    expected = [[2, 0, 0, 0, 0, 0, 0, 0, 128], [0, 0, 128, 0, 0, 0, 0, 0, 0]]
    assert stored.tolist() == [expected]


@pytest.mark.parametrize(
    ("shape", "packing"),
    [
        ((4096,), Packing(1, 4096, False)),
        ((10, 26, 26), Packing(10, 676, True)),
        ((10, 8, 8), Packing(10, 64, True)),
        ((10, 7, 9), Packing(1, 630, False)),
        ((3, 64), Packing(3, 64, True)),
        ((2, 4, 4, 4), Packing(2, 64, True)),
        ((2, 3, 3, 3), Packing(1, 54, False)),
    ],
)
def test_maps_of_64_positions_get_a_row_per_channel(shape, packing):
    assert packing_of(shape) == packing


@given(shape=SHAPES, steps=st.integers(1, 5), seed=st.integers(0, 99))
def test_unpack_inverts_pack(shape, steps, seed):
    spikes = np.random.default_rng(seed).random((steps, *shape)) < 0.5
    assert np.array_equal(unpack(pack(spikes), shape), spikes)


@given(
    steps=st.sampled_from([4, 8, 64, 256]),
    rows=st.integers(1, 5000),
    row_bytes=st.integers(1, 2_000_000),
)
def test_chunks_are_small_and_blocks_are_whole_chunks(steps, rows, row_bytes):
    chunk = chunk_shape(steps, rows, row_bytes)
    assert math.prod(chunk) <= CHUNK_BYTES
    assert steps % chunk[0] == 0
    assert all(size >= 1 for size in chunk)
    assert chunk[1] <= rows
    assert chunk[2] <= row_bytes
    if math.prod((steps, rows, row_bytes)) > CHUNK_BYTES and row_bytes < 1024:
        assert math.prod(chunk) >= CHUNK_BYTES // 4


@pytest.mark.parametrize(
    ("neurons", "steps"), [(1, 256), (10_000, 256), (200_704, 128), (10**9, 4)]
)
def test_blocks_shrink_for_large_networks(neurons, steps):
    assert block_steps(neurons) == steps


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 5, 51), "u1"), ((2, 16, 16), "u2"), ((70_000,), "u4")]
)
def test_counts_hold_a_whole_channel(shape, dtype):
    assert counts_dtype(shape) == np.dtype(dtype)


@pytest.mark.parametrize("name", ["", "a/b", ".", "..", "nul\0"])
def test_names_that_hdf5_would_take_for_paths_are_refused(name):
    with pytest.raises(RasterError, match="cannot be recorded as"):
        LayerLayout(name, (3,), "linear")


@pytest.mark.parametrize("shape", [(), (0,), (2, -1), (1, 2, 3, 4, 5)])
def test_impossible_shapes_are_refused(shape):
    with pytest.raises(RasterError, match=r"layer x: shape .* must be \(N,\)"):
        LayerLayout("x", shape, "conv")


def test_layouts_that_make_no_sense_are_refused(layers):
    with pytest.raises(RasterError, match="kind 'pool' is none of input, conv, linear"):
        LayerLayout("x", (3,), "pool")
    with pytest.raises(RasterError, match="same name: fc"):
        RasterLayout((*layers, layers[-1]), 10, 1e-3)
    with pytest.raises(RasterError, match="at least one layer"):
        RasterLayout((), 10, 1e-3)
    with pytest.raises(RasterError, match="dt_s must be above 0"):
        RasterLayout(layers, 10, math.nan)
    with pytest.raises(RasterError, match="steps_planned"):
        RasterLayout(layers, -1, 1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": ()}, "empty"),
        ({"layers": "conv*"}, "list of globs"),
        ({"layers": (1,)}, "list of globs"),
        ({"every": 0}, "got 0"),
        ({"every": 10**9 + 1}, "got 1000000001"),
        ({"every": 1.5}, "whole number"),
        ({"every": True}, "whole number"),
        ({"counts_only": "yes"}, "true or false"),
    ],
)
def test_policies_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        RecordPolicy(**fields)


def test_a_policy_selects_by_glob_in_network_order():
    policy = RecordPolicy(layers=("fc", "features.*"))
    assert policy.select(["input", "features.0", "features.3", "fc"]) == (
        "features.0",
        "features.3",
        "fc",
    )


def test_a_glob_without_a_layer_names_the_layers_there_are():
    with pytest.raises(ConfigError, match=r"'conv9' matches no layer; the layers are input, fc"):
        RecordPolicy(layers=("fc", "conv9")).select(["input", "fc"])


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("policy", [RecordPolicy(), RecordPolicy(every=3), RecordPolicy(("f*",))])
def test_the_estimate_is_an_upper_limit_and_with_a_rate_a_close_one(
    tmp_path, draw, record, layers, rate, policy
):
    layers = (LayerLayout("first", (8, 40, 40), "conv"), LayerLayout("fc", (900,), "linear"))
    record(tmp_path / "run.h5", draw(600, layers, rate), layers, policy)
    size = (tmp_path / "run.h5").stat().st_size
    layout = RasterLayout(layers, 600, 1e-3)
    assert size <= estimate_bytes(layout, policy)
    assert 0.5 * size <= estimate_bytes(layout, policy, rate) <= 2 * size
