import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import permutation_test, ttest_rel, wilcoxon

from experiments.statistics import compare, holm, stars


def trials(n, seed=0, shift=0.3):
    generator = np.random.default_rng(seed)
    before = generator.normal(size=n)
    return before.tolist(), (before + generator.normal(shift, 1, size=n)).tolist()


@pytest.mark.parametrize("n", [2, 5, 10])
def test_the_interval_is_scipys(n):
    before, after = trials(n)
    found = compare(before, after)
    interval = ttest_rel(after, before).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    differences = np.subtract(after, before)
    assert found.n == n
    assert found.mean == pytest.approx(differences.mean())
    assert found.std == pytest.approx(differences.std(ddof=1))
    assert found.won == sum(b < a for b, a in zip(before, after, strict=True))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("digits", [1, 15])  # with ties, and without
def test_p_is_that_of_scipys_exact_permutation_test(seed, digits):
    before, after = trials(8, seed)
    differences = np.subtract(after, before).round(digits)
    expected = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert compare([0.0] * 8, differences.tolist()).p == pytest.approx(expected.pvalue)


def test_ten_trials_won_have_the_smallest_p_there_is():
    after = [0.1 * trial for trial in range(1, 11)]
    p = compare([0.0] * 10, after).p
    assert p == wilcoxon(after, method="exact").pvalue == 2 / 2**10
    assert compare(after, [0.0] * 10).p == p


def test_equal_trials_differ_in_nothing():
    found = compare([0.7] * 10, [0.7] * 10)
    assert (found.mean, found.std, found.low, found.high, found.p, found.won) == (0, 0, 0, 0, 1, 0)


def test_few_trials_have_no_p_and_one_has_no_spread():
    assert compare([0.0] * 5, [1.0] * 5).p is None
    assert compare([0.0] * 6, [1.0] * 6).p == 2 / 2**6
    single = compare([0.0], [1.0])
    assert (single.std, single.low, single.high, single.p) == (None,) * 4


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        ([1.0], [1.0, 2.0], "pairs"),
        ([], [], "needed"),
        ([0.0] * 21, [1.0] * 21, "needed"),
        ([0.0], [math.nan], "finite"),
    ],
)
def test_what_is_no_set_of_paired_trials_is_refused(before, after, match):
    with pytest.raises(ValueError, match=match):
        compare(before, after)


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_closed_test_with_bonferroni(seed):
    p = (np.random.default_rng(seed).random(5) ** 3).round(2).tolist()  # some of them tie
    everything = [chosen for size in range(1, 6) for chosen in combinations(range(len(p)), size)]
    expected = [
        max(min(1.0, len(s) * min(p[i] for i in s)) for s in everything if index in s)
        for index in range(len(p))
    ]
    assert holm(p) == pytest.approx(expected)


def test_holm_of_nothing_is_nothing_and_of_nonsense_refused():
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([0.5, math.nan])


def test_stars_only_below_their_levels():
    assert [stars(p) for p in (None, 1.0, 0.05, 0.0499, 0.01, 0.0099, 0.0)] == [
        "", "", "", "*", "*", "**", "**",
    ]  # fmt: skip
