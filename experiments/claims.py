"""The paper's claims, each with what ours says to it (Delanois et al. 2023).

What counts as reproduced is stated with each claim and was fixed before the numbers were there: the
sign, and a size within a factor of two where the paper gives one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.paper import GRADIENT_VARIANCE, OVERLAP
from experiments.results import Results, difference

__all__ = ["Claim", "claims"]

REPRODUCED, SIGN, NOT = "reproduced", "in sign only", "not reproduced"
_STRONG = slice(3, None)
"""High intensities: the upper three of six levels."""


@dataclass(frozen=True)
class Claim:
    """A claim, what the paper prints, what we find, and the verdict."""

    number: int
    data: str
    words: str
    paper: str
    ours: str
    verdict: str


def claims(results: Results) -> Iterator[Claim]:
    """Those that can be judged with the finished measures of a data set."""
    for number, (needs, words, judge) in _CLAIMS.items():
        if all(method in results.methods for method in needs):
            found = judge(results)
            if found is not None:
                yield Claim(number, results.study.data, words, *found)


Judgement = tuple[str, str, str] | None


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
    at_chance = {"mnist": ["gaussian-blur"], "cifar10": ["gaussian-noise", "salt-and-pepper"]}
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
    most, where, but = {
        "mnist": (15, "gaussian-noise", ()),
        "cifar10": (10, "speckle", ("gaussian-blur",)),
    }[results.study.data]
    gains = _gains(results, "SRC")
    best = max(gains[where])
    strong = {name: fmean(found[_STRONG]) for name, found in gains.items() if name not in but}
    everywhere = all(
        gain > 0 for name, found in gains.items() if name not in but for gain in found[_STRONG]
    )
    verdict = REPRODUCED if everywhere and best >= most / 2 else NOT
    if verdict is NOT and fmean(strong.values()) > 0:
        verdict = SIGN
    rows = ", ".join(f"{name} {gain:+.1f}" for name, gain in strong.items())
    return (
        f"up to about {most} points on {where}; gains at high intensity",
        f"up to {best:+.1f} on {where}; mean of the upper three levels: {rows}",
        verdict,
    )


def _cost(results: Results) -> Judgement:
    paper = {"mnist": -1.5, "cifar10": -10.0}[results.study.data]
    found = difference(results.clean("SRC"), results.clean("baseline")).mean
    near = 2 * paper <= found <= paper / 2
    verdict = REPRODUCED if near else SIGN if found < 0 else NOT
    return f"about {paper:+g} points clean", f"{found:+.2f}", verdict


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
    own = {"FT-GN": "gaussian-noise", "FT-GB": "gaussian-blur", "FT-SP": "salt-and-pepper"}
    best = {
        name: max(results.methods, key=lambda m, name=name: fmean(results.mean(m, name).values()))  # type: ignore[misc]
        for name in own.values()
    }
    overall = max(results.methods, key=lambda m: fmean(results.mean(m).values()))
    ceiling = all(best[name] in (method, "FT-all") for method, name in own.items())
    verdict = REPRODUCED if ceiling and overall == "FT-all" else SIGN if ceiling else NOT
    rows = ", ".join(f"{name}: {method}" for name, method in best.items())
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
    smaller, ours = [], []
    for layer in results.layers:
        slept = results.gradients("SRC", layer)
        columns = [
            fmean(results.gradients(method, layer)[trial].kl(slept[trial]) for trial in slept)
            for method in ("baseline", "GradExp")
        ]
        smaller.append(columns[1] < columns[0])
        ours.append(f"{layer} {columns[0]:.3g} / {columns[1]:.3g}")
    return (
        "GradExp is nearer to SRC than the baseline, in every layer",
        "; ".join(ours),
        REPRODUCED if all(smaller) else NOT,
    )


def _attention(results: Results) -> Judgement:
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


_CLAIMS: Mapping[int, tuple[tuple[str, ...], str, Callable[[Results], Judgement]]] = {
    1: (("baseline",), "The baseline falls with intensity, to chance.", _falls),
    2: (("SRC",), "Sleep raises accuracy under distortion.", _gain),
    3: (("SRC",), "Sleep costs some clean accuracy.", _cost),
    4: (("SRC", "SRC+FFF"), "Fitting the head afterwards brings it back.", _fitting),
    5: (
        ("FT-GN", "FT-GB", "FT-SP", "FT-all"),
        "Fine-tuning on a distortion is the ceiling on it.",
        _fine_tuning,
    ),
    6: (("GradExp", "GradExp+FFF"), "Expanding gradients without sleep gains nothing.", _expansion),
    7: (("SRC", "GradExp"), "Sleep spreads the filters' spatial gradients.", _variance),
    8: (("SRC", "GradExp"), "GradExp spreads them alike.", _divergence),
    9: (("SRC", "SRC+FFF", "GradExp", "GradExp+FFF"), "Attention moves to the digit.", _attention),
}
