"""Networks that are no chain: BatchNorm, sums and concatenations of branches."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from converters import ConversionError, Legacy, simulate, spiking_layers, to_ann, to_snn
from srcsnn.errors import SleepError
from srcsnn.neurons import LIF
from srcsnn.night import run
from srcsnn.plasticity import IncDec, plastic
from srcsnn.replay import PoissonMean
from srcsnn.seeding import stream
from srcsnn.synapses import synapse_of
from tests.converters.test_conversion import NEURON, Integrate


def batch_norm(channels):
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, -1.5, 1.5)
    nn.init.normal_(norm.bias, 0, 0.3)
    norm.running_mean.normal_(0, 0.3)
    norm.running_var.uniform_(0.3, 2)
    return norm


def conv_norm(below, above, **options):
    return nn.Sequential(nn.Conv2d(below, above, 3, padding=1, **options), batch_norm(above))


class Block(nn.Module):
    """Two layers and a way round them, as in a ResNet."""

    def __init__(self, shortcut):
        super().__init__()
        self.stem, self.a, self.b = conv_norm(1, 3), conv_norm(3, 3, bias=False), conv_norm(3, 3)
        self.shortcut = shortcut
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.stem(x))
        out = self.b(self.relu(self.a(x)))
        out += self.shortcut(x)
        return self.relu(out)


class Inverted(nn.Module):
    """A bottleneck without a ReLU and a way round it, as in MobileNetV2; then one layer more."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 6, 1)
        self.deep, self.narrow = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 2, 1)
        self.last = nn.Conv2d(2, 3, 1)
        for layer in (self.stem, self.narrow):  # so that its positive part is all there is
            layer.weight.data.abs_()
            layer.bias.data.abs_()

    def forward(self, x):
        x = self.stem(x)
        x = torch.add(x, self.narrow(F.relu6(self.deep(F.relu6(self.wide(x))))))
        return self.last(x).relu()


class Fire(nn.Module):
    """Branches side by side whose activations differ a hundredfold, as in SqueezeNet."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 3, padding=1)
        self.c = nn.Conv2d(5, 3, 1)
        self.b.weight.data.mul_(100)
        self.c.weight.data[:, 2:4].mul_(0.01)

    def forward(self, x):
        sides = torch.cat([self.a(x).relu(), self.b(x).relu(), x], dim=1)
        return self.c(F.avg_pool2d(sides, 2)).relu()


class OneReLU(Fire):
    """The same with one ReLU for both branches."""

    def forward(self, x):
        return self.c(torch.cat([torch.cat((self.a(x), self.b(x)), 1).relu(), x], 1)).relu()


class Sums(nn.Module):
    """Sums of spikes, of three currents, and of a current with itself."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(n, 2, 3, padding=1) for n in (1, 2, 2))
        self.d, self.e = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.e.weight.data.abs_()
        self.a.bias.data.fill_(1.0)

    def forward(self, x):
        x = F.relu(self.a(x))
        x = x + F.relu(self.b(x))
        x = F.relu(F.dropout(self.c(x), 0.5, self.training) + self.d(x) + x)
        return F.relu(self.e(x + x))


class LateNorms(nn.Module):
    """BatchNorm of the images and behind ReLUs: before a layer, a pool, and ways that meet."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(n, 3, 3, padding=1) for n in (1, 3, 6))
        self.norms = nn.ModuleList(map(batch_norm, (1, 3, 3)))

    def forward(self, x):
        x = self.norms[1](F.relu(self.a(self.norms[0](x))))
        y = self.norms[2](F.dropout(F.relu(self.b(F.avg_pool2d(x, 2))), 0.5, self.training))
        return F.relu(self.c(torch.cat([F.avg_pool2d(x, 2), y], 1)) + y)


class PreActivation(nn.Module):
    """BatchNorm and ReLU in front of layers, as in the second ResNet and in DenseNet."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = (nn.Conv2d(n, 3, 3, padding=1) for n in (1, 3, 3))
        self.last = nn.Conv2d(6, 2, 1)
        self.norms = nn.ModuleList(map(batch_norm, (1, 3, 3, 6)))
        for layer in (self.stem, self.b):  # so that their positive part is all there is
            layer.weight.data.abs_()
            layer.bias.data.abs_()
        for norm in self.norms:
            norm.bias.data.fill_(0.5)

    def forward(self, x):
        x = self.stem(F.relu(self.norms[0](x)))
        y = F.relu6(self.norms[1](x))
        y = x + self.b(F.relu(self.norms[2](self.a(y))))
        return self.last(F.relu(self.norms[3](torch.cat([x, y], 1)))).relu()


