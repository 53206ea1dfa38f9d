"""The numbers of a study, read out of its ledger: one tidy table, and look-ups for the report."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.cells import Cell, in_order
from experiments.gradients import Gaussian
from experiments.statistics import Paired, compare
from experiments.store import Ledger, Record
from experiments.study import Study
from srcsnn.robustness import CLEAN

__all__ = ["Results", "difference", "tidy"]

_COLUMNS = (
    "data", "method", "distortion", "level", "trial", "correct", "total", "seed", "network",
    "python", "torch", "snntorch", "numpy", "commit", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Results:
    """Finished measures of a study.

    Attributes:
        study: what was measured.
        cells: the measures that the study wants, finished or not.
        ledger: the finished ones.
    """

    study: Study
    cells: Sequence[Cell]
    ledger: Ledger

    def records(self, kind: str, method: str) -> Iterator[Record]:
        """The finished measures of a kind and a method, by trial."""
        for cell in self.cells:
            if cell.kind == kind and cell.method == method and cell in self.ledger:
                yield self.ledger.records[cell.key]

    def networks(self, method: str) -> Iterator[Record]:
        """How the networks of a method were made, by trial."""
        for cell in in_order(self.cells):
            if cell.gives_model and cell.method == method and cell in self.ledger:
                yield self.ledger.records[cell.key]

    def cost(self, method: str) -> dict[int, tuple[float, int]]:
        """By trial: seconds, and passes over the training set, from the baseline to this method."""
        found = {}
        for cell in in_order(self.cells):
            if cell.gives_model and cell.method == method:
                steps = [each for each in in_order([cell]) if each.kind != "train"] or [cell]
                if all(each in self.ledger for each in steps):
                    seconds = sum(self.ledger.records[each.key]["seconds"] for each in steps)
                    found[cell.trial] = seconds, sum(map(_passes, steps))
        return found

    @property
    def methods(self) -> tuple[str, ...]:
        """The paper's that have a finished evaluation of every distortion, in its order."""
        return tuple(
            name
            for name in self.study.methods
            if name not in self.study.variants and self.trials(name)
        )

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of sleep that have a finished evaluation of every distortion."""
        return tuple(name for name in self.study.variants if self.trials(name))

    def trials(self, method: str) -> tuple[int, ...]:
        """Trials of which every distortion is evaluated."""
        found: dict[int, int] = {}
        for record in self.records("evaluate", method):
            found[record["trial"]] = found.get(record["trial"], 0) + 1
        whole = 1 + len(self.study.distortions)
        return tuple(sorted(trial for trial, count in found.items() if count == whole))

    def accuracy(self, method: str, distortion: str, level: float) -> dict[int, float]:
        """By trial, in percent."""
        trials = self.trials(method)
        return {
            record["trial"]: 100 * correct / total
            for record in self.records("evaluate", method)
            if record["settings"]["distortion"] == distortion and record["trial"] in trials
            for at, correct, total in record["result"]["counts"]
            if at == level
        }

    def mean(self, method: str, distortion: str | None = None) -> dict[int, float]:
        """Mean accuracy over the levels of a distortion, or over the distortions; by trial."""
        names = [distortion] if distortion else list(self.study.distortions)
        found: dict[int, float] = {}
        for name in names:
            for level in self.study.distortions[name]:
                share = 1 / (len(names) * len(self.study.distortions[name]))
                for trial, accuracy in self.accuracy(method, name, level).items():
                    found[trial] = found.get(trial, 0.0) + share * accuracy
        return found

    def clean(self, method: str) -> dict[int, float]:
        """Accuracy on undistorted images by trial, in percent."""
        return self.accuracy(method, CLEAN, 0.0)

    def gradients(self, method: str, layer: str) -> dict[int, Gaussian]:
        """The Gaussian fitted to a layer's spatial gradients, by trial."""
        return {
            record["trial"]: Gaussian(**record["result"][layer])
            for record in self.records("gradients", method)
        }

    @property
    def layers(self) -> tuple[str, ...]:
        """The convolutions, in order."""
        first = next(self.records("gradients", "baseline"), None)
        return tuple(first["result"]) if first else ()

    def overlap(self, method: str) -> dict[int, float]:
        """Mean overlap of attention with the digit over distortions and levels, by trial."""
        found = {}
        for record in self.records("attention", method):
            rows = record["result"]["overlap"].values()
            found[record["trial"]] = sum(sum(row) / len(row) for row in rows) / len(rows)
        return found


def _passes(cell: Cell) -> int:
    epochs: int = cell.settings.get("protocol", {}).get("epochs", 0)
    return 7 * epochs if cell.kind == "fine-tune" else epochs


def difference(after: Mapping[int, float], before: Mapping[int, float]) -> Paired:
    """The paired comparison over the trials that both have."""
    both = sorted(set(before) & set(after))
    return compare([before[trial] for trial in both], [after[trial] for trial in both])


def tidy(results: Results) -> str:
    """All counts as CSV: a row for each level of each distortion of each network."""
    text = io.StringIO()
    table = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    table.writeheader()
    for method in dict.fromkeys(cell.method for cell in results.cells):
        for record in results.records("evaluate", method):
            table.writerows(_rows(record))
    return text.getvalue()


def _rows(record: Record) -> Iterator[dict[str, Any]]:  # Any: cells of CSV
    for level, correct, total in record["result"]["counts"]:
        yield {
            "data": record["data"],
            "method": record["method"],
            "distortion": record["settings"]["distortion"],
            "level": level,
            "trial": record["trial"],
            "correct": correct,
            "total": total,
            "seed": record["trial"],
            "network": record["inputs"][0],
            **{name: record["versions"].get(name, "") for name in _COLUMNS[9:14]},
            "seconds": record["seconds"],
        }
