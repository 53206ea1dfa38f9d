"""Whether a method is better than another over paired trials.

Both methods of a trial start from the same trained network and see the same noise, so what is
analysed are the differences.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

__all__ = ["Paired", "compare", "holm", "stars"]

_FEWEST_FOR_P = 6
"""With five trials the smallest p value that can be is 2 / 2**5 = .0625."""

_MOST = 20
"""Trials; a million sign flips."""


@dataclass(frozen=True)
class Paired:
    """What the differences of paired trials, after minus before, say.

    Attributes:
        n: trials.
        mean: of the differences, in their unit.
        std: sample standard deviation (ddof=1) of the differences; None below two trials.
        low: lower end of the 95 % t-interval of the mean difference; None below two trials.
        high: upper end.
        p: two-sided, of the exact sign-flip test; None below six trials, where it cannot be small.
        won: trials with a positive difference.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None
    p: float | None
    won: int


def compare(before: Sequence[float], after: Sequence[float]) -> Paired:
    """Analyses the differences of two methods over the same trials.

    The interval is Student's, since percentile bootstraps are too narrow for ten trials.

    Args:
        before: one number a trial.
        after: the other method's, trials in the same order.

    Raises:
        ValueError: if they are not as many, none, more than 20 (the exact test takes 2**n flips),
            or not finite.

    >>> compare([0.5, 0.25], [1.0, 0.5])
    Paired(n=2, mean=0.375, std=0.1767..., low=-1.2132..., high=1.9632..., p=None, won=2)
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} trials before and {len(after)} after; they come in pairs")
    n = len(before)
    if not 1 <= n <= _MOST:
        raise ValueError(f"{n} paired trials; 1 to {_MOST} are needed")
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise ValueError(f"differences of {differences.tolist()}; all must be finite")
    mean = float(differences.mean())
    std = low = high = None
    if n > 1:
        std = float(differences.std(ddof=1))
        half = float(t.ppf(0.975, n - 1)) * std / math.sqrt(n)
        low, high = mean - half, mean + half
    p = _sign_flip(differences) if n >= _FEWEST_FOR_P else None
    return Paired(n, mean, std, low, high, p, int((differences > 0).sum()))


def holm(p: Sequence[float]) -> list[float]:
    """P values adjusted for their number by Holm's step-down method (1979), in the order given.

    Raises:
        ValueError: if one is outside [0, 1].

    >>> holm([0.25, 0.0625, 0.5])
    [0.5, 0.1875, 0.5]
    """
    if not all(0 <= value <= 1 for value in p):
        raise ValueError(f"p values of {list(p)}; all must be in [0, 1]")
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def stars(p: float | None) -> str:
    """`**` for p < .01, `*` for p < .05, and nothing otherwise or without a p value.

    >>> stars(0.009), stars(0.01), stars(0.05), stars(None)
    ('**', '*', '', '')
    """
    if p is None or p >= 0.05:
        return ""
    return "**" if p < 0.01 else "*"


def _sign_flip(differences: NDArray[np.float64]) -> float:
    """Share of all 2**n ways to sign the differences whose sum is at least as far from zero."""
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate((sums + difference, sums - difference))
    # Sums that are equal on paper differ by rounding, as accuracies do.
    slack = 1e-9 * np.abs(differences).sum()
    return float(np.mean(np.abs(sums) >= abs(differences.sum()) - slack))
