"""How unlike neighbouring weights of a convolution are (Delanois et al. 2023, Tables III to V).

Sleep spreads the spatial gradients of the filters. GradExp spreads them as much without any replay,
as a control.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Gaussian", "expand", "fit_gradient", "matching_expansion", "spatial_gradient"]

_TOLERANCE = 1e-6
"""Relative, of the expansion that `matching_expansion` finds."""


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution in one dimension."""

    mean: float
    variance: float

    def kl(self, other: "Gaussian") -> float:
        """Kullback-Leibler divergence of `self` from `other`, KL(self || other), in nats.

        Raises:
            ValueError: if one of the variances is not positive.

        >>> before, after = Gaussian(0, 0.0106), Gaussian(0, 0.0436)
        >>> round(before.kl(after), 3), before.kl(before)
        (0.329, 0.0)
        """
        if not (self.variance > 0 and other.variance > 0):
            raise ValueError(
                f"variances of {self.variance} and {other.variance} have no divergence; both must "
                "be positive"
            )
        ratio = self.variance / other.variance
        shift = (self.mean - other.mean) ** 2 / other.variance
        return (ratio - 1 - math.log(ratio) + shift) / 2


def spatial_gradient(weight: Tensor) -> Tensor:
    """Differences of neighbouring weights along both spatial axes.

    As `numpy.gradient` takes them: half the difference of the two neighbours, and at the border the
    difference to the only one.

    Args:
        weight: (out, in, kH, kW).

    Returns:
        All of them, (2 * out * in * kH * kW,) in float64: along kH, then along kW.

    Raises:
        ValueError: if the weight has another shape, or a filter is less than 2 wide or high.

    >>> spatial_gradient(torch.tensor([[[[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]]]]))
    tensor([0., 0., 0., 0., 0., 0., 1., 2., 3., 1., 2., 3.], dtype=torch.float64)
    """
    if weight.dim() != 4 or min(weight.shape[2:]) < 2:
        raise ValueError(
            f"a weight of shape {tuple(weight.shape)} has no spatial gradient; (out, in, height, "
            "width) is needed, with filters of 2x2 or more"
        )
    along = torch.gradient(weight.detach().double(), dim=(2, 3))
    return torch.cat([differences.flatten() for differences in along])


def fit_gradient(weight: Tensor) -> Gaussian:
    """Mean and population variance of the weight's `spatial_gradient`; raises as that does."""
    gradient = spatial_gradient(weight)
    return Gaussian(float(gradient.mean()), float(gradient.var(correction=0)))


def expand(weight: Tensor, by: float) -> Tensor:
    """GradExp: each weight moved away from zero by `by`; zero counts as positive.

    >>> expand(torch.tensor([-1.0, 0.0, 2.0]), 0.5)
    tensor([-1.5000,  0.5000,  2.5000])
    """
    return torch.where(weight >= 0, weight + by, weight - by)


def matching_expansion(weight: Tensor, target: Gaussian) -> float:
    """The expansion that gives the weight's spatial gradient the target's variance.

    Args:
        weight: (out, in, kH, kW).
        target: only its variance matters, since the mean is not free.

    Returns:
        `by` for `expand`, found by bisection to a relative 1e-6; 0 if the weight's gradient varies
        as much as the target already.

    Raises:
        ValueError: if the weight has no spatial gradient, if no expansion reaches the variance
            since all weights of each filter have the same sign, or if numbers are not finite.
    """
    weight = weight.detach().double()
    start = fit_gradient(weight).variance
    if not (math.isfinite(start) and math.isfinite(target.variance)):
        raise ValueError(
            f"cannot expand from a gradient variance of {start} to one of {target.variance}; both "
            "must be finite"
        )
    if start >= target.variance:
        return 0.0
    if fit_gradient(torch.where(weight >= 0, 1.0, -1.0)).variance == 0:  # exact for such numbers
        raise ValueError(
            f"no expansion brings the gradient variance of {start:.3g} to {target.variance:.3g}: "
            "the weights of each filter all have the same sign, so expanding only shifts them"
        )

    def reached(by: float) -> bool:
        return fit_gradient(expand(weight, by)).variance >= target.variance

    # The variance is a parabola in `by` that opens upwards and begins below the target: it meets
    # the target once.
    low, high = 0.0, 1.0
    while not reached(high):
        low, high = high, 2 * high
    while high - low > _TOLERANCE * high:
        middle = (low + high) / 2
        if reached(middle):
            high = middle
        else:
            low = middle
    return (low + high) / 2
