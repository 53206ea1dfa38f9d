"""The paper's claims, each with what ours says to it (Delanois et al. 2023).

What counts as reproduced is stated with each claim: the sign, and a size within a factor of two
where the paper gives one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.paper import GRADIENT_KL, GRADIENT_VARIANCE, OVERLAP
from experiments.results import Results, difference
from experiments.statistics import Paired
from experiments.study import EXACT, FINE_TUNED, PRINTED

__all__ = ["Claim", "claims"]

REPRODUCED, SIGN, NOT = "reproduced", "in sign only", "not reproduced"
_STRONG = slice(3, None)
"""High intensities: the upper three of six levels."""


@dataclass(frozen=True)
class Claim:
    """A claim, when it counts as reproduced, what the paper prints, what we find, the verdict.

    `n` is the number of networks that it is judged on.
    """

    number: int
    data: str
    words: str
    rule: str
    paper: str
    ours: str
    verdict: str
    n: int


def claims(results: Results) -> Iterator[Claim]:
    """Those that can be judged with the finished measures of a data set."""
    for number, (needs, words, rule, judge) in _CLAIMS.items():
        n = len(_common(results, needs))
        found = judge(results) if n else None
        if found is not None:
            yield Claim(number, results.study.data, words, rule, *found, n)


Judgement = tuple[str, str, str] | None


def _common(results: Results, methods: Sequence[str]) -> list[int]:
    """The trials that all of these methods have."""
    return sorted(set.intersection(*(set(results.trials(method)) for method in methods)))


def _interval(found: Paired) -> str:
    """The mean difference in points, with its 95 % interval where there is one."""
    if found.low is None or found.high is None:
        return f"{found.mean:+.2f}"
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def _gains(results: Results, method: str) -> dict[str, list[float]]:
    """Mean gain over the baseline in points, for each level of each distortion."""
    return {
        name: [
            difference(
                results.accuracy(method, name, level), results.accuracy("baseline", name, level)
            ).mean
            for level in levels
        ]
        for name, levels in results.study.distortions.items()
    }


def _falls(results: Results) -> Judgement:
    at_chance: dict[str, list[str]] = {
        "mnist": ["gaussian-blur"],
        "cifar10": ["gaussian-noise", "salt-and-pepper"],
    }
    curves = {
        name: [fmean(results.accuracy("baseline", name, level).values()) for level in levels]
        for name, levels in results.study.distortions.items()
    }
    falls = all(list(curve) == sorted(curve, reverse=True) for curve in curves.values())
    chance = at_chance.get(results.study.data, [])
    ends = [curves[name][-1] for name in chance]
    verdict = NOT if not falls else REPRODUCED if all(end < 15 for end in ends) else SIGN
    ours = ", ".join(f"{name} {end:.1f} %" for name, end in zip(chance, ends, strict=True))
    return f"10 % at {', '.join(chance)}, strongest", ours, verdict


def _gain(results: Results) -> Judgement:
    printed: dict[str, tuple[int, str, tuple[str, ...]]] = {
        "mnist": (15, "gaussian-noise", ()),
        "cifar10": (10, "speckle", ("gaussian-blur",)),
    }
    if results.study.data not in printed:
        return None
    most, where, but = printed[results.study.data]
    gains = _gains(results, "SRC")
    best = max(gains[where])
    strong = {name: fmean(found[_STRONG]) for name, found in gains.items() if name not in but}
    everywhere = all(
        gain > 0 for name, found in gains.items() if name not in but for gain in found[_STRONG]
    )
    verdict = REPRODUCED if everywhere and most / 2 <= best <= 2 * most else NOT
    if verdict is NOT and fmean(strong.values()) > 0:
        verdict = SIGN
    rows = ", ".join(f"{name} {gain:+.1f}" for name, gain in strong.items())
    return (
        f"up to about {most} points on {where}; gains at high intensity",
        f"up to {best:+.1f} on {where}; mean of the upper three levels: {rows}",
        verdict,
    )


def _cost(results: Results) -> Judgement:
    paper = {"mnist": -1.5, "cifar10": -10.0}.get(results.study.data)
    if paper is None:
        return None
    found = difference(results.clean("SRC"), results.clean("baseline"))
    near = 2 * paper <= found.mean <= paper / 2
    verdict = REPRODUCED if near else SIGN if found.mean < 0 else NOT
    return f"about {paper:+g} points clean", _interval(found), verdict


def _fitting(results: Results) -> Judgement:
    clean = difference(results.clean("SRC+FFF"), results.clean("baseline")).mean
    gains = [
        difference(results.mean(method), results.mean("baseline")).mean
        for method in ("SRC", "SRC+FFF")
    ]
    kept = gains[1] / gains[0] if gains[0] > 0 else 0.0
    verdict = REPRODUCED if abs(clean) <= 0.5 and kept > 0.5 else SIGN if gains[1] > 0 else NOT
    return (
        "clean as the baseline, most of the gain kept",
        f"clean {clean:+.2f}, gain {gains[1]:+.2f} of {gains[0]:+.2f}",
        verdict,
    )


def _fine_tuning(results: Results) -> Judgement:
    own = {
        method: names[0]
        for method, names in FINE_TUNED.items()
        if len(names) == 1 and names[0] in results.study.distortions
    }
    methods = [method for method in results.methods if method not in (PRINTED, EXACT)]
    if not {*own, "FT-all"} <= set(methods):
        return None
    trials = _common(results, methods)

    def best(distortion: str | None, among: Sequence[str]) -> str:
        def mean(method: str) -> float:
            found = results.mean(method, distortion)
            return fmean(found[trial] for trial in trials)

        return max(among, key=mean)

    single = [method for method in methods if method != "FT-all"]
    winners = {name: best(name, single) for name in own.values()}
    overall = best(None, methods)
    ceiling = all(winners[name] == method for method, name in own.items())
    verdict = REPRODUCED if ceiling and overall == "FT-all" else SIGN if ceiling else NOT
    rows = ", ".join(f"{name}: {method}" for name, method in winners.items())
    return "FT-x is best on x, FT-all overall", f"best on {rows}; overall: {overall}", verdict


def _expansion(results: Results) -> Judgement:
    most = max(
        gain
        for method in ("GradExp", "GradExp+FFF")
        for found in _gains(results, method).values()
        for gain in found
    )
    return "less than 1 point at any level", f"{most:+.2f} at most", REPRODUCED if most < 1 else NOT


def _variance(results: Results) -> Judgement:
    if (results.study.data, "conv1") not in GRADIENT_VARIANCE:
        return None
    verdicts, printed, ours = [], [], []
    for layer in results.layers:
        paper = GRADIENT_VARIANCE[results.study.data, layer]
        found = {
            method: fmean(g.variance for g in results.gradients(method, layer).values())
            for method in ("baseline", "SRC", "GradExp")
        }
        grows, expected = found["SRC"] / found["baseline"], paper["SRC"] / paper["baseline"]
        near = 0.5 < (grows - 1) / (expected - 1) < 2
        verdicts.append(REPRODUCED if near else SIGN if grows > 1 else NOT)
        printed.append(f"{layer} " + " / ".join(f"{value:g}" for value in paper.values()))
        ours.append(f"{layer} " + " / ".join(f"{value:.3g}" for value in found.values()))
    return "; ".join(printed), "; ".join(ours), _worst(verdicts)


def _divergence(results: Results) -> Judgement:
    smaller, near, printed, ours = [], [], [], []
    for layer in results.layers:
        if (paper := GRADIENT_KL.get((results.study.data, layer))) is None:
            return None
        slept = results.gradients("SRC", layer)
        columns = []
        for method in ("baseline", "GradExp"):
            fits = results.gradients(method, layer)
            columns.append(fmean(fits[trial].kl(slept[trial]) for trial in slept.keys() & fits))
        smaller.append(columns[1] < columns[0])
        near.append(0.5 < columns[0] / paper["baseline"] < 2)
        printed.append(f"{layer} {paper['baseline']:g} / {paper['GradExp']:g}")
        ours.append(f"{layer} {columns[0]:.3g} / {columns[1]:.3g}")
    verdict = NOT if not all(smaller) else REPRODUCED if all(near) else SIGN
    return "; ".join(printed), "; ".join(ours), verdict


def _attention(results: Results) -> Judgement:
    if results.study.data != "mnist":
        return None
    found = {method: results.overlap(method) for method in OVERLAP if results.overlap(method)}
    if len(found) < len(OVERLAP):
        return None
    means = {method: fmean(values.values()) for method, values in found.items()}
    rises = means["SRC"] > means["SRC+FFF"] > means["baseline"]
    near = 0.5 < (means["SRC"] / means["baseline"] - 1) / (0.229 / 0.145 - 1) < 2
    verdict = REPRODUCED if rises and near else SIGN if means["SRC"] > means["baseline"] else NOT
    return (
        " / ".join(f"{value:g}" for value in OVERLAP.values()),
        " / ".join(f"{value:.3f}" for value in means.values()),
        verdict,
    )


def _worst(verdicts: Sequence[str]) -> str:
    return max(verdicts, key=(REPRODUCED, SIGN, NOT).index)


_CLAIMS: Mapping[int, tuple[tuple[str, ...], str, str, Callable[[Results], Judgement]]] = {
    1: (
        ("baseline",),
        "The baseline falls with intensity, to chance.",
        "falls at every level, below 15 % where the paper has chance",
        _falls,
    ),
    2: (
        ("baseline", "SRC"),
        "Sleep raises accuracy under distortion.",
        "gains at each of the upper three levels of every distortion (CIFAR-10: blur left out), "
        "the best within a factor of two",
        _gain,
    ),
    3: (
        ("baseline", "SRC"),
        "Sleep costs some clean accuracy.",
        "within a factor of two",
        _cost,
    ),
    4: (
        ("baseline", "SRC", "SRC+FFF"),
        "Fitting the head afterwards brings it back.",
        "clean within 0.5 points of the baseline, more than half of the mean gain kept",
        _fitting,
    ),
    5: (
        ("baseline", "FT-all"),
        "Fine-tuning on a distortion is the ceiling on it.",
        "FT-x beats all but FT-all on x, FT-all has the best mean, over the same trials",
        _fine_tuning,
    ),
    6: (
        ("baseline", "GradExp", "GradExp+FFF"),
        "Expanding gradients without sleep gains nothing.",
        "mean gain below 1 point at every level",
        _expansion,
    ),
    7: (
        ("baseline", "SRC", "GradExp"),
        "Sleep spreads the filters' spatial gradients.",
        "growth from baseline to SRC within a factor of two in each layer; GradExp is fitted to "
        "SRC and not judged",
        _variance,
    ),
    8: (
        ("baseline", "SRC", "GradExp"),
        "Gradients after GradExp are nearer to those after sleep.",
        "smaller in each layer (ours by construction: the variance is fitted), baseline's within a "
        "factor of two",
        _divergence,
    ),
    9: (
        ("baseline", "SRC", "SRC+FFF", "GradExp", "GradExp+FFF"),
        "Attention moves to the digit.",
        "SRC above SRC+FFF above baseline, growth to SRC within a factor of two",
        _attention,
    ),
}
