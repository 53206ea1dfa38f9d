"""Rules, sources and distortions that users bring: sound ones and broken ones."""

import pytest
import torch
from torch import nn

import srcsnn
from srcsnn.distortions import DISTORTIONS, GaussianNoise
from srcsnn.errors import ConfigError, ConformanceError
from srcsnn.models import paper_mnist
from srcsnn.plasticity import IncDec, Oja, PairSTDP
from srcsnn.rasters import HDF5Recorder
from srcsnn.replay import ClassMeans, MovingWindow, PoissonMean, RealImages, UniformNoise
from srcsnn.synapses import synapse_of
from srcsnn.testing import check_distortion, check_recorder, check_replay, check_rule
from srcsnn.training import initialize


class Traces:
    """A rule with a state: pre spikes of the last steps count, fading."""

    def init(self, synapse):
        return None

    def update(self, synapse, pre, post, state):
        state = pre if state is None else 0.5 * state + pre
        return 1e-3 * synapse.hits(state.clamp(max=1), post), state


@pytest.mark.parametrize(
    "rule",
    [IncDec(1e-3, 1e-4), IncDec(1e-3, 1e-4, gate=0.01), Oja(1e-3), PairSTDP(1e-3, 1e-3), Traces()],
)
def test_sound_rules_pass(rule):
    check_rule(rule)


class BrokenRule(Traces):
    def __init__(self, fault):
        self.fault, self.kept = fault, None

    def update(self, synapse, pre, post, state):
        change, state = super().update(synapse, pre, post, state)
        if self.fault == "keeps":
            self.kept = change if self.kept is None else self.kept + change.mean()
            change = change + self.kept.mean()
        if self.fault == "weights":
            synapse.weight.add_(change)
        if self.fault == "spikes":
            pre.zero_()
        if self.fault == "draws":
            change = change + torch.rand(())
        return {
            "shape": lambda: (change.sum(0), state),
            "number": lambda: (0.5, state),
            "bare": lambda: change,
            "nan": lambda: (change / 0 * 0, state),
        }.get(self.fault, lambda: (change, state))()


RULE_FAULTS = {
    "keeps": "keeps state on itself",
    "weights": "writes into the weights",
    "spikes": "writes into the spikes",
    "draws": "draws from torch's global generator",
    "shape": r"the change is \(6,\) for weights of shape \(4, 6\)",
    "number": "the change is float for weights",
    "bare": "must return a pair",
    "nan": "the change is not finite",
}


@pytest.mark.parametrize("fault", RULE_FAULTS)
def test_every_fault_of_a_rule_is_said_in_words(fault):
    with pytest.raises(ConformanceError, match=RULE_FAULTS[fault]):
        check_rule(BrokenRule(fault))


DIGITS = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda change, state: (change.sum((0, 1, 2)), state), r"has shape \(3,\), the weights"),
        (lambda change, state: (change / 0 * 0, state), "is NaN or infinite"),
        (lambda change, state: change, "must give a pair"),
        (lambda change, state: (0.5, state), "must give a pair"),
    ],
)
def test_a_sleep_names_the_layer_whose_change_is_none(give, message):
    class Odd(Traces):
        def update(self, synapse, pre, post, state):
            return give(*super().update(synapse, pre, post, state))

    with pytest.raises(ConformanceError, match=f"conv1: the rule.*{message}"):
        srcsnn.sleep(initialize(paper_mnist, 0), DIGITS, "paper-mnist", seed=0, rule=Odd())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"rule": Traces}, r"it is a class: give an object, Traces\(...\)"),
        ({"rule": [Traces(), 3]}, r"int is no learning rule yet:\n  it has no init"),
        ({"replay": lambda step, generator: torch.rand(1, 1, 28, 28)}, "must be 0 or 1"),
        (
            {"replay": lambda step, generator: torch.zeros(1, 2, 28, 28)},
            r"of shape \(1, 2, 28, 28\)",
        ),
        ({"replay": lambda step, generator: 0.5}, "gives a float, not a tensor"),
        ({"replay": lambda step, generator: torch.zeros(1, 1, 28, 28).double()}, "float64 on cpu"),
    ],
)
def test_a_sleep_refuses_what_is_no_rule_and_no_source(parts, message):
    with pytest.raises(ConformanceError, match=message):
        srcsnn.sleep(initialize(paper_mnist, 0), DIGITS, "paper-mnist", seed=0, **parts)


