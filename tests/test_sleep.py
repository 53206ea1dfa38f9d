import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import srcsnn
from converters import spiking_layers
from srcsnn.cli.settings import parse_changes
from srcsnn.config import SleepConfig, load_config
from srcsnn.errors import ConfigError, ConversionError, DatasetError, RasterError, SleepError
from srcsnn.models import paper_mnist
from srcsnn.plasticity import IncDec
from srcsnn.rasters import RecordPolicy, open_raster
from srcsnn.replay import PoissonMean
from srcsnn.seeding import key, stream
from srcsnn.training import PROTOCOLS, Protocol, initialize, train

CONFIG = SleepConfig(
    steps=30, coefficient=8.0, thresholds=(0.5, 0.5), decay=0.9, inc=1e-3, dec=5e-4,
    max_rate_hz=500.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return initialize(paper_mnist, 0)


@pytest.fixture(scope="module")
def images():
    return torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def weights(model):
    return [weight.detach().clone() for weight in model.parameters()]


def same(one, other):
    return all(map(torch.equal, weights(one), weights(other)))


def test_same_seed_same_bits_with_either_neuron_with_and_without_a_raster(model, images, tmp_path):
    first = srcsnn.sleep(model, images, CONFIG, seed=1).model
    fast = CONFIG.with_changes(neuron="lif")
    recorded = srcsnn.sleep(model, images, fast, seed=1, raster=tmp_path / "run.h5").model
    other = srcsnn.sleep(model, images, CONFIG, seed=2).model
    assert same(first, recorded)
    assert not same(first, other)
    assert not same(first, model)


def test_only_convolutions_sleep_and_the_model_given_stays_as_it_was(model, images):
    before = weights(model)
    slept = srcsnn.sleep(model, images, CONFIG, seed=0).model
    assert all(map(torch.equal, before, weights(model)))
    assert torch.equal(slept.fc1.weight, model.fc1.weight)
    assert not torch.equal(slept.conv2.weight, model.conv2.weight)


def test_the_report_says_what_the_raster_holds(model, images, tmp_path):
    night = srcsnn.sleep(model, images, CONFIG, seed=0, raster=tmp_path / "run.h5")
    with open_raster(tmp_path / "run.h5") as raster:
        assert list(raster.layers) == ["input", "conv1", "conv2"]
        for layer in night.report.layers:
            spikes = raster[layer.name].spikes()
            assert spikes.shape[0] == 30
            assert layer.rate == pytest.approx(spikes.mean(), rel=1e-5)
            assert layer.silent == pytest.approx((spikes.sum(0) == 0).mean())
            assert layer.saturated == pytest.approx((spikes.mean(0) > 0.5).mean())
    before, after = model.conv1.weight.detach(), night.model.conv1.weight.detach()
    expected = float((after - before).norm() / before.norm())
    assert night.report.layers[0].change == pytest.approx(expected, rel=1e-5)


def test_the_report_does_not_depend_on_what_is_recorded(model, images, tmp_path):
    def layers(**options):
        return srcsnn.sleep(model, images, CONFIG, seed=0, **options).report.layers

    raster = {"raster": tmp_path / "run.h5", "overwrite": True}
    alone = layers()
    assert alone[0].rate > 0
    assert layers(**raster) == alone  # counted by the recorder
    assert layers(**raster, record=RecordPolicy(counts_only=True)) == alone
    for record in (RecordPolicy(layers=("conv1",)), RecordPolicy(every=7)):
        assert layers(**raster, record=record) == alone  # counted beside it


def test_a_residual_network_sleeps_with_a_threshold_for_each_layer_of_neurons(tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10)
    pictures = torch.rand(4, 3, 32, 32)
    layers = spiking_layers(model)
    config = CONFIG.with_changes(thresholds=(0.5,) * len(layers), neuron="lif")
    night = srcsnn.sleep(model, pictures, config, seed=0, raster=tmp_path / "run.h5")
    with open_raster(tmp_path / "run.h5") as raster:
        assert raster.layers == ("input", *layers)
        counts = {name: raster[name].neuron_counts().sum() for name in layers}
    found = {layer.name: layer for layer in night.report.layers}
    assert len(found) == 20
    projection, block = found["layer2.0.downsample.0"], found["layer2.0.conv2"]
    assert (projection.neurons, projection.rate) == (block.neurons, block.rate)
    assert projection.change > 0
    assert projection.change != block.change
    assert block.rate * block.neurons * config.steps == pytest.approx(counts[block.name])
    assert sorted(night.model.state_dict()) == sorted(model.state_dict())


def test_a_silent_layer_is_warned_of(model, images):
    config = CONFIG.with_changes(thresholds=[0.5, 1e6])
    report = srcsnn.sleep(model, images, config, seed=0).report
    assert report.warnings[-1].startswith("conv2: no neuron fired")


def test_an_interrupted_sleep_leaves_a_readable_raster(model, images, tmp_path):
    def interrupt(done, total):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        srcsnn.sleep(model, images, CONFIG, seed=0, raster=tmp_path / "run.h5", progress=interrupt)
    assert "run.h5 holds the spikes of 12 of 30 steps" in caught.value.__notes__[0]
    with open_raster(tmp_path / "run.h5") as raster:
        assert not raster.complete
        assert raster.steps_valid == 12


def test_a_raster_in_a_folder_that_is_not_there_is_refused_before_sleep(model, images, tmp_path):
    steps = []
    with pytest.raises(RasterError, match="nowhere"):
        srcsnn.sleep(
            model, images, CONFIG, seed=0, raster=tmp_path / "nowhere" / "run.h5",
            progress=lambda done, total: steps.append(done),
        )  # fmt: skip
    assert not steps


def test_poisson_rates_are_the_probabilities():
    image = torch.linspace(0, 1, 16).view(1, 4, 4)
    replay = PoissonMean(image, max_rate_hz=400.0, dt_s=0.001, rate_factor=2.0)
    generator = stream(0, "test")
    steps = 5000
    rates = sum(replay(step, generator) for step in range(steps))[0] / steps
    probability = 0.8 * image
    sigma = (probability * (1 - probability) / steps).sqrt()
    assert ((rates - probability).abs() <= 5 * sigma + 1e-7).all()


def test_the_same_seed_gives_the_same_spikes_in_every_dtype():
    image = torch.rand(1, 5, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    trains = []
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        replay = PoissonMean(image.to(dtype), max_rate_hz=500.0, dt_s=0.001)
        spikes = replay(0, stream(3, "sleep"))
        assert spikes.dtype == dtype
        trains.append(spikes.float())
    assert torch.equal(trains[0], trains[1])
    assert torch.equal(trains[0], trains[2])


def test_a_probability_above_one_is_refused(model, images):
    with pytest.raises(ConfigError, match=r"must lie in \[0, 1\]; lower max_rate_hz"):
        srcsnn.sleep(model, images, CONFIG.with_changes(max_rate_hz=1e5), seed=0)


def test_a_seed_of_another_type_is_the_same_seed():
    assert key(3, "sleep") == key(np.int8(3), "sleep") == key(torch.tensor(3), "sleep")


@pytest.mark.parametrize("seed", [None, 1.5, "a", True, torch.tensor(3.5)])
def test_a_seed_that_is_no_whole_number_is_refused(model, images, seed):
    with pytest.raises(ConfigError, match="must be a whole number"):
        srcsnn.sleep(model, images, CONFIG, seed=seed)


class NamedLikeTheImages(nn.Module):
    def __init__(self):
        super().__init__()
        self.input, self.b = nn.Conv2d(1, 2, 3), nn.Linear(2, 10)

    def forward(self, x):
        return self.b(self.input(x).relu().mean((2, 3)))


def test_a_layer_called_input_sleeps_unless_it_is_recorded(images, tmp_path):
    settings = CONFIG.with_changes(thresholds=[0.5])
    slept = srcsnn.sleep(NamedLikeTheImages(), images, settings, seed=0)
    assert slept.report.layers[0].rate > 0
    with pytest.raises(RasterError, match="a layer called input, which is what the images are"):
        srcsnn.sleep(NamedLikeTheImages(), images, seed=0, raster=tmp_path / "run.h5")


@pytest.mark.parametrize(
    ("raster", "record", "error"),
    [("no/run.h5", RecordPolicy(), RasterError), ("a.h5", RecordPolicy(("nope",)), ConfigError)],
)
def test_what_cannot_be_recorded_is_refused_before_settings_are_found(
    model, images, tmp_path, monkeypatch, raster, record, error
):
    monkeypatch.setattr("srcsnn.consolidation.settle", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(error):
        srcsnn.sleep(model, images, seed=0, raster=tmp_path / raster, record=record)


@pytest.mark.parametrize(
    ("conv", "shape"), [(nn.Conv1d, (2, 9)), (nn.Conv3d, (2, 5, 6, 7))], ids=["line", "volume"]
)
def test_lines_and_volumes_sleep_and_are_recorded(conv, shape, tmp_path):
    torch.manual_seed(0)
    layers = conv(2, 3, 3), nn.ReLU(), conv(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)
    network, images = nn.Sequential(*layers).eval(), torch.rand(10, *shape)
    network(images)
    slept = srcsnn.sleep(network, images, seed=0, raster=tmp_path / "run.h5")
    assert all(layer.change > 0 for layer in slept.report.layers)
    with open_raster(tmp_path / "run.h5") as raster:
        assert raster["input"].shape == shape
        assert raster["2"].neuron_counts().sum() > 0
    with pytest.raises(DatasetError, match=r"\(N, C, L\) or \(N, C, D, H, W\)"):
        srcsnn.sleep(network, images[:, :, :, None, None, None], seed=0)


def test_weights_without_values_are_refused(images):
    for layer in (nn.LazyConv2d(2, 3), nn.Conv2d(1, 2, 3, device="meta")):
        with pytest.raises(SleepError, match=r"weights without values: 0\.weight"):
            srcsnn.sleep(nn.Sequential(layer, nn.ReLU()), images, CONFIG, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"treshold": [1.0]}, r"unknown setting 'treshold' \(did you mean 'thresholds'\?\)"),
        ({"inc": -1.0}, "inc = -1.0: right would be a number, 0 or more"),
        ({"decay": 1.5}, "decay = 1.5"),
        ({"steps": 0}, "steps = 0"),
        ({"percentile": 99.0}, "percentile is used with"),
        ({"thresholds": []}, "thresholds"),
        ({"thresholds": 4.15}, "thresholds = 4.15: Input should be a list"),
        ({"thresholds": [-1]}, r"thresholds.0 = -1: Input should be greater than 0$"),
        ({"inc": [True, 0.1]}, "inc = true: no setting is true or false$"),
        ({"steps": 10**20}, "steps = 100000000000000000000: Input should be less than"),
        ({"gate": "on"}, "gate = 'on': right would be \"off\", or a number above 0$"),
        ({"gate": 0.0}, "gate = 0.0"),
        ({"gate": True}, "gate = true: no setting is true or false$"),
        ({"layers": "al"}, 'layers = \'al\': right would be "conv", "all", or a list of names$'),
    ],
)
def test_a_bad_setting_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        CONFIG.with_changes(**changes)


