"""Density images against plain NumPy, and figures of all kinds of layers."""

import re
import sys

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.image import imread

from srcsnn.errors import ConfigError, RasterError
from srcsnn.figures import weight_figure
from srcsnn.rasters import LayerLayout, RecordPolicy, layer, open_raster
from srcsnn.rasters.density import density
from srcsnn.rasters.figures import map_figure, raster_figure


def draw(steps, *shape, rate=0.2):
    return np.random.default_rng(0).random((steps, *shape)) < rate


def words_of(figure, tmp_path, *arguments):
    """The texts of a figure."""
    with rc_context({"svg.fonttype": "none"}):
        figure(*arguments[:1], tmp_path / "x.svg", *arguments[1:])
    return re.findall(r">([^<>\n]+)</text>", (tmp_path / "x.svg").read_text())


@pytest.mark.parametrize("at_once", [layer._BYTES_AT_ONCE, 3000])
@pytest.mark.parametrize("size", [(1000, 1000), (40, 7), (13, 100), (1, 1)])
def test_cells_are_means_over_neurons_and_steps(raster_of, monkeypatch, at_once, size):
    monkeypatch.setattr(layer, "_BYTES_AT_ONCE", at_once)
    spikes = draw(300, 3, 9, 11)
    found = density(raster_of(spikes)["x"], *size)
    trains = spikes.reshape(300, -1)
    high, wide = found.neurons_per_row, found.steps_per_column
    expected = [
        [trains[t : t + wide, n : n + high].mean() for t in range(0, 300, wide)]
        for n in range(0, 297, high)
    ]
    assert np.allclose(found.rates, expected)
    assert found.rates.shape <= size


def test_counts_alone_make_rows_of_channels(raster_of):
    spikes = draw(300, 5, 9, 11)
    found = density(raster_of(spikes, RecordPolicy(counts_only=True))["x"], 3, 100)
    assert found.neurons_per_row == 2 * 99
    cells = spikes.reshape(100, 3, 5, 99)
    expected = [cells[:, :, c : c + 2].mean(axis=(1, 2, 3)) for c in (0, 2, 4)]
    assert np.allclose(found.rates, expected)


@pytest.mark.parametrize(
    "shape",
    [(1,), (300,), (4, 70), (512, 2), (1, 9, 9), (120, 3, 3), (2, 900, 1), (2, 4, 5, 6)],
    ids=str,
)
@pytest.mark.parametrize("rate", [0, 0.1, 1])
def test_every_layer_is_a_picture(raster_of, tmp_path, shape, rate):
    raster = raster_of(draw(30, *shape, rate=rate))
    for figure in raster_figure, map_figure:
        figure(raster, tmp_path / "x.png")
        assert imread(tmp_path / "x.png").std() > 0


@pytest.mark.parametrize("policy", [RecordPolicy(every=7), RecordPolicy(counts_only=True)])
def test_thin_recordings_are_pictures(raster_of, tmp_path, policy):
    raster = raster_of(draw(30, 4, 9, 9), policy)
    for figure in raster_figure, map_figure:
        figure(raster, tmp_path / "x.png")
        assert imread(tmp_path / "x.png").std() > 0


def test_figures_say_how_much_they_show(raster_of, tmp_path):
    raster = raster_of(draw(1000, 120, 8, 8, rate=0.01))
    words = words_of(raster_figure, tmp_path, raster)
    assert "7,680 of 7,680 neurons shown, 39 a row, 2 steps a column" in words
    assert "0.0 % silent" in words
    words = " ".join(words_of(map_figure, tmp_path, raster))
    assert "96 of 120 channels shown; busiest" in words
    silent = raster_of(np.zeros((10, 7), bool))
    words = " ".join(words_of(raster_figure, tmp_path, silent))
    assert "7 of 7 neurons shown, 1 a row, 1 step a column; no spikes" in words
    assert "100.0 % silent" in words


