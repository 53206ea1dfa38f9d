import copy
import gc
import threading
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, weight_norm
from torchvision.transforms import Normalize

from converters import (
    ConversionError,
    Legacy,
    Percentile,
    conversion,
    measure,
    spiking_layers,
    to_ann,
    to_snn,
)
from srcsnn.neurons import LIF

NEURON = LIF(0.5, 0.9)


class Integrate:
    """Integrate and fire with reset by subtraction, whose rate is the ReLU of its current."""

    def init_state(self, current):
        return torch.zeros_like(current)

    def __call__(self, current, state):
        voltage = state + current
        spikes = (voltage > 1).to(current.dtype)
        return spikes, voltage - spikes


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 16, 5)

    def forward(self, x):
        x = F.avg_pool2d(F.max_pool2d(self.conv(x), 2).relu(), 1)
        x = F.dropout(x, 0.5, training=self.training)
        return F.log_softmax(self.fc(x.view(x.size(0), -1)), 1)


class OwnNormalization(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4]))
        self.register_buffer("std", torch.tensor([0.3]))
        self.conv = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x):
        return self.conv((x - self.mean[None, :, None, None]) / self.std[:, None, None]).relu()


class NormalizationByMethods(OwnNormalization):
    def forward(self, x):
        return self.conv(x.sub(self.mean[:, None, None]).div(self.std[:, None, None])).relu()


def plain(*extra):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *extra)


NETWORKS = {
    "bias, stride, groups, dilation": lambda: plain(
        nn.Conv2d(4, 4, 3, stride=2, padding=2, groups=2, dilation=2), nn.ReLU(inplace=True)
    ),
    "pooling and identity": lambda: plain(
        nn.Identity(), nn.AvgPool2d(2), nn.Dropout(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, 3), nn.Softmax(1),
    ),
    "max-pool before ReLU, functions": Functional,
    "own normalisation": OwnNormalization,
    "normalisation by methods": NormalizationByMethods,
    "torchvision normalisation": lambda: nn.Sequential(Normalize([0.4], [0.3]), *plain()),
}  # fmt: skip


@pytest.mark.parametrize("layers", ["conv", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_without_sleep_the_network_comes_back_bit_for_bit(name, dtype, layers):
    torch.manual_seed(0)
    model = NETWORKS[name]().to(dtype).train()
    before = copy.deepcopy(model.state_dict())
    images = torch.rand(5, 1, 8, 8)
    snn = to_snn(model, images, neuron=NEURON, layers=layers)
    with torch.no_grad():
        spikes = snn((torch.rand(1, 1, 8, 8) < 0.5).to(snn.units[0].synapse.weight))
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    after = to_ann(snn, model).state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert all(after[k].dtype == before[k].dtype for k in before)
    assert all(torch.equal(model.state_dict()[k], before[k]) for k in before)
    assert model.training


@pytest.mark.parametrize("make", [Functional, OwnNormalization, lambda: plain()])
def test_spike_rates_follow_the_cnns_activations(make):
    # Evidence that alpha, the bias current and the normalisation are right: with an ideal neuron
    # the rate over T steps is the activation over lambda, to within 1 / T.
    torch.manual_seed(0)
    model, images = make().eval(), torch.rand(20, 1, 8, 8)
    snn = to_snn(model, images, neuron=Integrate())
    (unit,) = snn.units
    steps, generator = 4000, torch.Generator().manual_seed(1)
    with torch.no_grad():
        total = sum(
            snn((torch.rand(1, 1, 8, 8, generator=generator) < images[:1]).float())
            for _ in range(steps)
        )
        first = model.conv if hasattr(model, "conv") else model[0]
        drive = (images[:1] - 0.4) / 0.3 if make is OwnNormalization else images[:1]
        expected = first(drive).relu() / unit.largest
    # A rate cannot follow the luck of the draw: 5 standard deviations of the mean input.
    assert (total / steps - expected).abs().max() < 0.06
    assert expected.max() > 0.3


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 2, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4, bias=False),
    )  # fmt: skip


