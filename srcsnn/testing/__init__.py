"""Checks that authors run on their own class: what is wrong with it, in words."""

from srcsnn.testing.distortion import check_distortion
from srcsnn.testing.neuron import check_neuron
from srcsnn.testing.recorder import check_recorder
from srcsnn.testing.replay import check_replay
from srcsnn.testing.rule import check_rule

__all__ = ["check_distortion", "check_neuron", "check_recorder", "check_replay", "check_rule"]
