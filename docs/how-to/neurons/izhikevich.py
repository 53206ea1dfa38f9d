"""Izhikevich's regular spiking neuron (2003, IEEE Transactions on Neural Networks 14(6))."""

import torch


class Izhikevich:
    a, b, c, d = 0.02, 0.2, -65.0, 8.0  # per ms, -, mV, mV per ms
    gain = 10.0  # what drives it, in Izhikevich's units, while its input is at `threshold`

    def __init__(self, threshold, decay):
        self.threshold, self.decay = threshold, decay

    def init_state(self, current):
        rest = torch.full_like(current, -65.0)  # mV
        return rest, self.b * rest, torch.zeros_like(current)

    def __call__(self, current, state):
        v, u, flowing = state
        flowing = self.decay * flowing + current  # spikes below last one step, currents fade
        drive = self.gain * flowing / self.threshold
        for _ in range(2):  # half a millisecond each, for numerical stability (as published)
            v = v + 0.5 * (0.04 * v * v + 5 * v + 140 - u + drive)
        v = v.clamp(-100.0, 30.0)  # a strong input ends a half step beyond all bounds
        u = u + self.a * (self.b * v - u)
        fired = v >= 30.0
        u = torch.where(fired, u + self.d, u)
        return fired.to(current.dtype), (torch.where(fired, self.c, v), u, flowing)