def test_the_number_of_thresholds_is_checked_against_the_layers(model, images):
    with pytest.raises(ConfigError, match=r"1 given for 2 spiking layers \(conv1, conv2\)"):
        srcsnn.sleep(model, images, CONFIG.with_changes(thresholds=[1.0]), seed=0)


def test_configurations_are_read_from_toml_and_unknown_names_get_a_hint(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('steps = 3\ncoefficient = 1.0\nthresholds = [1, 2]\ndecay = 0.5\ninc = 0.1\n'
                    'dec = 0.1\nmax_rate_hz = 10\nlayers = ["conv1"]\n')  # fmt: skip
    assert load_config(path).layers == ("conv1",)
    path.write_text("steps = ")
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        load_config(path)
    with pytest.raises(ConfigError, match="did you mean 'paper-mnist'"):
        load_config("paper-mnits")
    with pytest.raises(ConfigError, match="name=value"):
        parse_changes(["steps"])


def test_the_named_configurations_are_table_2_of_the_paper():
    mnist, cifar = load_config("paper-mnist"), load_config("paper-cifar10")
    assert (mnist.steps, mnist.coefficient, mnist.thresholds) == (222, 2.78, (4.15, 9.47))
    assert (mnist.decay, mnist.inc, mnist.dec) == (0.99, 3.87e-4, 3.13e-4)
    assert (mnist.dt_s, mnist.max_rate_hz) == (0.001, 328.89)
    for name in ("paper-mnist", "paper-cifar10"):
        printed = load_config(f"{name}-as-printed")
        assert printed == load_config(name).with_changes(gate="off", rate_factor=1.0)
    printed = load_config("paper-mnist-as-printed")
    assert mnist.make_rules(["a", "b"]) == (IncDec(3.87e-4, 3.13e-4, gate=0.001),) * 2
    assert printed.make_rules(["a"]) == (IncDec(3.87e-4, 3.13e-4),)
    assert (cifar.steps, cifar.coefficient, cifar.thresholds) == (10, 46.81, (7.0, 23.96))
    assert (cifar.decay, cifar.inc, cifar.dec) == (0.94, 6.52e-4, 1.98e-4)
    assert (cifar.dt_s, cifar.max_rate_hz) == (0.001, 64.62)


@pytest.mark.parametrize("bad", [torch.rand(0, 1, 28, 28), torch.rand(2, 1, 28, 28) * 255])
def test_bad_images_are_refused(model, bad):
    with pytest.raises(DatasetError):
        srcsnn.sleep(model, bad, CONFIG, seed=0)


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 14, 14)])
def test_images_that_do_not_fit_the_network_are_refused(model, shape):
    # The small ones would do for the convolutions, which are all that sleeps.
    with pytest.raises(DatasetError, match="the network cannot take images of"):
        srcsnn.sleep(model, torch.rand(3, *shape), CONFIG, seed=0)