def lambdas(model, images):
    """Largest activation and weight of each of the three layers."""
    found, x = [], images
    for layer in model:
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            found.append(max(float(x.max()), float(layer.weight.max()), 0.0))
    return found


@torch.no_grad()
def test_alpha_is_diehls_over_all_images():
    model = two_layers()
    images = torch.rand(40, 1, 8, 8) * 0.1
    images[-1] = 1.0  # the largest activations are those of the last image
    one, two, three = lambdas(model, images)
    snn = to_snn(model, images, neuron=NEURON, layers="all", coefficient=2.0)
    alphas = [unit.alpha for unit in snn.units]
    assert alphas == pytest.approx([2 / one, 2 * one / two, 2 * two / three], rel=1e-6)
    assert [u.largest for u in snn.units] == pytest.approx([one, two, three], rel=1e-6)


@torch.no_grad()
def test_what_was_measured_once_converts_again():
    model, images = two_layers(), torch.rand(10, 1, 8, 8)
    spikes = (torch.rand(1, 1, 8, 8) < 0.5).float()
    for options in ({"layers": "all"}, {"normalization": Legacy()}):
        scales = measure(model, images, **options)
        fresh = to_snn(model, images, neuron=NEURON, coefficient=3.0, **options)
        again = to_snn(model, images, neuron=NEURON, coefficient=3.0, scales=scales, **options)
        assert [u.alpha for u in again.units] == [u.alpha for u in fresh.units]
        assert torch.equal(again(spikes), fresh(spikes))
    with pytest.raises(ConversionError, match="no scale was measured for"):
        to_snn(model, images, neuron=NEURON, layers="all", scales=scales)


@torch.no_grad()
def test_legacy_divides_by_the_factor_that_was_applied():
    model, images = two_layers(), torch.rand(10, 1, 8, 8)
    one, two, three = lambdas(model, images)
    snn = to_snn(model, images, neuron=NEURON, layers="all", normalization=Legacy())
    expected = [1 / one, one / two, two / (one * three)]
    assert [unit.alpha for unit in snn.units] == pytest.approx(expected, rel=1e-6)


@torch.no_grad()
def test_percentile_covers_that_share_of_the_positive_activations():
    model, images = two_layers(), torch.rand(50, 1, 8, 8)
    activations = model[0](images).relu()
    positive = activations[activations > 0]
    snn = to_snn(model, images, neuron=NEURON, normalization=Percentile(90.0))
    expected = float(positive.quantile(0.9))
    assert snn.units[0].largest == pytest.approx(expected, abs=2e-3 * float(positive.max()))
    whole = to_snn(model, images, neuron=NEURON, normalization=Percentile(100.0))
    assert whole.units[0].largest == pytest.approx(float(positive.max()))


def test_the_graph_ends_at_the_last_layer_that_sleeps():
    model = two_layers()
    snn = to_snn(model, torch.rand(3, 1, 8, 8), neuron=NEURON, layers=["0"])
    assert [(u.name, u.sleeps) for u in snn.units] == [("0", True)]
    snn = to_snn(model, torch.rand(3, 1, 8, 8), neuron=NEURON, layers=["6"])
    assert [(u.name, u.sleeps) for u in snn.units] == [("0", False), ("3", False), ("6", True)]


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        x = self.a(x).relu()
        return self.b(x * x.mean((2, 3), keepdim=True)).relu()


class BareToo(Gated):
    def forward(self, x):
        x = self.a(x)
        return self.b(torch.cat([x[:, :0], x.relu()], 1) + x).relu()


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def shared():
    conv = nn.Conv2d(1, 1, 3, padding=1)
    return nn.Sequential(conv, nn.ReLU(), conv, nn.ReLU())


def tied():
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Conv2d(1, 1, 3), nn.ReLU())
    model[2].weight = model[0].weight
    return model


