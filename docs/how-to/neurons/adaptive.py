"""A leaky neuron whose threshold rises with every spike and falls back."""

import torch


class Adaptive:
    rise, recovery = 0.2, 0.9

    def __init__(self, threshold, decay):
        self.threshold, self.decay = threshold, decay

    def init_state(self, current):
        return torch.zeros_like(current), torch.zeros_like(current)

    def __call__(self, current, state):
        voltage, adaptation = state
        voltage = self.decay * voltage + current
        spikes = (voltage > self.threshold * (1 + adaptation)).to(current.dtype)
        adaptation = self.recovery * adaptation + self.rise * spikes
        return spikes, (voltage * (1 - spikes), adaptation)