def test_a_network_without_weights_is_refused_in_words(images):
    with pytest.raises(ConversionError, match="no convolution that could sleep"):
        srcsnn.sleep(torch.nn.ReLU(), images, CONFIG, seed=0)


def test_a_network_of_linear_layers_sleeps_when_asked_to(images):
    model = initialize(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 4)), 0
    )
    with pytest.raises(ConversionError, match="linear layers sleep with layers=all: 1, 3"):
        srcsnn.sleep(model, images, seed=0)
    auto = srcsnn.AutoConfig(layers="all", keep=0, steps=20)
    slept = srcsnn.sleep(model, images, auto, seed=0)
    assert [layer.name for layer in slept.report.layers] == ["1", "3"]
    assert all(layer.change > 0.1 for layer in slept.report.layers)


def test_a_network_with_nan_where_nothing_spikes_is_refused(images):
    broken = initialize(paper_mnist, 0)
    broken.fc2.weight.data[0, 0] = torch.nan
    with pytest.raises(SleepError, match=r"before sleep: fc2\.weight$"):
        srcsnn.sleep(broken, images, CONFIG, seed=0)


def test_training_on_labels_or_images_that_do_not_fit_is_refused(images):
    protocol = Protocol(epochs=1, learning_rate=0.1, batch_size=5)
    with pytest.raises(DatasetError, match="labels from 10 to 10, but the network has 10 classes"):
        train(paper_mnist(), images, torch.full((20,), 10), protocol, seed=0)
    with pytest.raises(DatasetError, match="labels from -1 to -1, but"):
        train(paper_mnist(), images, torch.full((20,), -1), protocol, seed=0)
    for many in (19, 21):
        with pytest.raises(DatasetError, match=rf"\({many},\) labels for 20 images"):
            train(paper_mnist(), images, torch.zeros(many).long(), protocol, seed=0)
    with pytest.raises(DatasetError, match="1x14x14"):
        train(paper_mnist(), images[..., :14, :14], torch.zeros(20).long(), protocol, seed=0)