class OwnLinear(nn.Linear):
    """May compute something else."""


class SizesRead(nn.Module):
    """Pools over the whole image, and flattens, by sizes that it cuts out of a size."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.conv(x))
        x = F.avg_pool2d(x, kernel_size=x.size()[2:])
        return self.fc(x.view(x.shape[:1] + (-1,)))  # noqa: RUF005  # what is to be tried


def test_sizes_cut_out_of_a_size_are_constants():
    model, images = SizesRead(), torch.rand(4, 1, 9, 9)
    snn = to_snn(model, images, neuron=LIF(1.0, 0.9), layers="all")
    assert [unit.name for unit in snn.units] == ["conv", "fc"]


@pytest.mark.parametrize(
    ("head", "why"), [(OwnLinear(4, 2), "a class derived"), (nn.LSTM(4, 2), "not supported")]
)
def test_a_linear_layer_that_cannot_sleep_is_not_passed_over(head, why):
    model = nn.Sequential(nn.Conv2d(1, 4, 8), nn.ReLU(), nn.Flatten(), head)
    images = torch.rand(4, 1, 8, 8)
    with pytest.raises(ConversionError, match=why):
        to_snn(model, images, neuron=LIF(1.0, 0.9), layers="all")
    assert len(to_snn(model, images, neuron=LIF(1.0, 0.9)).units) == 1


def test_an_unknown_bias_is_refused():
    with pytest.raises(ConversionError, match="bias='foo': use 'scaled' or 'off'"):
        to_snn(plain(), torch.rand(4, 1, 8, 8), neuron=LIF(1.0, 0.9), bias="foo")


class Adding(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3))

    def forward(self, x):
        return self[1](F.avg_pool2d(self[0](x).relu(), 2, divisor_override=1)).relu()


REFUSED = {
    "GELU": (lambda: plain(nn.GELU(), nn.Conv2d(4, 2, 3), nn.ReLU()), r"2 \(GELU\)"),
    "BatchNorm of the batch": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.ReLU(),
            nn.Conv2d(2, 2, 3), nn.ReLU(),
        ),
        r"1 \(BatchNorm2d\): has no running statistics",
    ),
    "ReLU of an average": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.AvgPool2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3)),
        r"0 \(Conv2d\): a ReLU must stand straight behind it; there is an average before 2",
    ),
    "computed weights": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(1, 2, 3)), nn.ReLU()),
        r"no convolution that could sleep\n  0 \(ParametrizedConv2d\): .*remove_parametrizations",
    ),
    "computed weights, the old way": (
        lambda: nn.Sequential(weight_norm(nn.Conv2d(1, 2, 3)), nn.ReLU()),
        "cannot be copied.*remove_weight_norm",
    ),
    "product of branches": (Gated, r"mul.*: joins branches by other means"),
    "ReLU and bare": (BareToo, r"a \(Conv2d\): its ReLU must be the only one to use its output"),
    "ConvTranspose": (
        lambda: plain(nn.ConvTranspose2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU()),
        r"2 \(ConvTranspose2d\)",
    ),
    "pool that adds": (
        lambda: plain(nn.AvgPool2d(2, divisor_override=1), nn.Conv2d(4, 2, 3), nn.ReLU()),
        r"2 \(AvgPool2d\)",
    ),
    "function that adds": (Adding, "avg_pool2d"),
    "reflected border": (
        lambda: plain(nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"), nn.ReLU(),
                      nn.Conv2d(2, 2, 3), nn.ReLU()),
        "padding_mode='reflect'",
    ),
    "used twice": (shared, r"0 \(Conv2d\): used 2 times"),
    "tied": (tied, r"2 \(Conv2d\): shares its weights with 0"),
    "untraceable": (
        Branching,
        r"Branching cannot be traced by torch.fx at \S+test_conversion.py, line \d+ "
        r"\(return x if x.sum\(\) > 0 else -x\).*concrete_args",
    ),
    "no convolution": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), "no convolution"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_converted_is_refused_by_name(name):
    make, message = REFUSED[name]
    with pytest.raises(ConversionError, match=message):
        to_snn(make(), torch.rand(2, 1, 8, 8), neuron=NEURON)


def test_a_batch_norm_of_positions_is_not_folded():
    other = nn.Sequential(nn.Flatten(1, 2), nn.Linear(8, 5), nn.BatchNorm1d(8), nn.ReLU())
    snn = to_snn(other, torch.rand(2, 1, 8, 8), neuron=NEURON, layers="all")
    assert [unit.fold for unit in snn.units] == [None]
    cnn = nn.Sequential(nn.Flatten(1, 2), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())
    with pytest.raises(ConversionError, match=r"output is \(2, 8, 8\) normalises positions"):
        to_snn(cnn, torch.rand(2, 1, 8, 8), neuron=NEURON, layers="all")


def test_all_problems_are_listed_at_once():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.GELU(), nn.BatchNorm2d(2, track_running_stats=False),
        nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Sigmoid(), nn.Conv2d(2, 2, 1),
        nn.ReLU(),
    )  # fmt: skip
    with pytest.raises(ConversionError) as error:
        to_snn(model, torch.rand(2, 1, 9, 9), neuron=NEURON)
    for name in ("1 (GELU)", "2 (BatchNorm2d)", "6 (Sigmoid)", "supported: Conv1d"):
        assert name in str(error.value)


class Own(nn.Conv2d):
    pass


def test_what_leads_to_a_layer_that_cannot_sleep_is_listed_too():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Softsign(), Own(2, 2, 3), nn.GELU())
    with pytest.raises(ConversionError, match="in 2 places") as error:
        to_snn(model, torch.rand(2, 1, 9, 9), neuron=NEURON)
    for problem in ("2 (Softsign): not supported", "conv2d in 3): a function, or a class derived"):
        assert problem in str(error.value)


def test_the_length_of_a_batch_is_read_by_size():
    class Len(Functional):
        def forward(self, x):
            return self.fc(F.relu(self.conv(x)).view(len(x), -1))

    with pytest.raises(ConversionError, match=r"for len\(x\) or int\(x.size\(0\)\) write x.size"):
        to_snn(Len(), torch.rand(2, 1, 8, 8), neuron=NEURON)


def features_of_a_loop(x):
    count = 1
    for size in x.size()[1:]:
        count *= size
    return x.view(-1, count)


def features_by_name(x):
    assert x.dim() == 4
    assert x.shape[1:] == (4, 4, 4), x.shape
    batch, channels, height, width = x.shape
    return x.view(batch, channels * height * width)


def features_of_whole_numbers(x):
    rows = range(x.size(2))
    return x.reshape(-1, int(x.shape[1]) * len(rows) * x.size(3))


def features_of_a_branch(x):
    return x.flatten(1) if len(x.shape) == 4 and x.shape[-1] < 7 else x.mean()


def features_by_numpy(x):
    return x.view(-1, int(np.prod(x.shape[1:])))


def features_of_fractions(x):
    assert float(x.shape[2] / 3) > 1.3
    with pytest.raises(TypeError):
        range(x.shape[2] / 2)
    return x.flatten(1)


def features_where_they_are(x):
    x = x.cuda() if x.is_cuda else x.to(x.device).detach()
    return nn.Flatten()(x if x.dtype == torch.float32 else x.float())


@pytest.mark.parametrize(
    "features",
    [
        features_of_a_loop,
        features_by_name,
        features_of_whole_numbers,
        features_of_a_branch,
        features_by_numpy,
        features_of_fractions,
        features_where_they_are,
    ],
)
def test_a_forward_may_branch_and_loop_on_sizes(features):
    class Sized(Functional):
        def __init__(self, features):
            super().__init__()
            self.features = features

        def forward(self, x):
            return self.fc(self.features(F.max_pool2d(F.relu(self.conv(x)), 2)))

    model, flat = Sized(features), Sized(nn.Flatten())
    flat.load_state_dict(model.state_dict())
    images, spikes = torch.rand(3, 1, 8, 8), torch.ones(1, 1, 8, 8)
    found, expected = (to_snn(each, images, neuron=NEURON, layers="all") for each in (model, flat))
    for _ in range(5):
        assert torch.equal(found(spikes), expected(spikes))
    assert spiking_layers(model, "all", images) == ("conv", "fc")


def test_a_forward_that_needs_sizes_needs_images():
    class Sized(Functional):
        def forward(self, x):
            return super().forward(x if x.dim() == 4 else x[:, None])

    assert spiking_layers(Sized(), "conv", torch.rand(1, 1, 8, 8)) == ("conv",)
    with pytest.raises(ConversionError, match="asks for a size, and there are no images to tell"):
        spiking_layers(Sized())


@pytest.mark.parametrize(
    "answer", [lambda x: x, lambda x: (100 * x).softmax(1), lambda x: x.argmax(1)]
)
def test_a_graph_with_other_layers_than_the_network_is_refused(answer):
    class Asking(Functional):
        def forward(self, x):
            if isinstance(x, torch.Tensor):  # a proxy is none
                x = 2 * x - 1
            return answer(super().forward(x))

    with pytest.raises(ConversionError, match="asks a value for its class"):
        to_snn(Asking(), torch.rand(2, 1, 8, 8), neuron=NEURON)


def test_a_graph_whose_output_has_another_shape_is_refused():
    class Asking(Functional):
        def forward(self, x):
            x = super().forward(x)
            return x if torch.is_tensor(x) else x[:, :2]

    with pytest.raises(ConversionError, match="asks a value for its class"):
        to_snn(Asking(), torch.rand(2, 1, 8, 8), neuron=NEURON)


def test_what_is_drawn_behind_the_last_layer_that_sleeps_does_not_matter():
    class Dropping(Functional):
        def forward(self, x):
            return F.dropout(super().forward(x))

    model, images = Dropping(), torch.rand(2, 1, 8, 8)
    before = torch.get_rng_state()
    assert [unit.name for unit in to_snn(model, images, neuron=NEURON).units] == ["conv"]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_that_holds_what_cannot_be_copied_is_refused():
    model = plain()
    model.lock = threading.Lock()
    with pytest.raises(ConversionError, match=r"cannot be copied: cannot pickle .*must not hold"):
        to_snn(model, torch.rand(2, 1, 8, 8), neuron=NEURON)


def test_a_branch_on_pixels_is_refused_with_its_line():
    class Bright(Functional):
        def forward(self, x):
            return super().forward(x if x.mean() > 0.5 else 1 - x)

    with pytest.raises(ConversionError, match=r"line \d+ .*asks for the value of a tensor"):
        to_snn(Bright(), torch.rand(2, 1, 8, 8), neuron=NEURON)


def test_an_unknown_layer_name_names_the_nearest():
    with pytest.raises(ConversionError, match=r"'convv' \(did you mean 'conv'\?\)"):
        to_snn(Functional(), torch.rand(2, 1, 8, 8), neuron=NEURON, layers=["convv"])


def test_weights_that_are_not_finite_are_named():
    model = plain()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ConversionError, match="0: activations are not finite"):
        to_snn(model, torch.rand(2, 1, 8, 8), neuron=NEURON)


def test_a_silent_layer_is_named():
    model = plain()
    with torch.no_grad():
        model[0].weight.fill_(-1)
        model[0].bias.fill_(-1)
    with pytest.raises(ConversionError, match="0: silent for all 2 images"):
        to_snn(model, torch.rand(2, 1, 8, 8), neuron=NEURON)


def test_no_images_are_refused():
    with pytest.raises(ConversionError, match="no images to measure"):
        to_snn(plain(), torch.rand(0, 1, 8, 8), neuron=NEURON)


def test_images_of_the_wrong_shape_are_refused():
    with pytest.raises(ConversionError, match=r"cannot take images of shape \(3, 8, 8\)"):
        to_snn(plain(), torch.rand(2, 3, 8, 8), neuron=NEURON)


def test_one_neuron_model_for_each_layer():
    with pytest.raises(ConversionError, match="3 neuron models for 2 spiking layers: 0, 3"):
        to_snn(two_layers(), torch.rand(2, 1, 8, 8), neuron=[NEURON] * 3)


@pytest.mark.parametrize(
    "last", [nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), nn.ConvTranspose2d(2, 2, 3)]
)
def test_a_convolution_that_cannot_sleep_is_refused_even_behind_the_last_that_can(last):
    cnn = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), last, nn.ReLU())
    with pytest.raises(ConversionError, match=r"2 \(Conv"):
        to_snn(cnn, torch.rand(2, 1, 8, 8), neuron=NEURON, layers="conv")
    assert len(to_snn(cnn, torch.rand(2, 1, 8, 8), neuron=NEURON, layers=["0"]).units) == 1


def test_a_normalisation_in_place_leaves_the_images_alone():
    cnn = nn.Sequential(Normalize([0.5], [0.2], inplace=True), nn.Conv2d(1, 2, 3), nn.ReLU())
    images = torch.rand(4, 1, 8, 8)
    before = images.clone()
    snn = to_snn(cnn, images, neuron=NEURON, layers="conv")
    spikes = (images > 0.5).float()
    seen = spikes.clone()
    snn(spikes)
    assert torch.equal(images, before)
    assert torch.equal(spikes, seen)
    assert cnn[0].inplace


def test_copies_are_freed_when_nobody_holds_them(monkeypatch):
    # Not some time later, by the garbage collector: they are as large as the network.
    copies = []
    simulated = conversion._simulated

    def watched(*arguments, **options):
        found = simulated(*arguments, **options)
        copies.append(weakref.ref(found[0].get_submodule("0")))
        return found

    monkeypatch.setattr(conversion, "_simulated", watched)
    model, images = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), torch.rand(4, 1, 6, 6)
    gc.disable()
    try:
        measure(model, images)
        spiking_layers(model)
        snn = to_snn(model, images, neuron=NEURON)
        assert [copied() is None for copied in copies] == [True, True, False]
        del snn
        assert copies[-1]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "scaled",
    [
        lambda model, x: (2 * (model.a(x) + model.b(x))).relu(),
        lambda model, x: model.b(F.max_pool2d(model.a(x), 3, 1, 1) * 2).relu(),
        lambda model, x: torch.add(model.a(x), model.b(x).mean(1, True) + x, alpha=2).relu(),
        lambda model, x: model.b(model.a(x).relu() / x.size(0)).relu(),
    ],
)
def test_a_number_in_a_place_where_it_has_no_meaning_is_refused(scaled):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return scaled(self, x)

    with pytest.raises(ConversionError, match=r"a number must be on|other means than a sum"):
        to_snn(Model(), torch.rand(4, 1, 6, 6), neuron=NEURON)


def test_a_bias_that_another_layer_has_too_is_left_to_it():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)
            self.b.bias = self.a.bias

        def forward(self, x):
            return self.b((0.1 * self.a(x)).relu()).relu()

    model = Tied()
    snn = to_snn(model, torch.ones(1, 1, 6, 6), neuron=NEURON)
    first, second = (unit.synapse.bias.item() * unit.largest for unit in snn.units)
    assert first == pytest.approx(0.1 * model.a.bias.item())
    assert second == pytest.approx(model.b.bias.item())


def test_a_number_behind_a_linear_layer_of_several_axes_is_folded():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 5)

        def forward(self, x):
            return (0.5 * self.layer(x)).relu()

    (unit,) = to_snn(Wide(), torch.rand(4, 1, 6, 6), neuron=NEURON, layers="all").units
    assert torch.equal(unit.fold, torch.full((5,), 0.5))
