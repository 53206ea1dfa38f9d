"""Summaries of runs whose numbers are known by hand."""

import json
import time
from dataclasses import asdict
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest

from srcsnn.rasters import LayerLayout, RecordPolicy, open_raster, summarize
from srcsnn.rasters.summary import sparkline, trace


@pytest.fixture
def summary_of(tmp_path, record):
    def summary_of(spikes, policy=RecordPolicy(), kind="conv", **layout):  # noqa: B008
        layer = LayerLayout("x", spikes.shape[1:], kind)
        record(tmp_path / "run.h5", {"x": spikes}, (layer,), policy, **layout)
        with open_raster(tmp_path / "run.h5") as raster:
            return summarize(raster)[0]

    return summary_of


def test_numbers_of_a_layer_that_can_be_worked_out_by_hand(summary_of):
    # Of 4 neurons, one fires in all of 20 steps, one in 5, one in step 7 only, one never.
    spikes = np.zeros((20, 4), bool)
    spikes[:, 0] = True
    spikes[5:10, 1] = True
    spikes[7, 2] = True
    summary = summary_of(spikes)
    assert (summary.neurons, summary.steps, summary.spikes) == (4, 20, 26)
    assert summary.rate_mean == pytest.approx(26 / 80)
    assert summary.rate_median == pytest.approx((0.05 + 0.25) / 2)
    assert summary.rate_p95 == pytest.approx(0.25 + 0.85 * 0.75)  # 2.85th of sorted rates
    assert summary.rate_max == 1
    assert (summary.silent_share, summary.saturated_share) == (0.25, 0.25)
    assert (summary.burst, summary.burst_step) == (0.75, 7)
    assert summary.sparkline == "▃▃▃▃▃▆▆█▆▆▃▃▃▃▃▃▃▃▃▃"  # 1, 2 and 3 of 3 neurons
    assert summary.status == "complete"
    assert summary.warnings == ("x: 25 % of neurons fire in more than half of the steps",)


def test_a_layer_that_falls_silent_is_named_with_its_last_step(summary_of):
    spikes = np.zeros((100, 3, 8, 8), bool)
    spikes[:13] = True
    assert "x: 0 spikes after step 12" in summary_of(spikes).warnings


def test_steps_are_those_of_the_run_where_only_some_were_recorded(summary_of):
    spikes = np.zeros((400, 9), bool)
    spikes[:40, :5] = True
    spikes[20] = True
    summary = summary_of(spikes, RecordPolicy(every=4))
    assert (summary.steps, summary.burst_step) == (100, 20)
    assert summary.warnings == ("x: 0 spikes after step 36",)


def test_a_silent_layer_is_named(summary_of):
    summary = summary_of(np.zeros((50, 7), bool))
    assert summary.warnings == ("x: 0 spikes in all 50 steps",)
    assert summary.sparkline == "·" * 32
    assert (summary.rate_max, summary.burst, summary.silent_share) == (0, 0, 1)


@pytest.mark.parametrize(
    ("kind", "warnings"), [("conv", ("x: 90.0% of neurons never fired",)), ("input", ())]
)
def test_mostly_silent_neurons_are_named_but_not_of_the_input(summary_of, kind, warnings):
    spikes = np.zeros((60, 10), bool)
    spikes[::3, :1] = True
    assert summary_of(spikes, kind=kind).warnings == warnings


def test_a_healthy_layer_has_no_warnings(summary_of):
    spikes = np.random.default_rng(0).random((222, 10, 9, 9)) < 0.05
    summary = summary_of(spikes)
    assert summary.warnings == ()
    assert summary.stored_bytes < 222 * 810
    assert 0.2 < summary.stored_ratio < 1.5


def test_how_a_run_ended_is_in_every_line(summary_of):
    summary = summary_of(np.ones((5, 3), bool), steps_planned=9)
    assert summary.status == "stopped at step 5 of 9"


