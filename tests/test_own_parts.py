"""Rules, sources and distortions that users bring: sound ones and broken ones."""

import pytest
import torch

import srcsnn
from srcsnn.distortions import DISTORTIONS, GaussianNoise
from srcsnn.errors import ConformanceError
from srcsnn.models import paper_mnist
from srcsnn.plasticity import IncDec
from srcsnn.replay import PoissonMean
from srcsnn.testing import check_distortion, check_replay, check_rule
from srcsnn.training import initialize


class Traces:
    """A rule with a state: pre spikes of the last steps count, fading."""

    def init(self, synapse):
        return None

    def update(self, synapse, pre, post, state):
        state = pre if state is None else 0.5 * state + pre
        return 1e-3 * synapse.hits(state.clamp(max=1), post), state


@pytest.mark.parametrize("rule", [IncDec(1e-3, 1e-4), IncDec(1e-3, 1e-4, gate=0.01), Traces()])
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


def test_a_sleep_names_the_layer_whose_change_has_another_shape():
    class Short(Traces):
        def update(self, synapse, pre, post, state):
            return torch.zeros(1), state

    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ConformanceError, match=r"conv1: the rule's change has shape \(1,\)"):
        srcsnn.sleep(initialize(paper_mnist, 0), images, "paper-mnist", seed=0, rule=Short())


def test_a_sound_source_passes():
    check_replay(PoissonMean(torch.rand(2, 5, 5), max_rate_hz=300.0, dt_s=0.001))


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
