import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from converters import to_snn
from srcsnn import synapses
from srcsnn.errors import ConfigError, SleepError
from srcsnn.neurons import LIF
from srcsnn.night import run
from srcsnn.plasticity import IncDec, Oja, PairSTDP, plastic
from srcsnn.synapses import synapse_of
from tests import reference


@st.composite
def geometries(draw):
    groups = draw(st.sampled_from([1, 2]))
    kernel = draw(st.integers(1, 3))
    dilation = draw(st.integers(1, 2))
    padding = draw(st.integers(0, 2))
    size = draw(st.integers(max(1, dilation * (kernel - 1) + 1 - 2 * padding), 6))
    return {
        "channels": (groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))),
        "kernel": kernel,
        "stride": draw(st.integers(1, 2)),
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "size": size,
        "gate": draw(st.sampled_from([None, 0.05])),
        "rate": draw(st.sampled_from([0.0, 0.2, 0.7, 1.0])),
        "seed": draw(st.integers(0, 10_000)),
    }


@settings(deadline=None, max_examples=60)
@given(geometries())
def test_conv_update_equals_nested_loops(g):
    generator = torch.Generator().manual_seed(g["seed"])
    options = {k: g[k] for k in ("stride", "padding", "dilation", "groups")}
    conv = nn.Conv2d(*g["channels"], g["kernel"], bias=False, **options)
    pre = torch.rand(2, g["channels"][0], g["size"], g["size"], generator=generator)
    pre = (pre < g["rate"]).float()
    post = (torch.rand(conv(pre).shape, generator=generator) < 0.4).float()
    change, _ = IncDec(0.3, 0.2, g["gate"]).update(synapse_of(conv), pre, post, None)
    shape = tuple(conv.weight.shape)
    gate = reference.gate(conv.weight.detach().numpy(), g["gate"]) if g["gate"] else 1.0
    expected = sum(
        reference.inc_dec(
            reference.conv_pairs(shape, one.shape, **options),
            shape, one.numpy(), other.numpy(), 0.3, 0.2,
        )
        for one, other in zip(pre, post, strict=True)
    )  # fmt: skip
    np.testing.assert_allclose(change.numpy(), gate * expected, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([None, 0.1]), st.integers(0, 10_000))
