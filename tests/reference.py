"""Algorithm 1 in plain loops over NumPy arrays: slow, and easy to check against the paper."""

import itertools

import numpy as np


def positions(size, kernel, stride, padding, dilation):
    """The output positions along one axis."""
    return range((size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)


def conv_pairs(weight_shape, pre_shape, stride, padding, dilation, groups):
    """Every (post index, pre index or None, weight index) of a 2-d convolution, one image.

    The pre index is None where the kernel lies on the padding.
    """
    out, per_group, kernel_rows, kernel_columns = weight_shape
    _, rows, columns = pre_shape
    for o in range(out):
        group = o // (out // groups)
        for y in positions(rows, kernel_rows, stride, padding, dilation):
            for x in positions(columns, kernel_columns, stride, padding, dilation):
                for i, ky, kx in itertools.product(
                    range(per_group), range(kernel_rows), range(kernel_columns)
                ):
                    py = y * stride - padding + ky * dilation
                    px = x * stride - padding + kx * dilation
                    inside = 0 <= py < rows and 0 <= px < columns
                    pre = (group * per_group + i, py, px) if inside else None
                    yield (o, y, x), pre, (o, i, ky, kx)


def linear_pairs(weight_shape):
    """Every (post index, pre index, weight index) of a linear layer."""
    for o, i in itertools.product(*map(range, weight_shape)):
        yield (o,), (i,), (o, i)


def inc_dec(pairs, weight_shape, pre, post, inc, dec):
    """The change of the weights in one step, one image."""
    change = np.zeros(weight_shape)
    for where_post, where_pre, where in pairs:
        if where_pre is not None and post[where_post] == 1:
            change[where] += inc if pre[where_pre] == 1 else -dec
    return change


def gate(weight, width):
    """The factor 2 * (1 - sigmoid(w / width)) of the code of Tadros et al. 2022."""
    return 2 * (1 - 1 / (1 + np.exp(-weight / width)))


def current(pairs, weight, pre, post_shape, alpha):
    """alpha * W * s, one image."""
    total = np.zeros(post_shape)
    for where_post, where_pre, where in pairs:
        if where_pre is not None:
            total[where_post] += alpha * weight[where] * pre[where_pre]
    return total


def fire(voltage, drive, threshold, decay):
    """One step of the neuron: spikes, and the voltage after the reset."""
    voltage = decay * voltage + drive
    spikes = (voltage > threshold).astype(float)
    return spikes, np.where(spikes == 1, 0.0, voltage)


def max_pool(spikes):
    """2x2 max-pooling, a rest is dropped."""
    channels, rows, columns = spikes.shape
    cut = spikes[:, : rows // 2 * 2, : columns // 2 * 2]
    return cut.reshape(channels, rows // 2, 2, columns // 2, 2).max((2, 4))