def test_a_summary_is_json(summary_of):
    summary = summary_of(np.eye(9, dtype=bool))
    assert json.loads(json.dumps(asdict(summary)))["spikes"] == 9


def test_counts_alone_give_the_same_summary_as_bits(tmp_path, draw, record):
    spikes = draw(150)
    record(tmp_path / "full.h5", spikes)
    record(tmp_path / "counts.h5", spikes, policy=RecordPolicy(counts_only=True))
    both = []
    for name in ("full.h5", "counts.h5"):
        with open_raster(tmp_path / name) as raster:
            both.append([asdict(summary) for summary in summarize(raster)])
    for full, counts in zip(*both, strict=True):
        for size in ("stored_bytes", "stored_ratio"):
            del full[size], counts[size]
        assert full == counts


def test_no_bits_are_read(tmp_path, draw, record, monkeypatch):
    record(tmp_path / "run.h5", draw(150))
    read = h5py.Dataset.__getitem__
    names = []

    def noting(dataset, selection, **options):
        names.append(dataset.name.split("/")[-1])
        return read(dataset, selection, **options)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", noting)
    with open_raster(tmp_path / "run.h5") as raster:
        summarize(raster)
    assert "counts_ct" in names
    assert "bits" not in names


def test_a_hundred_thousand_steps_are_summarised_at_once(tmp_path, record):
    layers = (LayerLayout("a", (20, 4, 4), "conv"), LayerLayout("b", (10, 8, 8), "conv"))
    some = np.random.default_rng(0).random((100, 100_000 // 100, 1)) < 0.1
    spikes = {
        layer.name: np.broadcast_to(some.reshape(-1, 1, 1, 1), (100_000, *layer.shape))
        for layer in layers
    }
    record(tmp_path / "run.h5", spikes, layers, RecordPolicy(counts_only=True))
    with open_raster(tmp_path / "run.h5") as raster:
        started = time.process_time()
        summaries = summarize(raster)
        seconds = time.process_time() - started
    assert [summary.steps for summary in summaries] == [100_000, 100_000]
    assert seconds < 0.3


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([0.0], "·"),
        ([0.0, 7.0], "·█"),
        ([0.0, 0.01, 7.0], "·▁█"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "·▂▃▄▅▆▇█"),
        ([1.0] * 100, "█" * 32),
        ([0.0] * 64 + [1.0] * 64, "·" * 16 + "█" * 16),
    ],
)
def test_sparklines(values, line):
    assert sparkline(trace(np.array(values))) == line


@pytest.mark.parametrize("kind", ["conv", "input"])
def test_saturated_neurons_are_named_but_not_of_the_input(summary_of, kind):
    spikes = np.random.default_rng(0).random((60, 10)) < 0.3
    spikes[:, :2] = True
    warnings = (
        () if kind == "input" else ("x: 20 % of neurons fire in more than half of the steps",)
    )
    assert summary_of(spikes, kind=kind).warnings == warnings


def test_a_notebook_shows_a_table_with_sparklines(tmp_path, record):
    spikes = np.zeros((30, 4), bool)
    spikes[:5, :2] = True
    record(tmp_path / "<i>.h5", {"<b>": spikes}, (LayerLayout("<b>", (4,), "linear"),))
    with open_raster(tmp_path / "<i>.h5") as raster:
        shown = raster._repr_html_()
        assert repr(raster).endswith("<i>.h5': <b>; 30 steps>")
    table = ElementTree.fromstring(f"<div>{shown}</div>")  # noqa: S314  # our own
    assert table.find(".//caption").text == "<i>.h5: complete, 30 of 30 steps"
    cells = [cell.text for cell in table.findall(".//td")]
    assert cells == ["<b>", "4", "10", "0.0833", "50.0%", "0.0%", "█" * 5 + "·" * 25]
    assert [item.text for item in table.findall(".//li")] == ["<b>: 0 spikes after step 4"]