class OptionA(nn.Module):
    """A way round that takes every second position, and zeros for channels that it has not got."""

    def __init__(self):
        super().__init__()
        self.stem, self.a = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.b, self.last = nn.Conv2d(4, 3, 3), nn.Linear(3, 2)

    def forward(self, x, targets=None, scale=1.0):
        x = F.relu(self.stem(scale * x))
        way_round = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1), "constant", 0)
        x = F.relu(sum([self.a(x), way_round]))
        if targets is not None:  # as it is in training
            x = -x
        return F.relu(self.last(F.relu(self.b(x)).squeeze()))


class Scaled(nn.Module):
    """Branches with numbers on them, spelt in every way."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = (nn.Conv2d(n, 3, 3, padding=1) for n in (1, 3, 3))
        self.c, self.norms = conv_norm(3, 3), nn.ModuleList(batch_norm(3) for _ in range(2))
        self.norms[1] = nn.BatchNorm2d(3, affine=False)
        self.b2, self.squeeze = nn.Conv2d(3, 3, 2, stride=2), nn.Conv2d(6, 3, 1)
        self.scale, self.half = nn.Parameter(torch.tensor(-0.7)), 0.5

    def forward(self, x):
        x = self.stem(x).relu()
        x = (x + 0.3 * (-2 * self.norms[0](self.a(x) * 0.5))).relu()
        x = torch.add(x, F.dropout(self.b(x), 0.5, self.training), alpha=self.half).relu()
        y = self.c(x)
        y *= self.scale
        y = F.avg_pool2d(torch.cat([(y + x / 2).relu(), 2 * x], 1) * 0.7, 2) * 3
        return (self.squeeze(y) + self.norms[1](self.b2(x)) / 4).relu()


class Rearranged(nn.Module):
    """Copies its image into channels, enlarges it, and moves channels and halves of them about."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.3, 0.4, 0.5]))
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(8, 2, 1)
        self.pad, self.larger, self.shuffle = nn.ZeroPad2d(1), nn.Upsample(12), nn.ChannelShuffle(2)

    def forward(self, x):
        x = F.interpolate(x.repeat(1, 3, 1, 1), scale_factor=2, mode="bilinear")
        x = (x - self.mean[:, None, None].to(x.device)) / self.mean.view(1, 3, 1, 1).type_as(x)
        x = self.larger(nn.AvgPool2d(2)(nn.ReLU()(self.a(self.pad(x)))))
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)
        first, second = self.b(self.shuffle(x).detach()).relu().chunk(2, dim=1)
        once, *_ = torch.split(x, 4, dim=1)
        x = torch.cat([second, first, once[..., 1:-1, 1:-1]], 1).permute(0, 1, 3, 2)
        return self.c(x.clone().expand(-1, 8, -1, -1)).relu()


def volume():
    model = nn.Sequential(
        nn.Unflatten(2, (2, 3)), nn.Conv3d(1, 3, 2), nn.BatchNorm3d(3), nn.ReLU(),
        nn.Conv3d(3, 2, 1, padding=1), nn.ReLU(),
    )  # fmt: skip
    model[4].bias.data.abs_()
    return model


