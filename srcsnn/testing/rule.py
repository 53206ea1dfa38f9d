"""What `srcsnn.plastic` needs of a learning rule."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from srcsnn.plasticity import Rule
from srcsnn.synapses import Synapse, synapse_of
from srcsnn.testing.verdict import Faults, judging

__all__ = ["check_rule"]

_STEPS = 10


def check_rule(rule: Rule) -> None:
    """Checks that a rule is what `srcsnn.plastic` needs, on small synapses of each kind.

    It must be pure: the change depends on spikes, weights and state alone. It gives the change and
    leaves weights and spikes as they are.

    Args:
        rule: an object with `init` and `update`, see `srcsnn.Rule`.

    Raises:
        ConformanceError: with everything that was found, one line each.

    >>> from srcsnn import IncDec
    >>> check_rule(IncDec(inc=1e-3, dec=1e-4))
    """
    with torch.random.fork_rng(devices=[]):  # for the weights of the layers
        torch.manual_seed(0)
        layers = (
            (nn.Linear(6, 4), (1, 6)),
            (nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (1, 2, 7, 6)),
            (nn.Conv1d(2, 3, 2, dilation=2), (1, 2, 8)),
        )
    generator = torch.Generator().manual_seed(0)
    with judging(rule, "learning rule", "init", "update") as faults:
        for layer, shape in layers:
            pre = [(torch.rand(shape, generator=generator) < 0.4).float() for _ in range(_STEPS)]
            like = layer(pre[0])
            post = [(torch.rand(like.shape, generator=generator) < 0.4).float() for _ in pre]
            _look(rule, layer, list(zip(pre, post, strict=True)), faults)


def _look(rule: Rule, layer: nn.Module, steps: list[tuple[Tensor, Tensor]], faults: Faults) -> None:
    synapse, (pre, post) = synapse_of(layer), steps[0]
    before = synapse.weight.clone()
    seen = pre.clone(), post.clone()
    updated: Any = rule.update(synapse, *seen, rule.init(synapse))
    if not (isinstance(updated, tuple) and len(updated) == 2):
        faults.add("update must return a pair, (change, state)")
        return
    change = updated[0]
    if not isinstance(change, Tensor) or change.shape != before.shape:
        what = tuple(change.shape) if isinstance(change, Tensor) else type(change).__name__
        faults.add(f"the change is {what} for weights of shape {tuple(before.shape)}")
        return
    if not change.isfinite().all():
        faults.add("the change is not finite")
    if not torch.equal(synapse.weight, before):
        faults.add("it writes into the weights; return the change, which is added for you")
    if not (torch.equal(seen[0], pre) and torch.equal(seen[1], post)):
        faults.add("it writes into the spikes, which belong to the network")
    if not faults:
        _look_for_state(rule, layer, steps, faults)


def _look_for_state(
    rule: Rule, layer: nn.Module, steps: list[tuple[Tensor, Tensor]], faults: Faults
) -> None:
    first = _changes(rule, synapse_of(layer), steps)
    other = copy.deepcopy(layer)
    if not torch.equal(_changes(rule, synapse_of(layer), steps), first):
        faults.add("the same spikes give another change the second time: it keeps state on itself")
    elif not torch.equal(_changes(rule, synapse_of(layer), steps, synapse_of(other)), first):
        faults.add("a second layer of the same object changes the first: it keeps state on itself")


def _changes(
    rule: Rule,
    synapse: Synapse,
    steps: list[tuple[Tensor, Tensor]],
    beside: Synapse | None = None,
) -> Tensor:
    """The changes step by step; with another layer that the same object teaches beside it."""
    state, found = rule.init(synapse), []
    other = rule.init(beside) if beside is not None else None
    for pre, post in steps:
        change, state = rule.update(synapse, pre.clone(), post.clone(), state)
        found.append(change.clone())
        if beside is not None:
            _, other = rule.update(beside, 1 - pre, 1 - post, other)
    return torch.stack(found)
