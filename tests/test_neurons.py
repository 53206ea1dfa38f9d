import copy

import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srcsnn.errors import ConfigError
from srcsnn.neurons import LIF, Leaky


def spike_train(neuron, currents):
    state = neuron.init_state(currents[0])
    train = []
    for current in currents:
        spikes, state = neuron(current, state)
        train.append(spikes)
    return torch.stack(train)


@settings(deadline=None, max_examples=40)
@given(
    decay=st.floats(0, 1),
    threshold=st.floats(0.05, 5),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 10_000),
)
def test_the_fast_neuron_spikes_exactly_as_snntorch_does(decay, threshold, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    # Multiples of 1/8 reach the threshold exactly now and then.
    currents = (torch.randn(40, 3, 7, generator=generator) * 8).round().div(8).to(dtype)
    leaky = spike_train(Leaky(threshold, decay), currents)
    fast = spike_train(LIF(threshold, decay), currents)
    assert torch.equal(leaky, fast)
    assert leaky.dtype == fast.dtype == dtype


@pytest.mark.parametrize("neuron", [Leaky, LIF])
def test_a_voltage_at_the_threshold_does_not_spike(neuron):
    current = torch.tensor([1.0, 1.0 + 1e-6])
    assert spike_train(neuron(1.0, 0.5), [current])[0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("neuron", [Leaky, LIF])
def test_constant_current_spikes_at_the_interval_of_theory(neuron):
    # v_n = I (1 - d^n) / (1 - d) exceeds the threshold 4 first at n = 6 for I = 1, d = 0.9.
    assert (1 - 0.9**5) / 0.1 < 4.2 < (1 - 0.9**6) / 0.1
    train = spike_train(neuron(4.2, 0.9), torch.ones(24, 1))
    assert train.flatten().nonzero().flatten().tolist() == [5, 11, 17, 23]


def test_snntorch_keeps_no_instance_alive():
    before = len(snntorch.SpikingNeuron.instances)
    neurons = [Leaky(1.0, 0.9) for _ in range(5)]
    spike_train(copy.deepcopy(neurons[0]), torch.ones(3, 2))
    assert len(snntorch.SpikingNeuron.instances) == before


def test_a_change_of_shape_is_an_error_and_not_a_silent_reset():
    neuron = Leaky(1.0, 0.9)
    state = neuron.init_state(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="shape"):
        neuron(torch.zeros(2, 4), state)


@pytest.mark.parametrize("neuron", [Leaky, LIF])
@pytest.mark.parametrize(("threshold", "decay"), [(0.0, 0.5), (-1.0, 0.5), (1.0, 1.1), (1.0, -0.1)])
def test_impossible_numbers_are_refused(neuron, threshold, decay):
    with pytest.raises(ConfigError, match=r"must"):
        neuron(threshold, decay)