def test_linear_update_equals_nested_loops(inputs, outputs, width, seed):
    generator = torch.Generator().manual_seed(seed)
    linear = nn.Linear(inputs, outputs, bias=False)
    pre = (torch.rand(1, inputs, generator=generator) < 0.5).float()
    post = (torch.rand(1, outputs, generator=generator) < 0.5).float()
    change, _ = IncDec(0.3, 0.2, width).update(synapse_of(linear), pre, post, None)
    shape = (outputs, inputs)
    expected = reference.inc_dec(
        reference.linear_pairs(shape), shape, pre[0].numpy(), post[0].numpy(), 0.3, 0.2
    )
    gate = reference.gate(linear.weight.detach().numpy(), width) if width else 1.0
    np.testing.assert_allclose(change.numpy(), gate * expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Using padding=.same.")  # torch, of even kernels
@pytest.mark.parametrize("kernel", [2, 3])
def test_same_padding_is_the_padding_of_the_convolution(kernel):
    conv = nn.Conv2d(1, 1, kernel, padding="same", bias=False).double()
    pre = (torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    post = torch.ones(1, 1, 5, 5, dtype=torch.float64)
    # The gradient of the sum of a convolution with respect to its weights is the count of hits.
    conv(pre).backward(post)
    torch.testing.assert_close(synapse_of(conv).hits(pre, post), conv.weight.grad)


@pytest.mark.parametrize(
    ("make", "image"), [(nn.Conv1d, (9,)), (nn.Conv2d, (9, 8)), (nn.Conv3d, (7, 6, 5))]
)
def test_counts_are_gradients_of_the_convolution_in_any_number_of_dimensions(make, image):
    conv = make(4, 6, 3, stride=2, padding=1, dilation=1, groups=2, bias=False).double()
    generator = torch.Generator().manual_seed(0)
    pre = (torch.rand(2, 4, *image, generator=generator) < 0.4).double()
    current = conv(pre)
    post = (torch.rand(current.shape, generator=generator) < 0.4).double()
    synapse = synapse_of(conv)
    (hits,) = torch.autograd.grad(current, conv.weight, post)
    (pairs,) = torch.autograd.grad(conv(torch.ones_like(pre)), conv.weight, post)
    torch.testing.assert_close(synapse.hits(pre, post), hits)
    torch.testing.assert_close(synapse.pairs(pre, post).expand_as(pairs), pairs)


def test_bfloat16_counts_stay_exact():
    conv = nn.Conv2d(1, 1, 1, bias=False).bfloat16()
    spikes = torch.ones(1, 1, 20, 20, dtype=torch.bfloat16)
    spikes[..., 0, :1] = 0
    assert synapse_of(conv).hits(spikes, spikes).item() == 399  # bfloat16 would say 400


def test_no_post_spike_leaves_the_weights_unchanged():
    conv = nn.Conv2d(2, 3, 3, padding=1)
    change, _ = IncDec(1.0, 1.0).update(
        synapse_of(conv), torch.ones(1, 2, 5, 5), torch.zeros(1, 3, 5, 5), None
    )
    assert torch.count_nonzero(change) == 0


@pytest.mark.parametrize("width", [None, 0.05])
def test_a_night_equals_algorithm_1_in_plain_loops(width):
    torch.manual_seed(0)
    cnn = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(2, 3, 2, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(3 * 2 * 2, 4, bias=False),
    ).double()  # fmt: skip
    images = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    thresholds = (0.4, 0.5, 0.2)
    snn = to_snn(cnn, images, neuron=[LIF(t, 0.9) for t in thresholds], layers="all")
    weights = [unit.synapse.weight.detach().numpy().copy() for unit in snn.units]
    shapes = [(2, 6, 6), (3, 2, 2), (4,)]
    voltages = [np.zeros(shape) for shape in shapes]
    fired = 0.0
    spikes = (torch.rand(12, 1, 1, 8, 8) < 0.5).double()
    with plastic(snn, IncDec(0.02, 0.01, width)), torch.no_grad():
        for step in spikes:
            snn(step)
            below = step[0].numpy()
            for index, unit in enumerate(snn.units):
                shape = weights[index].shape
                if index == 2:
                    below, pairs = below.reshape(-1), list(reference.linear_pairs(shape))
                else:
                    pairs = list(reference.conv_pairs(shape, below.shape, 1, 0, 1, 1))
                drive = reference.current(pairs, weights[index], below, shapes[index], unit.alpha)
                post, voltages[index] = reference.fire(
                    voltages[index], drive, thresholds[index], 0.9
                )
                change = reference.inc_dec(pairs, shape, below, post, 0.02, 0.01)
                weights[index] += change * (reference.gate(weights[index], width) if width else 1)
                fired += post.sum()
                below = reference.max_pool(post) if index == 0 else post
    assert fired > 30
    for unit, expected in zip(snn.units, weights, strict=True):
        np.testing.assert_allclose(unit.synapse.weight.detach().numpy(), expected, atol=1e-9)


class STDPInParts(PairSTDP):
    in_parts = True


@pytest.mark.parametrize("rule", [IncDec(1e-3, 4e-4, 0.01), Oja(1e-3), STDPInParts(1e-3, 5e-4)])
def test_a_layer_that_learns_in_parts_learns_the_same(rule, monkeypatch):
    def network():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 7, 3, padding=1), nn.ReLU(), nn.Conv2d(7, 4, 2, groups=1, stride=2),
            nn.ReLU(), nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 4),
        )  # fmt: skip

    def slept():
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(5, 2, 8, 8, generator=generator)
        snn = to_snn(network(), images, neuron=LIF(0.2, 0.9), layers="all")
        with plastic(snn, rule), torch.inference_mode():
            for _ in range(30):
                snn((torch.rand(1, 2, 8, 8, generator=generator) < 0.4).float())
        return [unit.synapse.weight.detach() for unit in snn.units]

    whole = slept()
    monkeypatch.setattr(synapses, "_PART", 40)
    layers = [each for each in network() if hasattr(each, "weight")]
    assert [len(synapses.parts_of(each)) for each in layers] == [4, 4, 9, 1]
    for one, other, layer in zip(whole, slept(), layers, strict=True):
        assert not torch.equal(one, layer.weight)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_no_hook_is_left_behind_even_after_an_error():
    cnn = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU())
    snn = to_snn(cnn, torch.rand(2, 1, 5, 5), neuron=LIF(0.1, 0.9))

    def night():
        with plastic(snn, IncDec(0.1, 0.1)):
            raise RuntimeError("woken up")

    with pytest.raises(RuntimeError, match="woken up"):
        night()
    (unit,) = snn.units
    assert unit.synapse.listeners == unit.neurons.listeners == []