PICTURES = torch.rand(30, 2, 6, 5, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(30) % 3
RATE = {"max_rate_hz": 800.0, "dt_s": 0.001}
SOURCES = {
    "mean": lambda: PoissonMean(PICTURES.mean(0), **RATE),
    "images": lambda: RealImages(PICTURES, every=3, **RATE),
    "classes": lambda: ClassMeans(PICTURES, LABELS, every=3, **RATE),
    "window": lambda: MovingWindow(PICTURES.mean(0), size=3, **RATE),
    "uniform": lambda: UniformNoise((2, 6, 5), rate_hz=300.0, dt_s=0.001),
    "uniform in float64": lambda: UniformNoise(
        (2, 6, 5), rate_hz=300.0, dt_s=0.001, dtype=torch.float64
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_sound_sources_pass(name):
    check_replay(SOURCES[name]())


def rates(replay, steps=4000):
    generator = torch.Generator().manual_seed(0)
    return sum(replay(step, generator) for step in range(steps))[0] / steps


def test_real_images_and_class_means_fire_on_average_like_the_mean_image():
    expected = 0.8 * PICTURES.mean(0)
    for name in ("mean", "images", "classes"):
        torch.testing.assert_close(rates(SOURCES[name]()), expected, atol=0.04, rtol=0)
    torch.testing.assert_close(rates(SOURCES["uniform"]()), torch.full((2, 6, 5), 0.3), atol=0.04,
                               rtol=0)  # fmt: skip


def test_an_image_stays_for_its_steps_and_a_class_shows_its_mean():
    dots = torch.eye(9).view(9, 1, 3, 3)
    generator = torch.Generator().manual_seed(0)
    shown = RealImages(dots, every=4, max_rate_hz=1000.0, dt_s=0.001)
    night = torch.stack([shown(step, generator) for step in range(160)]).flatten(1)
    blocks = night.view(40, 4, 9)
    late = RealImages(dots, every=4, max_rate_hz=1000.0, dt_s=0.001)
    assert float(late(3, generator).sum()) == 1  # a night that begins in the middle
    assert (blocks == blocks[:, :1]).all()  # probability 1: the dot itself
    assert len(blocks[:, 0].unique(dim=0)) > 7
    means = ClassMeans(dots, torch.tensor([0] * 3 + [1] * 6), every=1, **RATE).probability
    torch.testing.assert_close(means[0].flatten()[:3], torch.full((3,), 0.8 / 3))


def test_a_window_silences_what_is_outside_of_it():
    generator = torch.Generator().manual_seed(0)
    window = MovingWindow(torch.ones(1, 9, 8), size=3, max_rate_hz=1000.0, dt_s=0.001)
    night = torch.stack([window(step, generator) for step in range(300)])
    assert (night.flatten(1).sum(1) == 9).all()
    corners = night[:, 0, 0].amax(2).argmax(1)
    assert set(corners.tolist()) == set(range(7))  # every place, the last one too


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MovingWindow(torch.ones(1, 9, 8), size=9, **RATE), "1 to 8 pixels wide"),
        (lambda: RealImages(PICTURES, every=0, **RATE), "every=0: must be 1 or more"),
        (lambda: UniformNoise((1, 2, 2), rate_hz=2000.0, dt_s=0.001), "probability"),
        (lambda: Oja(-1.0), "rate=-1.0: must be 0 or more"),
        (lambda: PairSTDP(1.0, -1.0), "minus=-1.0: must be 0 or more"),
        (lambda: PairSTDP(1.0, 1.0, pre_decay=1.0), "pre_decay=1.0: must be at least 0 and below"),
    ],
)
def test_impossible_numbers_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_oja_rests_where_weights_are_the_share_of_post_spikes_with_a_pre_spike():
    layer = nn.Linear(3, 1)
    layer.weight.data.fill_(0.9)
    synapse, rule = synapse_of(layer), Oja(0.01)
    share = torch.tensor([0.2, 0.5, 0.8])
    generator = torch.Generator().manual_seed(0)
    for _ in range(3000):
        pre = (torch.rand(1, 3, generator=generator) < share).float()
        change, _ = rule.update(synapse, pre, torch.ones(1, 1), None)
        layer.weight.data.add_(change)
    torch.testing.assert_close(layer.weight.data[0], share, atol=0.1, rtol=0)


def test_stdp_follows_the_window_of_pairs():
    # One pre spike at step 10, one post spike at 10 + lag: what all pairs of traces come to.
    layer = nn.Linear(1, 1)
    rule = PairSTDP(plus=0.3, minus=0.2, pre_decay=0.9, post_decay=0.8)
    for lag in (-4, -1, 0, 1, 5):
        state, total = rule.init(synapse_of(layer)), torch.zeros(1, 1)
        for step in range(20):
            pre, post = (
                torch.tensor([[float(step == 10)]]),
                torch.tensor([[float(step == 10 + lag)]]),
            )
            change, state = rule.update(synapse_of(layer), pre, post, state)
            total += change
        expected = 0.3 * 0.9**lag if lag >= 0 else -0.2 * 0.8**-lag
        assert float(total) == pytest.approx(expected, rel=1e-5)


