"""Neuron models that users bring: snnTorch's, the how-to's, and broken ones."""

import importlib.util
import sys
from pathlib import Path

import pytest
import snntorch
import torch

import srcsnn
from srcsnn.config import load_settings
from srcsnn.errors import ConfigError, ConformanceError, DatasetError
from srcsnn.models import paper_mnist
from srcsnn.neurons import LIF, Leaky, SnnTorch
from srcsnn.rasters import open_raster
from srcsnn.testing import check_neuron
from srcsnn.training import initialize

HOW_TO = Path(__file__).parents[1] / "docs" / "how-to" / "neurons"
STEPWISE = {
    "Leaky": {}, "Lapicque": {}, "Synaptic": {"alpha": 0.5}, "Alpha": {"alpha": 0.95},
    "RLeaky": {"all_to_all": False}, "RSynaptic": {"alpha": 0.5, "all_to_all": False},
    "DeltaLeaky": {"delta_threshold": 0.4},
}  # fmt: skip


def build(name, **options):
    torch.manual_seed(0)  # for those that draw weights of their own
    return getattr(snntorch, name)(beta=0.9, threshold=1.0, **STEPWISE[name], **options)


def currents(steps=60):
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(steps, 1, 3, 4, generator=generator)


def train(neuron, given):
    state, found = neuron.init_state(given[0]), []
    for current in given:
        spikes, state = neuron(current, state)
        found.append(spikes)
    return torch.stack(found)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("name", STEPWISE)
@torch.no_grad()
def test_the_adapter_spikes_as_snntorch_does_when_it_keeps_the_state_itself(name, reset):
    options = {} if name == "DeltaLeaky" else {"reset_mechanism": reset}
    hidden = build(name, init_hidden=True, **options)
    given = [hidden(current) for current in currents()]
    # DeltaLeaky gives a pair whatever one asks for.
    expected = torch.stack([each[0] if isinstance(each, tuple) else each for each in given])
    found = train(SnnTorch(build(name, **options)), currents())
    assert torch.equal(found, expected)
    assert 0 < found.mean() < 1
    check_neuron(SnnTorch(build(name, **options)))


@pytest.mark.parametrize("name", STEPWISE)
def test_only_leaky_keeps_the_input_of_the_step_after_a_spike(name):
    # The table of the how-to: constant input above the threshold, reset to zero.
    if name in ("DeltaLeaky", "Alpha"):
        pytest.skip("has no reset" if name == "DeltaLeaky" else "its input arrives over many steps")
    neuron = SnnTorch(build(name, reset_mechanism="zero"))
    if name.startswith("R"):  # without what it feeds back to itself
        neuron._neuron.recurrent.V.data.zero_()
    given = torch.full((4, 1, 2), 40.0 if name == "Lapicque" else 1.5)
    fired = train(neuron, given)[:, 0, 0].tolist()
    assert fired == ([1, 1, 1, 1] if name == "Leaky" else [1, 0, 1, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: snntorch.SLSTM(3, 4), "SLSTM: is a whole layer"),
        (lambda: snntorch.SConv2dLSTM(1, 2, 3), "SConv2dLSTM: is a whole layer"),
        (lambda: snntorch.LeakyParallel(3, 4), "LeakyParallel: takes whole sequences"),
        (lambda: snntorch.StateLeaky(beta=0.5, channels=2), "StateLeaky: takes whole sequences"),
        (lambda: snntorch.LinearLeaky(beta=0.5, in_features=2, out_features=2),
         "LinearLeaky: takes whole sequences"),
        (lambda: snntorch.AssociativeLeaky(2, 2, 2, 4), "AssociativeLeaky: takes whole sequences"),
        (lambda: snntorch.Leaky(beta=0.5, init_hidden=True), "Leaky: build it with init_hidden"),
    ],
)  # fmt: skip
def test_what_is_no_stepwise_neuron_is_refused_with_the_reason(make, message):
    with pytest.raises(ConfigError, match=message):
        SnnTorch(make())


@pytest.mark.parametrize("neuron", [Leaky(1.0, 0.9), LIF(1.0, 0.9), LIF(1e4, 0.5)])
def test_our_own_models_pass(neuron):
    check_neuron(neuron)


class Broken(LIF):
    """A LIF with one fault."""

    def __init__(self, fault):
        super().__init__(1.0, 0.9)
        self.fault, self.kept = fault, 0.0

    def __call__(self, current, state):
        if self.fault == "writes":
            current.mul_(2)
        if self.fault == "keeps":
            current = current + self.kept
        if self.fault == "draws":
            current = current + torch.rand_like(current)
        spikes, state = super().__call__(current, state)
        self.kept += float(spikes.sum())
        return {
            "value": lambda: (2 * spikes, state),
            "shape": lambda: (spikes[:, :1], state),
            "dtype": lambda: (spikes.float() if current.dtype.itemsize > 4 else spikes, state),
            "bare": lambda: spikes,
            "nan": lambda: (spikes * torch.nan, state),
            "silent": lambda: (torch.zeros_like(spikes), state),
            "fails": lambda: spikes.no_such_thing,
        }.get(self.fault, lambda: (spikes, state))()