def test_only_sleeping_layers_change():
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU())
    snn = to_snn(cnn, torch.rand(2, 1, 8, 8), neuron=LIF(0.01, 0.9), layers=["2"])
    before = [unit.synapse.weight.detach().clone() for unit in snn.units]
    with plastic(snn, IncDec(0.1, 0.05)), torch.no_grad():
        for _ in range(5):
            snn(torch.ones(1, 1, 8, 8))
    changed = [
        not torch.equal(old, unit.synapse.weight)
        for old, unit in zip(before, snn.units, strict=True)
    ]
    assert changed == [False, True]


@pytest.mark.parametrize("values", [(-1.0, 0.1), (0.1, -1.0), (float("nan"), 0.1)])
def test_negative_magnitudes_are_refused(values):
    with pytest.raises(ConfigError, match="must be 0 or more"):
        IncDec(*values)


@pytest.mark.parametrize("gate", [0.0, -0.001, float("nan")])
def test_a_gate_without_width_is_refused(gate):
    with pytest.raises(ConfigError, match="must be above 0, or None"):
        IncDec(0.1, 0.1, gate)


def test_the_gate_holds_positive_weights_and_doubles_the_steps_of_negative_ones():
    linear = nn.Linear(3, 1, bias=False)
    linear.weight.data = torch.tensor([[-1.0, 0.0, 1.0]])
    pre, post = torch.ones(1, 3), torch.ones(1, 1)
    change, _ = IncDec(0.5, 0.1, gate=0.001).update(synapse_of(linear), pre, post, None)
    assert change.tolist() == [[1.0, 0.5, 0.0]]


class Stretched(nn.Module):
    """A branch of one channel that is added to one of two."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 1, 3)

    def forward(self, x):
        return (self.wide(x) + self.narrow(x)).relu()


def test_a_branch_that_is_stretched_cannot_sleep():
    snn = to_snn(Stretched().eval(), torch.rand(2, 1, 5, 5), neuron=LIF(0.1, 0.9))
    with (
        plastic(snn, IncDec(0.1, 0.1)),
        pytest.raises(SleepError, match=r"narrow: the rule fails on .* post spikes \(1, 2, 3, 3\)"),
    ):
        snn(torch.ones(1, 1, 5, 5))


def test_a_night_that_fails_leaves_no_voltages():
    snn = to_snn(
        nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU()), torch.rand(2, 1, 5, 5), neuron=LIF(9.0, 0.9)
    )

    def wake(step, generator):
        if step == 2:
            raise RuntimeError("woken up")
        return torch.ones(1, 1, 5, 5)

    with pytest.raises(RuntimeError, match="woken up"):
        run(snn, wake, IncDec(0.1, 0.1), steps=5, generator=torch.Generator())
    assert all(layer.neurons._state == [None] for layer in snn.layers)
