"""Events, counts, intervals and statistics, against plain NumPy and against Elephant."""

import math
import sys

import numpy as np
import pytest

from srcsnn.errors import RasterError
from srcsnn.rasters import RecordPolicy, layer
from srcsnn.rasters.statistics import correlations, fano_factor, synchrony


@pytest.fixture
def layer_of(raster_of):
    return lambda *spikes_and_policy: raster_of(*spikes_and_policy)["x"]


@pytest.fixture(params=[layer._BYTES_AT_ONCE, 3000], ids=["at once", "in pieces"])
def pieces(request, monkeypatch):
    monkeypatch.setattr(layer, "_BYTES_AT_ONCE", request.param)


def draw(steps, *shape, rate=0.2, seed=0):
    return np.random.default_rng(seed).random((steps, *shape)) < rate


@pytest.mark.usefixtures("pieces")
class TestEvents:
    def test_all_of_them_in_the_order_of_time(self, layer_of):
        spikes = draw(300, 5, 9, 11)
        events = layer_of(spikes).events()
        steps, neurons = np.nonzero(spikes.reshape(300, -1))
        assert events.steps.tolist() == steps.tolist()
        assert events.neurons.tolist() == neurons.tolist()

    def test_of_a_part_with_the_neurons_numbers_in_the_layer(self, layer_of):
        spikes = draw(300, 5, 9, 11)
        events = layer_of(spikes).events(slice(7, 250, 3), channels=slice(1, 5, 2), cols=4)
        chosen = np.zeros_like(spikes)
        chosen[7:250:3, 1:5:2, :, 4] = spikes[7:250:3, 1:5:2, :, 4]
        steps, *position = np.nonzero(chosen)
        assert events.steps.tolist() == steps.tolist()
        assert np.unravel_index(events.neurons, (5, 9, 11))[0].tolist() == position[0].tolist()
        assert np.unravel_index(events.neurons, (5, 9, 11))[2].tolist() == [4] * len(steps)

    def test_have_step_numbers_of_the_run(self, layer_of):
        spikes = draw(90, 7)
        events = layer_of(spikes, RecordPolicy(every=4)).events()
        assert events.steps.tolist() == (4 * np.nonzero(spikes[::4])[0]).tolist()

    def test_none_of_a_silent_layer(self, layer_of):
        assert len(layer_of(np.zeros((20, 3), bool)).events().steps) == 0


@pytest.mark.usefixtures("pieces")
class TestCounts:
    @pytest.mark.parametrize("bin", [1, 7, 100, 300, 1000])
    def test_are_sums_over_bins_the_last_one_shorter(self, layer_of, bin):
        spikes = draw(300, 5, 9, 11)
        counts = layer_of(spikes).counts(bin)
        expected = [spikes[first : first + bin].sum(axis=0) for first in range(0, 300, bin)]
        assert np.array_equal(counts, expected)

    def test_have_the_smallest_type_that_holds_a_bin(self, layer_of):
        always = layer_of(np.ones((300, 3), bool))
        assert (always.counts(255).dtype, always.counts(256).dtype) == (np.uint8, np.uint16)
        assert always.counts(300).tolist() == [[300, 300, 300]]

    def test_of_some_steps(self, layer_of):
        spikes = draw(300, 5, 9, 11)
        raster = layer_of(spikes)
        part = slice(20, 270, 4)
        assert np.array_equal(raster.neuron_counts(part), spikes[part].sum(axis=0))
        assert np.allclose(raster.rates(part), spikes[part].mean(axis=0))

    def test_of_no_steps_have_no_rate(self, layer_of):
        with pytest.raises(RasterError, match="holds none of 300"):
            layer_of(draw(300, 3)).rates(slice(300, None))

    def test_a_bin_has_a_step_at_least(self, layer_of):
        for ask in (layer.LayerRaster.counts, fano_factor, synchrony, correlations):
            with pytest.raises(RasterError, match="from 1 on, got 0"):
                ask(layer_of(draw(30, 3)), bin=0)
            with pytest.raises(RasterError, match=r"bin: must be a whole number .*, got 2\.0"):
                ask(layer_of(draw(30, 3)), bin=2.0)

    def test_a_bin_may_be_a_number_of_any_type(self, layer_of):
        spikes = draw(500, 3)
        counts = layer_of(spikes).counts(bin=np.uint8(200))
        assert counts.tolist() == [
            spikes[first : first + 200].sum(0).tolist() for first in (0, 200, 400)
        ]

    def test_no_pairs(self, layer_of):
        with pytest.raises(RasterError, match=r"pairs: must be a whole number .*, got 1\.5"):
            correlations(layer_of(draw(30, 3)), pairs=1.5)
        for seed in (-1, 1.5):
            with pytest.raises(RasterError, match=r"seed: must be a whole number from 0 on"):
                correlations(layer_of(draw(30, 3)), seed=seed)

    def test_as_a_sparse_matrix(self, layer_of):
        spikes = draw(300, 5, 9, 11)
        matrix = layer_of(spikes).to_scipy()
        assert matrix.dtype == np.uint8
        assert matrix.has_sorted_indices
        assert np.array_equal(matrix.toarray(), spikes.reshape(300, -1))