FAULTS = {
    "writes": "writes into its current",
    "keeps": "keeps state on itself",
    "draws": "draws from torch's global generator",
    "value": "must be 0 or 1; there is 2",
    "shape": r"spikes have shape \(1, 1, 4, 5\)",
    "dtype": "torch.float32 for current of torch.float64",
    "bare": "must return a pair",
    "nan": "spikes are NaN",
    "silent": "it never fires",
    "fails": "it fails with AttributeError",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_said_in_words(fault):
    with pytest.raises(ConformanceError, match=FAULTS[fault]):
        check_neuron(Broken(fault))


def test_what_is_no_object_with_the_two_methods_is_said():
    with pytest.raises(ConformanceError, match=r"it is a class: give an object, LIF\("):
        check_neuron(LIF)
    with pytest.raises(ConformanceError, match="has no init_state"):
        check_neuron(len)


def test_a_sleep_names_the_layer_whose_neuron_is_broken():
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ConformanceError, match=r"^conv2: Broken .*\n.*must be 0 or 1"):
        srcsnn.sleep(
            initialize(paper_mnist, 0), images, "paper-mnist", seed=0,
            neuron=[LIF(1.0, 0.9), Broken("value")],
        )  # fmt: skip


@pytest.fixture(scope="module")
def mnist():
    try:
        return srcsnn.load_images("mnist", "test").images[:500]
    except DatasetError as missing:
        pytest.skip(str(missing))


def how_to(name):
    spec = importlib.util.spec_from_file_location(name, HOW_TO / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["adaptive", "izhikevich"])
def test_the_neurons_of_the_how_to_are_short_and_sound(name):
    assert len((HOW_TO / f"{name}.py").read_text().splitlines()) < 40
    check_neuron(getattr(how_to(name), name.capitalize())(1.0, 0.99))


def test_the_izhikevich_neuron_fires_as_published():
    # Regular spiking at a constant drive of 10: an interval that grows, then stays, near 60 ms.
    neuron = how_to("izhikevich").Izhikevich(threshold=1.0, decay=0.0)
    times = train(neuron, torch.ones(1000, 1, 1)).flatten().nonzero().flatten()
    intervals = times.diff()
    assert intervals[0] < intervals[3]
    assert 30 < float(intervals[-3:].float().mean()) < 100


@pytest.mark.parametrize("name", ["adaptive", "izhikevich"])
def test_mnist_sleeps_with_the_neurons_of_the_how_to(name, mnist, tmp_path):
    model = initialize(paper_mnist, 0)
    make = getattr(how_to(name), name.capitalize())
    night = srcsnn.sleep(
        model, mnist, "paper-mnist", seed=0, raster=tmp_path / "night.h5",
        neuron=[make(4.15, 0.99), make(9.47, 0.99)],  # the published thresholds
    )  # fmt: skip
    for layer in night.report.layers:
        assert 0 < layer.rate < 0.5
        assert layer.change > 0
    with open_raster(tmp_path / "night.h5") as raster:
        assert raster["conv2"].neuron_counts().sum() > 0


def test_an_installed_package_offers_a_neuron_by_name(tmp_path, monkeypatch):
    package = tmp_path / "their_neurons-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: their-neurons\nVersion: 1.0\n")
    offers = "quick = their_neurons:Quick\nbare = their_neurons\n"
    (package / "entry_points.txt").write_text(f"[srcsnn.neurons]\n{offers}")
    (tmp_path / "their_neurons.py").write_text(
        "from srcsnn import LIF\nclass Quick(LIF):\n    '''Theirs.'''\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "their_neurons", None)
    monkeypatch.delitem(sys.modules, "their_neurons")
    model, images = initialize(paper_mnist, 0), torch.rand(4, 1, 28, 28)
    config = srcsnn.load_config("paper-mnist")
    snn = srcsnn.prepare(model, images, config.with_changes(neuron="quick"))
    assert {type(layer.neurons.neuron).__name__ for layer in snn.layers} == {"Quick"}
    with pytest.raises(ConfigError, match=r"did you mean 'quick'\?.*leaky, lif, quick"):
        srcsnn.prepare(model, images, config.with_changes(neuron="quikc"))
    with pytest.raises(ConfigError, match="offers 'their_neurons' by that name, a module; right"):
        srcsnn.prepare(model, images, config.with_changes(neuron="bare"))


def no_neuron():
    """Takes no threshold."""


class NoPair:
    """A neuron that forgets its state."""

    def __init__(self, threshold, decay):
        self.threshold = threshold

    def init_state(self, current):
        return torch.zeros_like(current)

    def __call__(self, current, state):
        return (current > self.threshold).to(current)


@pytest.mark.parametrize("settings", ["auto", "paper-mnist"])
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("no_neuron", ConfigError, "calling it with a threshold and a decay failed with TypeError"),
        ("NoPair", ConformanceError, "^conv1: "),
    ],
)
def test_a_bad_neuron_by_name_is_refused_before_it_is_used(settings, name, error, message):
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    config = load_settings(settings).with_changes(neuron=f"{__name__}:{name}")
    with pytest.raises(error, match=message):
        srcsnn.sleep(initialize(paper_mnist, 0), images, config, seed=0)