NETWORKS = {
    "identity": lambda: Block(nn.Identity()),
    "projection": lambda: Block(conv_norm(3, 3)),
    "inverted": Inverted,
    "fire": Fire,
    "one ReLU for two": OneReLU,
    "sums": Sums,
    "late norms": LateNorms,
    "pre-activation": PreActivation,
    "option A": OptionA,
    "scaled": Scaled,
    "rearranged": Rearranged,
    "linear": lambda: nn.Sequential(
        conv_norm(1, 2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4), nn.BatchNorm1d(4), nn.ReLU(),
        nn.Linear(4, 3),
    ),
    "line": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(1, 3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Conv1d(3, 2, 3),
        nn.ReLU(),
    ),
    "volume": volume,
}  # fmt: skip


@pytest.fixture(params=NETWORKS)
def model(request):
    torch.manual_seed(1)
    return NETWORKS[request.param]()


def images():
    return (torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float()


@torch.no_grad()
def test_spike_rates_follow_the_activations(model):
    # With an ideal neuron and input that does not change, the rate is the activation over lambda.
    model.eval()
    snn = to_snn(model, images(), neuron=Integrate(), layers="all")
    steps, last = 3000, snn.layers[-1]
    total = sum(snn(images()[:1]) for _ in range(steps))
    expected = model(images()[:2])[:1].relu()
    if isinstance(model, Sums):  # two layers of their own, driven by shortcuts alone
        assert [layer.name for layer in snn.layers] == ["a", "b", "add", "c", "add_3", "e"]
    assert expected.max() > 0.2 * last.largest
    torch.testing.assert_close(total / steps * last.largest, expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@torch.no_grad()
def test_without_sleep_the_network_comes_back_bit_for_bit(model, dtype):
    model.to(dtype)
    before = copy.deepcopy(model.state_dict())
    snn = to_snn(model, images(), neuron=NEURON, layers="all")
    snn(images()[:1].to(snn.units[0].synapse.weight))
    after = to_ann(snn, model).state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) and after[k].dtype == dtype
               for k in before if before[k].is_floating_point())  # fmt: skip
    assert all(torch.equal(model.state_dict()[k], before[k]) for k in before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_spiking_network_may_give_its_weights_away(model, dtype):
    model.to(dtype)
    snn = to_snn(model, images(), neuron=NEURON, layers="all")
    for unit in snn.units:
        unit.synapse.weight.add_(0.1)
    copied, given = to_ann(snn, model), to_ann(snn, model, keep=False)
    assert list(given.state_dict()) == list(model.state_dict())
    for (name, one), other in zip(copied.named_parameters(), given.parameters(), strict=True):
        assert torch.equal(one, other), name
        assert one.dtype == other.dtype == dtype
        assert one.requires_grad
        assert other.requires_grad
    assert not any(list(unit.synapse.operator.parameters()) for unit in snn.units)


@pytest.mark.parametrize(("bias", "fires"), [("scaled", True), ("off", False)])
@torch.no_grad()
def test_without_biases_silence_stays_silence(bias, fires):
    torch.manual_seed(1)
    snn = to_snn(LateNorms().eval(), images(), neuron=Integrate(), bias=bias)
    spikes = []
    with snn.observed(lambda _, fired: spikes.append(float(fired.sum()))):
        for _ in range(50):
            snn(torch.zeros(1, 1, 6, 6))
    assert (sum(spikes) > 0) == fires


@torch.no_grad()
def test_the_change_is_divided_by_the_batch_norms_factor():
    torch.manual_seed(0)
    model = nn.Sequential(conv_norm(1, 4), nn.ReLU()).eval()
    norm = model[0][1]
    norm.weight[2] = 0
    snn = to_snn(model, images(), neuron=NEURON)
    (unit,) = snn.units
    change = torch.zeros_like(unit.synapse.weight)
    change[1, 0, 0, 0], change[2, 0, 1, 1] = 0.25, 0.5
    unit.synapse.weight.add_(change)
    slept = to_ann(snn, model)
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    expected = model[0][0].weight.clone()
    expected[1, 0, 0, 0] += 0.25 / factor[1]  # and nothing where the factor is zero
    torch.testing.assert_close(slept[0][0].weight, expected)
    untouched = change == 0
    assert torch.equal(slept[0][0].weight[untouched], model[0][0].weight[untouched])
    assert torch.equal(slept[0][0].weight[2], model[0][0].weight[2])
    # What the CNN computes has changed as what was simulated has.
    where = torch.zeros(1, 1, 6, 6)
    where[..., 2, 2] = 1
    found = slept[0](where) - model[0](where)
    assert found[0, 1, 3, 3] == pytest.approx(0.25, rel=1e-4)
    assert found[0, 2].abs().max() == 0


@torch.no_grad()
def test_branches_that_meet_learn_from_the_same_spikes():
    torch.manual_seed(0)
    model = Block(nn.Conv2d(3, 3, 1)).eval()
    snn = to_snn(model, images(), neuron=LIF(0.3, 0.9), coefficient=3.0)
    assert [layer.name for layer in snn.layers] == ["stem.0", "a.0", "b.0"]
    assert [(u.name, u.layer.name) for u in snn.units] == [
        ("stem.0", "stem.0"), ("a.0", "a.0"), ("b.0", "b.0"), ("shortcut", "b.0"),
    ]  # fmt: skip
    stem, _, b, shortcut = snn.units
    seen = {}
    for name, listeners in (
        ("pre", shortcut.synapse.listeners), ("stem", stem.neurons.listeners),
        ("post", b.neurons.listeners),
    ):  # fmt: skip
        listeners.append(lambda spikes, name=name: seen.update({name: spikes}))
    before, rule = shortcut.synapse.weight.clone(), IncDec(1e-3, 1e-4)
    with plastic(snn, rule):
        snn(images()[:1])
    assert seen["post"].sum() > 0
    assert torch.equal(seen["pre"], seen["stem"])
    expected, _ = rule.update(synapse_of(model.shortcut), seen["pre"], seen["post"], None)
    assert expected.abs().max() > 0
    torch.testing.assert_close(shortcut.synapse.weight - before, expected, atol=1e-7, rtol=1e-3)


def test_a_layer_without_a_relu_is_said_to_rectify():
    snn = to_snn(Inverted(), images(), neuron=NEURON)
    assert {layer.name: layer.rectifies for layer in snn.layers} == {
        "stem": True, "wide": False, "deep": False, "narrow": True, "last": False,
    }  # fmt: skip


def test_a_graph_that_was_traced_by_the_user_is_a_network():
    class Switch(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x, twice=False):
            return self.conv(x).relu() if not twice else self.conv(self.conv(x)).relu()

    decided = torch.fx.symbolic_trace(Switch(), concrete_args={"twice": False})
    assert spiking_layers(decided) == ("conv",)
    assert list(to_ann(to_snn(decided, images(), neuron=NEURON), decided).state_dict()) == [
        "conv.weight", "conv.bias",
    ]  # fmt: skip


TORCHVISION = {
    "vgg11": 8, "vgg11_bn": 8, "vgg16": 13, "vgg16_bn": 13, "resnet18": 20, "resnet34": 36,
    "resnet50": 53, "mobilenet_v2": 52, "squeezenet1_0": 26, "squeezenet1_1": 26,
    "densenet121": 120, "shufflenet_v2_x0_5": 56,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "size"), [*((name, 32) for name in TORCHVISION), ("alexnet", 224), ("resnet18", 224)]
)
@torch.no_grad()
def test_torchvisions_networks_sleep(name, size):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None)
    pictures = torch.rand(2, 3, size, size)
    snn = to_snn(model, pictures, neuron=LIF(0.3, 0.9), coefficient=3.0)
    before = model.state_dict()
    asleep = to_ann(snn, model).state_dict()
    assert all(torch.equal(asleep[key], before[key]) for key in before)
    rule, replay = IncDec(1e-5, 1e-6), PoissonMean(pictures[0], max_rate_hz=500.0, dt_s=0.001)
    run(snn, replay, rule, steps=10, generator=stream(0, "sleep"))
    slept = to_ann(snn, model).state_dict()
    changed = {key for key in before if not torch.equal(slept[key], before[key])}
    convolutions = {f"{key}.weight" for key, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert changed == convolutions
    assert len(convolutions) == TORCHVISION.get(name, len(snn.units))


class Forward(nn.Module):
    """A network whose forward is given."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.body = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.body(self, x)


def layers(*channels):
    torch.manual_seed(0)
    pairs = zip(("a", "b", "c"), channels, strict=False)
    return {name: nn.Conv2d(*each, 3, padding=1) for name, each in pairs}


def aliased(self, x):
    x = self.a(x).relu()
    skip = x
    x += self.b(x).relu()
    return self.c(x + skip).relu()


def statement(self, x):
    x = self.a(x).relu()
    x.mul_(0.1)
    return self.b(x).relu()


def statement_sum(self, x):
    x = self.a(x).relu()
    x.add_(self.b(x).relu())
    return self.c(x).relu()


def size_of_a_branch(self, x):
    x = self.a(x).relu()
    y = self.b(x)
    z = (x + y).relu().view(y.size(0), -1, 6, 6)
    return self.c(z).relu()


def in_place_on_norm(self, x):
    x = self.norm(F.max_pool2d(self.a(x).relu(), 2))
    skip = x
    return self.c(self.b(self.relu(x)).relu() + skip).relu()


def hooked(name):
    model = Forward(lambda self, x: self.relu(self.a(x)), relu=nn.ReLU(), **layers((1, 2)))
    model.get_submodule(name).register_forward_hook(lambda module, given, out: 3 * out)
    return model


THREE = ((1, 2), (2, 2), (2, 2))
STRANGE = {
    "another name": (lambda: Forward(aliased, **layers(*THREE)), "something else than the network"),
    "statement": (lambda: Forward(statement, **layers(*THREE)), r"mul_.*assign its result"),
    "sum as a statement": (lambda: Forward(statement_sum, **layers(*THREE)), "assign its result"),
    "size of a branch": (
        lambda: Forward(size_of_a_branch, **layers(*THREE)),
        r"size.*read the size of the sum",
    ),
    "no ReLU": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Conv2d(2, 2, 1)),
        "the network has no ReLU",
    ),
    "parts without names": (
        lambda: Forward(
            lambda self, x: self.b(torch.cat(self.a(x).relu().chunk(2, 1), 1)).relu(),
            **layers(*THREE),
        ),
        r"cat \(cat\): not supported",
    ),
    "grey of normalised colours": (
        lambda: Forward(
            lambda self, x: self.a((x - 0.5) / 0.2 * 0.3 + (x[:, :1] - 0.5) / 0.2 * 0.6).relu(),
            **layers((1, 2)),
        ),
        r"add.*joins branches by other means",
    ),
    "whole numbers": (
        lambda: Forward(
            lambda self, x: self.b((4 * self.a(x).relu()).to(torch.uint8).float()).relu(),
            **layers(*THREE),
        ),
        r"to \(to\): not supported",
    ),
    "cubic by position": (
        lambda: Forward(
            lambda self, x: self.a(F.interpolate(x, None, 2, "bicubic")).relu(), **layers((1, 2))
        ),
        r"interpolate \(interpolate\): not supported",
    ),
    "images in place of channels": (
        lambda: Forward(lambda self, x: self.a(x.chunk(1, -4)[0]).relu(), **layers((1, 2))),
        r"chunk \(chunk\): not supported",
    ),
    "hooks": (lambda: hooked("a"), r"a \(Conv2d\): has forward hooks"),
    "hooks on a ReLU": (lambda: hooked("relu"), r"relu \(ReLU\): has forward hooks"),
    "in place on a norm": (
        lambda: Forward(in_place_on_norm, norm=batch_norm(2), relu=nn.ReLU(True), **layers(*THREE)),
        r"relu \(ReLU\): changes in place what has a second use",
    ),
    "ReLU6 of branches": (
        lambda: Forward(
            lambda self, x: self.c(F.relu6(torch.cat([self.a(x), self.b(x)], 1))).relu(),
            **layers((1, 2), (1, 2), (4, 2)),
        ),
        r"relu6.*must stand straight behind one convolution",
    ),
    "reflected last": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")
        ),
        "padding_mode='reflect'",
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_would_be_converted_wrongly_is_refused(name):
    make, message = STRANGE[name]
    with pytest.raises(ConversionError, match=message):
        to_snn(make(), images(), neuron=NEURON, layers="all")


@torch.no_grad()
def test_a_layer_may_be_called_like_an_operation_and_a_current_be_made_like_another():
    class Split(Forward):
        def forward(self, x):
            y = self.a(x)
            return self.split((y + self.b(x).type_as(y)).relu())[:, ::2]

    model = Split(None, **layers((1, 2), (1, 2)), split=nn.MaxPool2d(2)).eval()
    snn = to_snn(model, images(), neuron=NEURON)
    assert [unit.layer.name for unit in snn.units] == ["a", "a"]


class Copied(nn.Sequential):
    """Copies itself by its weights."""

    def __deepcopy__(self, memo):
        other = Copied(nn.Conv2d(1, 2, 3), nn.ReLU())
        other.load_state_dict(self.state_dict())
        return other


@pytest.mark.parametrize("keep", [True, False])
@torch.no_grad()
def test_a_network_that_copies_itself_gets_what_was_slept(keep):
    model = Copied(nn.Conv2d(1, 2, 3), nn.ReLU())
    snn = to_snn(model, images(), neuron=NEURON)
    snn.units[0].synapse.weight.add_(1)
    assert torch.equal(to_ann(snn, model, keep=keep)[0].weight, model[0].weight + 1)


@torch.no_grad()
def test_a_sum_in_place_of_images_leaves_them_alone():
    model = Forward(lambda self, x: self.a(x.add_(0.5)).relu(), **layers((1, 2))).eval()
    given = images()
    spikes = given[:1].clone()
    snn = to_snn(model, given, neuron=Integrate())
    total = sum(snn(spikes) for _ in range(2000))
    assert torch.equal(given, images())
    assert torch.equal(spikes, images()[:1])
    expected = model.a(images()[:1] + 0.5).relu()
    torch.testing.assert_close(total / 2000 * snn.layers[0].largest, expected, atol=0.03, rtol=0.03)


@torch.no_grad()
def test_a_relu6_caps_whatever_the_weights():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU6(), nn.Conv2d(2, 1, 1), nn.ReLU())
    model[0].weight[0, 0, 1, 1] = 20.0  # above 6, and lambda is the largest of all weights too
    model[2].weight.abs_()
    snn = to_snn(model, images(), neuron=Integrate())
    assert snn.layers[0].largest == 6
    total = sum(snn(images()[:1]) for _ in range(3000))
    torch.testing.assert_close(
        total / 3000 * snn.layers[-1].largest, model(images()[:1]), atol=0.05, rtol=0.03
    )


@torch.no_grad()
def test_names_of_layers_do_not_collide_with_those_of_the_graph():
    def forward(self, x):
        p, q = self.a(x).relu(), self.b(x).relu()
        return self.synapse_1(self.neurons_0(self.add(p + q).relu())).relu()

    named = {"add": nn.Conv2d(2, 2, 1), "synapse_1": nn.Conv2d(2, 2, 1)}
    model = Forward(forward, **layers((1, 2), (1, 2)), **named, neurons_0=nn.AvgPool2d(2)).eval()
    for layer in (model.a, model.b, model.add, model.synapse_1):
        layer.weight.abs_()
    snn = to_snn(model, images(), neuron=Integrate())
    assert [layer.name for layer in snn.layers] == ["a", "b", "add_", "add", "synapse_1"]
    total = sum(snn(images()[:1]) for _ in range(3000))
    torch.testing.assert_close(
        total / 3000 * snn.layers[-1].largest, model(images()[:1]), atol=0.05, rtol=0.03
    )


def test_the_legacy_recursion_is_refused_where_branches_are_added():
    with pytest.raises(ConversionError, match="legacy normalisation is for networks without"):
        to_snn(Block(nn.Identity()), images(), neuron=NEURON, normalization=Legacy())


def test_a_sum_that_broadcasts_is_refused_by_the_rule_with_the_layers_name():
    def forward(self, x):
        x = self.a(x).relu()
        return (self.b(x) + self.c(F.adaptive_avg_pool2d(x, 1))).relu()

    snn = to_snn(Forward(forward, **layers(*THREE)), images(), neuron=LIF(0.1, 0.9))
    with plastic(snn, IncDec(1e-3, 1e-3)), pytest.raises(SleepError, match=r"^c: the rule fails"):
        snn(images()[:1])


def test_a_convolution_inside_a_sum_runs_once_in_a_step():
    snn = to_snn(Block(nn.Conv2d(3, 3, 1)), images(), neuron=NEURON)
    modules = [node.target for node in snn.graph.graph.nodes if node.op == "call_module"]
    assert modules == [
        "synapse_0", "neurons_0", "synapse_1", "neurons_1", "synapse_2", "synapse_3", "neurons_2",
    ]  # fmt: skip


def pads(x):
    return F.pad(x, (1, 1, 1, 1))


PADDED = {
    "module": (lambda: nn.ZeroPad2d(1), 0),
    "function": (lambda: Applied(pads), 0),
    "onto its own": (lambda: nn.ZeroPad2d((1, 1, 0, 0)), (1, 0)),
}


class Applied(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("name", PADDED)
def test_zeros_in_front_of_a_convolution_are_its_padding(name):
    """Where they are is no neuron that could be silent; in sleep as in what the CNN computes."""
    make, own = PADDED[name]
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator) for shape in ((4, 1, 3, 3), (2, 4, 3, 3))]
    images = torch.rand(6, 1, 7, 7, generator=generator)

    def slept(*layers):
        cnn = nn.Sequential(*layers).eval()
        convolutions = [layer for layer in cnn if isinstance(layer, nn.Conv2d)]
        for layer, weight in zip(convolutions, weights, strict=True):
            layer.weight.data.copy_(weight)
        snn = to_snn(cnn, images, neuron=LIF(0.2, 0.9))
        replay = PoissonMean(images.mean(0), max_rate_hz=300.0, dt_s=0.001)
        run(snn, replay, IncDec(1e-3, 1e-3), steps=30, generator=stream(0, "sleep"))
        back = to_ann(snn, cnn)
        assert [type(layer) for layer in back] == [type(layer) for layer in layers]
        return [layer.weight for layer in back if isinstance(layer, nn.Conv2d)]

    inside = slept(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU(),
        nn.Conv2d(4, 2, 3, padding=1, bias=False), nn.ReLU(),
    )  # fmt: skip
    before = slept(
        make(), nn.Conv2d(1, 4, 3, padding=own, bias=False), nn.ReLU(), nn.Dropout(),
        make(), nn.Conv2d(4, 2, 3, padding=own, bias=False), nn.ReLU(),
    )  # fmt: skip
    for one, other, weight in zip(inside, before, weights, strict=True):
        assert torch.equal(one, other)
        assert not torch.equal(one, weight)


@pytest.mark.parametrize(
    ("pad", "conv", "image"),
    [
        (nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(1, 2, 3, stride=2), (1, 8, 8)),
        (nn.ZeroPad2d((-1, -1, 1, 1)), nn.Conv2d(1, 2, 3), (1, 8, 8)),
        (nn.ZeroPad2d(1), nn.Conv2d(1, 2, 3, padding="same"), (1, 8, 8)),
        (nn.ZeroPad1d(2), nn.Conv1d(1, 2, 3, padding="valid"), (1, 8)),
        (nn.ZeroPad3d((1, 1, 2, 2, 0, 0)), nn.Conv3d(1, 2, 3), (1, 4, 4, 4)),
    ],
)
def test_whatever_zeros_stand_in_front_the_simulated_copy_computes_the_same(pad, conv, image):
    model = nn.Sequential(pad, conv, nn.ReLU()).eval()
    images = torch.rand(3, *image)
    with torch.no_grad():
        output, _ = simulate(model, images)
        torch.testing.assert_close(output, model(images))