def test_scipy_that_is_missing_is_named(layer_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(RasterError, match="pip install scipy"):
        layer_of(draw(30, 3)).to_scipy()


def test_counts_alone_answer_only_what_they_can(layer_of):
    spikes = draw(300, 5, 9, 11)
    raster = layer_of(spikes, RecordPolicy(counts_only=True))
    assert np.array_equal(raster.neuron_counts(), spikes.sum(axis=0))
    for ask in (raster.isi, raster.events, raster.counts, raster.to_scipy):
        with pytest.raises(RasterError, match="counts only"):
            ask()


@pytest.mark.usefixtures("pieces")
class TestIntervals:
    def test_of_spikes_that_can_be_counted_by_hand(self, layer_of):
        spikes = np.zeros((20, 4), bool)
        spikes[[2, 5, 9, 19], 0] = True  # 3, 4, 10
        spikes[::2, 1] = True  # 9 times 2
        spikes[7, 2] = True  # none
        found = layer_of(spikes).isi()
        assert found.histogram.tolist() == [0, 0, 9, 1, 1, 0, 0, 0, 0, 0, 1]
        assert found.number.tolist() == [3, 9, 0, 0]
        assert found.mean[:2].tolist() == pytest.approx([17 / 3, 2])
        assert found.cv[:2].tolist() == pytest.approx([np.std([3, 4, 10]) / (17 / 3), 0])
        assert np.isnan([*found.mean[2:], *found.cv[2:]]).all()

    def test_agree_with_elephant(self, layer_of):
        statistics = pytest.importorskip("elephant.statistics")
        spikes = draw(400, 3, 4, rate=0.1)
        found = layer_of(spikes).isi()
        times = [np.flatnonzero(train) for train in spikes.reshape(400, -1).T]
        lengths = [statistics.isi(train) for train in times]
        assert found.histogram.tolist() == np.bincount(np.concatenate(lengths)).tolist()
        assert np.allclose(found.cv.ravel(), [statistics.cv(train) for train in lengths])

    def test_are_in_steps_of_the_run(self, layer_of):
        found = layer_of(np.ones((40, 2), bool), RecordPolicy(every=5)).isi()
        assert found.mean.tolist() == [5, 5]

    def test_of_a_silent_layer(self, layer_of):
        found = layer_of(np.zeros((20, 3), bool)).isi()
        assert found.histogram.tolist() == [0]


@pytest.mark.usefixtures("pieces")
class TestStatistics:
    def test_fano_factor_agrees_with_elephant(self, layer_of):
        elephant = pytest.importorskip("elephant.statistics")
        neo = pytest.importorskip("neo")
        spikes = draw(405, 3, 4, rate=0.1)
        found = fano_factor(layer_of(spikes), bin=20).ravel()
        for neuron, train in enumerate(spikes[:400].reshape(20, 20, 12).transpose(2, 0, 1)):
            trains = [neo.SpikeTrain(np.flatnonzero(t), t_stop=20, units="ms") for t in train]
            assert found[neuron] == pytest.approx(elephant.fanofactor(trains))

    @pytest.mark.filterwarnings("ignore:The 'copy' argument in Quantity")  # within Elephant
    @pytest.mark.parametrize("bin", [1, 6])
    def test_correlations_and_synchrony_agree_with_elephant(self, layer_of, bin):
        correlation = pytest.importorskip("elephant.spike_train_correlation")
        conversion = pytest.importorskip("elephant.conversion")
        neo = pytest.importorskip("neo")
        quantities = pytest.importorskip("quantities")
        spikes = draw(400, 3, 4, rate=0.1) | draw(400, 1, 1, rate=0.05, seed=1)
        layer = layer_of(spikes)
        whole = spikes.reshape(400, -1)[: 400 // bin * bin].reshape(-1, bin, 12).sum(axis=1)
        middles = np.arange(len(whole)) + 0.5  # not on the edge of two bins
        trains = [
            neo.SpikeTrain(np.repeat(middles, counts), t_stop=len(whole), units="ms")
            for counts in whole.T
        ]
        binned = conversion.BinnedSpikeTrain(trains, bin_size=quantities.Quantity(1, "ms"))
        found = correlations(layer, bin, pairs=1000)
        assert len(found.pairs) == 66  # all of them
        first, second = found.pairs.T
        matrix = correlation.correlation_coefficient(binned)
        assert np.allclose(found.values, matrix[first, second])
        # The variance of a mean is the mean of all covariances.
        covariances = correlation.covariance(binned)
        chi = math.sqrt(covariances.mean() / np.diag(covariances).mean())
        assert synchrony(layer, bin) == pytest.approx(chi)

    def test_pairs_are_drawn_from_a_seed_and_never_twice(self, layer_of):
        spikes = draw(60, 40)
        spikes[:, 5], spikes[:, 7] = False, True
        raster = layer_of(spikes)
        found, again = correlations(raster, pairs=300), correlations(raster, pairs=300)
        other = correlations(raster, pairs=300, seed=1)
        assert found.pairs.tolist() == again.pairs.tolist() != other.pairs.tolist()
        assert len({tuple(pair) for pair in found.pairs}) == 300
        assert (found.pairs[:, 0] < found.pairs[:, 1]).all()
        assert found.varying == 38
        assert not np.isin(found.pairs, [5, 7]).any()

    def test_laws(self, layer_of):
        same = layer_of(np.repeat(draw(200, 1), 9, axis=1))
        assert synchrony(same) == pytest.approx(1)
        assert correlations(same).values.tolist() == pytest.approx([1] * 36)
        alone = layer_of(draw(5000, 100))
        assert synchrony(alone) == pytest.approx(0.1, rel=0.1)  # one percent of deviation expected
        rates = alone.rates()
        assert np.allclose(fano_factor(alone), 1 - rates)

    def test_of_a_silent_layer_are_undefined(self, layer_of):
        silent = layer_of(np.zeros((20, 3), bool))
        assert np.isnan(fano_factor(silent)).all()
        assert math.isnan(synchrony(silent))
        assert correlations(silent).pairs.shape == (0, 2)

    def test_a_bin_longer_than_the_run_is_refused(self, layer_of):
        with pytest.raises(RasterError, match="20 recorded steps, no whole bin of 21"):
            fano_factor(layer_of(draw(20, 3)), bin=21)
