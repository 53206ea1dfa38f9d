"""Local learning rules, written once for every geometry, and the hooks that apply them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from converters import Listener, SpikingNetwork, Unit, listening
from srcsnn.errors import ConfigError, ConformanceError, SleepError
from srcsnn.synapses import Synapse, parts_of, synapse_of

__all__ = ["IncDec", "Oja", "PairSTDP", "Rule", "plastic"]


class Rule(Protocol):
    """How a weight changes after each step, from its own pre and post spikes. Pure.

    A rule with an attribute `in_parts = True` may be asked for some outputs of a large layer after
    the others, each part a synapse with a state of its own, which takes less memory.
    """

    # A state is whatever the rule needs, traces for example; only the rule looks inside.
    def init(self, synapse: Synapse) -> Any:  # noqa: ANN401  # the rule's own kind of state
        """The state before the first step."""

    def update(
        self,
        synapse: Synapse,
        pre: Tensor,
        post: Tensor,
        state: Any,  # noqa: ANN401  # the rule's own kind of state
    ) -> tuple[Tensor, Any]:
        """The change of the weights, of the weights' shape, and the new state.

        Args:
            synapse: the geometry; ask it for counts.
            pre: (B, ...) spikes below, or shares of a pool that spiked, in [0, 1].
            post: (B, ...) spikes of the driven neurons, in {0, 1}.
            state: what `init` or the last update gave.
        """


@dataclass(frozen=True)
class IncDec:
    """`w += inc` where post and pre spiked, `w -= dec` where post spiked and pre was silent.

    Summed over all positions that share a weight. With the counts of coincidences (hits) and of
    post spikes with a pre neuron there (pairs), `dW = inc * hits - dec * (pairs - hits)`.

    With a gate, each change is multiplied by `2 * (1 - sigmoid(w / gate))` of its own weight w: 2
    for a negative weight, 1 at zero, 0 for a positive one, the slope as wide as the gate. Positive
    weights then stay and negative ones move twice as far.

    Source: Delanois et al. 2023, Algorithm 1; `dec` is a magnitude here, subtracted. The gate is
    not printed there; it is in the MATLAB code of Tadros et al. 2022, with 0.001.

    Args:
        inc: 0 or more, in units of the CNN's weights.
        dec: 0 or more, likewise.
        gate: above 0, in units of the CNN's weights; None for no gate.

    Raises:
        ConfigError: if a number is out of its range.
    """

    in_parts: ClassVar[bool] = True

    inc: float
    dec: float
    gate: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("inc", self.inc), ("dec", self.dec)):
            if not value >= 0:
                raise ConfigError(f"{name}={value}: must be 0 or more; dec is a magnitude")
        if self.gate is not None and not self.gate > 0:
            raise ConfigError(f"gate={self.gate}: must be above 0, or None for no gate")

    def init(self, synapse: Synapse) -> None:
        """No state."""

    def update(
        self, synapse: Synapse, pre: Tensor, post: Tensor, state: None
    ) -> tuple[Tensor, None]:
        """See `Rule.update`."""
        change = synapse.hits(pre, post).mul_(self.inc + self.dec)
        change.sub_(synapse.pairs(pre, post), alpha=self.dec)
        if self.gate is not None:
            # 2 * (1 - sigmoid(x)) = 2 * sigmoid(-x), which keeps its digits where it is small.
            change.mul_(synapse.weight.div(-self.gate).sigmoid_()).mul_(2)
        return change, None


@dataclass(frozen=True)
class Oja:
    """`w += rate * post * (pre - w)`: weights go to the share of post spikes that pre joined in.

    Summed over all positions that share a weight. A layer cannot grow without limit, as the second
    term forgets: at rest each weight is the probability of a pre spike given a post spike.

    Source: Oja 1982, J. Math. Biol. 15, equation 3, `dw = rate * y * (x - y * w)`, with spikes for
    x and y, so that `y * y = y`. The weights of a CNN are signed, and the rule pulls them into
    [0, 1]: only small doses make sense.

    Args:
        rate: 0 or more, the share of the way that a post spike moves a weight.
    """

    in_parts: ClassVar[bool] = True

    rate: float

    def __post_init__(self) -> None:
        _check_rates(rate=self.rate)

    def init(self, synapse: Synapse) -> None:
        """No state."""

    def update(
        self, synapse: Synapse, pre: Tensor, post: Tensor, state: None
    ) -> tuple[Tensor, None]:
        """See `Rule.update`."""
        forgotten = synapse.weight * synapse.pairs(pre, post)
        return synapse.hits(pre, post).sub_(forgotten).mul_(self.rate), None


@dataclass(frozen=True)
class PairSTDP:
    """Spike-timing-dependent plasticity of all pairs of spikes, by traces.

    A pre spike leaves a trace, `x <- x * pre_decay + pre`, and so does a post spike, `y`. A post
    spike adds `plus * x`, this step's pre spikes included; a pre spike takes away `minus * y` of
    the post spikes before this step. Summed over all positions that share a weight.

    Source: Song, Miller and Abbott 2000, Nature Neuroscience 3, equation 1, in the online form of
    Morrison, Diesmann and Gerstner 2008, Biol. Cybern. 98, Section 4.1 (all-to-all pairs).

    Args:
        plus: change for a pre spike just before a post spike, 0 or more, in the CNN's units.
        minus: magnitude of the change for a pre spike just after a post spike, 0 or more.
        pre_decay: share of the pre trace kept from step to step, in [0, 1); `exp(-dt / tau)`.
        post_decay: of the post trace.
    """

    plus: float
    minus: float
    pre_decay: float = 0.95
    post_decay: float = 0.95

    def __post_init__(self) -> None:
        _check_rates(plus=self.plus, minus=self.minus)
        for name, value in (("pre_decay", self.pre_decay), ("post_decay", self.post_decay)):
            if not 0 <= value < 1:
                raise ConfigError(f"{name}={value}: must be at least 0 and below 1")

    def init(self, synapse: Synapse) -> tuple[None, None]:
        """Traces, of no shape before the first step."""
        return None, None

    def update(
        self,
        synapse: Synapse,
        pre: Tensor,
        post: Tensor,
        state: tuple[Tensor | None, Tensor | None],
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
        """See `Rule.update`."""
        x, y = state
        x = pre.clone() if x is None else x * self.pre_decay + pre
        before = torch.zeros_like(post) if y is None else y * self.post_decay
        change = synapse.hits(x, post).mul_(self.plus)
        change.sub_(synapse.hits(pre, before), alpha=self.minus)
        return change, (x, before + post)


def _check_rates(**rates: float) -> None:
    for name, value in rates.items():
        if not value >= 0:
            raise ConfigError(f"{name}={value}: must be 0 or more")


@contextmanager
def plastic(snn: SpikingNetwork, rule: Rule | Sequence[Rule]) -> Iterator[None]:
    """Inside this block, every step of the network changes the weights of its sleeping units.

    Each layer learns as soon as it has fired. In one step a weight is read before it is written,
    so this equals letting all layers fire first (Algorithm 1). No gradients are kept inside.

    Args:
        snn: whose weights change, in place.
        rule: for all units that sleep, or one for each, in network order.

    Raises:
        ConfigError: if there is not a rule for each.
        ConformanceError: in a step in which somebody's own rule gives no change of the weights.
        SleepError: in a step in which a rule fails.
    """
    rules = list(rule) if isinstance(rule, Sequence) else [rule] * len(snn.sleeping)
    if len(rules) != len(snn.sleeping):
        raise ConfigError(
            f"{len(rules)} rules for {len(snn.sleeping)} sleeping layers: "
            f"{', '.join(unit.name for unit in snn.sleeping)}"
        )
    with torch.no_grad(), ExitStack() as hooks:
        for unit, own in zip(snn.sleeping, rules, strict=True):
            hear, learn = _hooks(unit, own)
            hooks.enter_context(listening(unit.synapse.listeners, hear))
            hooks.enter_context(listening(unit.neurons.listeners, learn))
        yield


def _hooks(unit: Unit, rule: Rule) -> tuple[Listener, Listener]:
    layer = unit.synapse.operator
    # Ours are tested; to look at every change would cost a small network a part of its step.
    ours = type(rule).__module__.startswith("srcsnn.")
    synapses = parts_of(layer) if getattr(rule, "in_parts", False) else [synapse_of(layer)]
    outputs = [len(synapse.weight) for synapse in synapses]
    axis = -1 if isinstance(layer, nn.Linear) else 1  # of the outputs, in post spikes
    states = [rule.init(synapse) for synapse in synapses]
    pre: Tensor | None = None

    def hear(spikes: Tensor) -> None:
        nonlocal pre
        pre = spikes

    def learn(post: Tensor) -> None:
        nonlocal pre
        assert pre is not None  # the synapse drives these neurons
        fired = torch.split(post, outputs, axis) if len(outputs) > 1 else (post,)
        for index, synapse in enumerate(synapses):
            try:
                updated = rule.update(synapse, pre, fired[index], states[index])
                if not ours:
                    _check_update(unit.name, updated, synapse.weight)
                change, states[index] = updated
                # Refused of a branch whose output is stretched to be added to another.
                synapse.weight.add_(change)
            except RuntimeError as error:
                raise SleepError(
                    f"{unit.name}: the rule fails on pre spikes {tuple(pre.shape)} and post "
                    f"spikes {tuple(post.shape)}: {error}"
                ) from error
        pre = None  # nothing outlives the step

    return hear, learn


def _check_update(name: str, updated: object, weight: Tensor) -> None:
    """Raises ConformanceError unless somebody's own rule gave a change of these weights."""
    if not (isinstance(updated, tuple) and len(updated) == 2 and isinstance(updated[0], Tensor)):
        raise ConformanceError(f"{name}: the rule must give a pair, the change and its new state")
    change = updated[0]
    if change.shape != weight.shape:  # which addition would stretch, or refuse without a name
        raise ConformanceError(
            f"{name}: the rule's change has shape {tuple(change.shape)}, the weights "
            f"{tuple(weight.shape)}"
        )
    if not change.isfinite().all():
        raise ConformanceError(f"{name}: the rule's change is NaN or infinite")