def test_the_busiest_and_the_quietest_channels_are_named(raster_of, tmp_path):
    spikes = np.zeros((20, 4, 8, 8), bool)
    for channel, often in enumerate((5, 0, 20, 10)):
        spikes[:often, channel] = True
    words = words_of(map_figure, tmp_path, raster_of(spikes))
    assert "4 of 4 channels shown; busiest 2, 3; quietest 1, 0" in words
    words = words_of(map_figure, tmp_path, raster_of(np.zeros((20, 4, 8, 8), bool)))
    assert "4 of 4 channels shown; no spikes" in words


def test_channels_of_one_neuron_are_all_shown(raster_of, tmp_path):
    words = words_of(map_figure, tmp_path, raster_of(draw(20, 300, 1, 1)))
    assert "300 of 300 neurons shown" in words


def test_a_long_name_stands_above_the_note(tmp_path, record):
    name = "a.long.name." * 5
    record(tmp_path / "x.h5", {name: draw(9, 3)}, (LayerLayout(name, (3,), "conv"),))
    with open_raster(tmp_path / "x.h5") as raster, rc_context({"svg.fonttype": "none"}):
        raster_figure(raster, tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    above, note = (re.search(rf'translate\(\S+ ([\d.]+)[^>]*>\s*{words}', text)
                   or re.search(rf' y="([\d.]+)"[^>]*>{words}', text)
                   for words in (re.escape(name), "3 of 3 neurons"))  # fmt: skip
    assert float(above[1]) + 8 < float(note[1])


def test_a_layer_that_is_not_there_is_named(raster_of, tmp_path):
    with pytest.raises(ConfigError, match="no layer 'y'; there are x"):
        raster_figure(raster_of(draw(5, 3)), tmp_path / "x.png", ["y"])


def test_weights_of_every_kind_are_a_picture(tmp_path):
    random = np.random.default_rng(0)
    shapes = {"first": (10, 1, 3, 3), "conv": (50, 40, 3, 3), "line": (4, 3, 5), "fc": (300, 7)}
    before = {name: random.normal(size=shape) for name, shape in shapes.items()}
    after = {name: weight + random.normal(size=weight.shape) for name, weight in before.items()}
    after["fc"] = before["fc"]
    words = " ".join(
        words_of(lambda b, path, a: weight_figure(b, a, path), tmp_path, before, after)
    )
    for told in (
        "10 of 10 filters shown, 1 of 1 channels of each",
        "24 of 50 filters shown, 24 of 40 channels of each",
        "256 of 300 x 7 of 7 shown", "no weight changed",
    ):  # fmt: skip
        assert told in words


def test_matplotlib_that_is_missing_is_named(raster_of, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install \"srcsnn\[figures\]\""):
        raster_figure(raster_of(draw(5, 3)), tmp_path / "x.png")


def test_names_are_shown_as_they_are(tmp_path, record):
    name = r"a$\foo$_b"
    spikes = {name: draw(20, 3, 8, 8)}
    record(tmp_path / f"{name}.h5", spikes, (LayerLayout(name, (3, 8, 8), "conv"),))
    with open_raster(tmp_path / f"{name}.h5") as raster:
        for figure in raster_figure, map_figure:
            words = " ".join(words_of(figure, tmp_path, raster))
            assert f"{name}.h5: complete" in words
            assert f"{name}   3 x 8 x 8" in words


def test_too_many_layers_are_refused_and_a_layer_named_twice_is_drawn_once(tmp_path, record):
    layers = tuple(LayerLayout(f"l{i}", (3,), "linear") for i in range(41))
    record(tmp_path / "x.h5", {layer.name: draw(5, 3) for layer in layers}, layers)
    with open_raster(tmp_path / "x.h5") as raster:
        for figure in raster_figure, map_figure:
            with pytest.raises(RasterError, match="41 layers are too many"):
                figure(raster, tmp_path / "x.png")
            words = words_of(figure, tmp_path, raster, ["l7", "l3", "l7"])
            assert [word[:2] for word in words if word.endswith("   3")] == ["l3", "l7"]