def test_settings_noted_beside_a_result_are_settings_again():
    assert load_config(CONFIG.model_dump()) == CONFIG


def test_settings_as_a_dict_are_checked_like_those_of_a_file():
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        load_config({**CONFIG.model_dump(), "stepz": 4})


def test_training_is_repeatable_and_leaves_the_global_generator_alone(images):
    labels = torch.arange(20) % 10
    state = torch.get_rng_state()

    def trained(seed):
        model = initialize(paper_mnist, seed)
        losses = []
        protocol = Protocol(epochs=3, learning_rate=0.1, batch_size=5)
        train(model, images, labels, protocol, seed=seed, progress=lambda e, x: losses.append(x))
        return model, losses

    (one, losses), (again, _), (other, _) = trained(0), trained(0), trained(1)
    assert same(one, again)
    assert not same(one, other)
    assert losses[-1] < losses[0]
    assert torch.equal(state, torch.get_rng_state())
    assert PROTOCOLS["paper-mnist"] == Protocol(50, 0.01, 64)
    assert PROTOCOLS["paper-cifar10"] == Protocol(50, 0.3, 100)


def in_a_new_process(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [float(word) for word in done.stdout.split()]


def test_peak_memory_does_not_grow_with_the_number_of_steps(tmp_path):
    code = """
import resource, sys, torch, srcsnn
from srcsnn.models import paper_mnist
images = torch.rand(50, 1, 28, 28)
config = srcsnn.load_config("paper-mnist").model_copy(update={"neuron": "lif"})
def peak(steps):
    srcsnn.sleep(paper_mnist(), images, config.model_copy(update={"steps": steps}), seed=0,
                 raster=sys.argv[1], overwrite=True)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak(600), peak(6000))
"""
    short, long = in_a_new_process(code, tmp_path / "run.h5")
    # In KiB. Each step has 9,964 spikes: the 5,400 more would take 50 MiB as bytes.
    assert long - short < 5 * 1024


def test_importing_everything_is_quick(monkeypatch):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # as it is where it is installed
    code = """
import time, torch, snntorch
started = time.process_time()
from srcsnn import *
print(time.process_time() - started)
"""
    assert any(in_a_new_process(code)[0] < 0.3 for _ in range(5))  # a machine has busy moments


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_leaves_the_usual_layout_and_eval_mode_even_when_interrupted(images, precision):
    labels = torch.arange(20) % 10
    protocol = Protocol(epochs=2, learning_rate=0.1, batch_size=5)
    done, broken = initialize(paper_mnist, 0), initialize(paper_mnist, 0)

    def interrupt(epoch, loss):
        raise KeyboardInterrupt

    train(done, images, labels, protocol, seed=0, precision=precision)
    with pytest.raises(KeyboardInterrupt):
        train(broken, images, labels, protocol, seed=0, precision=precision, progress=interrupt)
    for model in (done, broken):
        assert not model.training
        assert all(w.is_contiguous() and w.dtype == torch.float32 for w in model.parameters())
        assert not same(model, initialize(paper_mnist, 0))


def test_an_unknown_precision_is_refused(images):
    protocol = Protocol(epochs=1, learning_rate=0.1, batch_size=5)
    with pytest.raises(ConfigError, match="use float32 or bfloat16"):
        train(paper_mnist(), images, torch.zeros(20).long(), protocol, seed=0, precision="bf16")