REPLAY_FAULTS = {
    "must be 0 or 1": lambda step, g: torch.rand(1, 1, 4, 4, generator=g),
    "draw from the generator": lambda step, g: (torch.rand(1, 1, 4, 4) < 0.5).float(),
    "draws from torch's global generator": lambda step, g: torch.rand(1, 1, 4, 4).round(),
    "need floating point": lambda step, g: torch.rand(1, 1, 4, 4, generator=g) < 0.5,
    r"\(B, C, ...\) is needed": lambda step, g: torch.ones(4, 4),
    "shape changes": lambda step, g: torch.ones(1, 1, 4, 4 + step % 2),
    "fails with ZeroDivisionError": lambda step, g: 1 / step,
}


@pytest.mark.parametrize("fault", REPLAY_FAULTS)
def test_every_fault_of_a_source_is_said_in_words(fault):
    with pytest.raises(ConformanceError, match=fault):
        check_replay(REPLAY_FAULTS[fault])


@pytest.mark.parametrize("name", DISTORTIONS)
def test_our_own_distortions_pass(name):
    check_distortion(DISTORTIONS[name])


def broken(body, **attributes):
    return type("Mine", (GaussianNoise,), {"__call__": body, **attributes})()


DISTORTION_FAULTS = {
    "not in 0..1": broken(lambda self, x, level, noise: x + level),
    "writes into the images": broken(lambda self, x, level, noise: x.mul_(level)),
    "otherwise than in a batch": broken(lambda self, x, level, noise: x * x.mean()),
    "global generator": broken(lambda self, x, level, noise: torch.rand_like(x)),
    "level 0.1: images": broken(lambda self, x, level, noise: x[:, :1]),
    "it is a class": GaussianNoise,
    "levels are no tuple of floats": GaussianNoise(levels=(1, 2)),
}


@pytest.mark.parametrize("fault", DISTORTION_FAULTS)
def test_every_fault_of_a_distortion_is_said_in_words(fault):
    with pytest.raises(ConformanceError, match=fault):
        check_distortion(DISTORTION_FAULTS[fault])


class Totals:
    """Spikes of each layer so far, and what the layers are called."""

    def begin(self, layout):
        self.totals = {layer.name: 0.0 for layer in layout.layers}

    def record(self, layer, spikes):
        self.totals[layer] += float(spikes.sum())


class Blanking(Totals):
    def record(self, layer, spikes):
        spikes.zero_()


class Answering(Totals):
    def record(self, layer, spikes):
        return layer


class Noisy(Totals):
    def record(self, layer, spikes):
        torch.rand(1)


@pytest.mark.parametrize(
    ("recorder", "message"),
    [
        (Totals, "it is a class: give an object"),
        (object(), r"it has no begin\(...\)\n.*it has no record\(...\)"),
        (Blanking(), "conv: it writes to the spikes that it is shown"),
        (Answering(), "returns something"),
        (Noisy(), "draws from torch's global generator"),
    ],
)
def test_a_bad_recorder_is_told_what_is_wrong(recorder, message):
    with pytest.raises(ConformanceError, match=message):
        check_recorder(recorder)


def test_a_recorder_of_ones_own_sees_the_night(tmp_path):
    check_recorder(Totals())
    with HDF5Recorder(tmp_path / "check.h5") as file:
        check_recorder(file)
    own, path = Totals(), tmp_path / "night.h5"
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    config = srcsnn.load_config("paper-mnist").with_changes(steps=10, neuron="lif")
    srcsnn.sleep(paper_mnist(), images, config, seed=0, raster=path, recorder=own)
    with srcsnn.open_raster(path) as raster:
        recorded = {name: float(raster[name].spikes().sum()) for name in own.totals}
    assert own.totals == recorded
    assert own.totals["input"] > 0


def test_a_recorder_neither_changes_the_night_nor_passes_for_its_replay():
    class Wiping(Totals):
        def record(self, layer, spikes):
            super().record(layer, spikes)
            spikes.zero_()

    class Full(Totals):
        def record(self, layer, spikes):
            if layer != "input":
                raise RuntimeError("disk full")

    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    config = srcsnn.load_config("paper-mnist").with_changes(steps=10, neuron="lif")
    network = paper_mnist()
    alone = srcsnn.sleep(network, images, config, seed=0).report
    seen = srcsnn.sleep(network, images, config, seed=0, recorder=Wiping()).report
    assert [layer.rate for layer in seen.layers] == [layer.rate for layer in alone.layers]
    with pytest.raises(RuntimeError, match=r"^disk full"):
        srcsnn.sleep(network, images, config, seed=0, recorder=Full())
