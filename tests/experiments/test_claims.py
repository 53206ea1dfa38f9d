"""Verdicts on hand-made numbers: each claim must be able to come out all three ways."""

import pytest

from experiments.claims import claims
from experiments.results import Results, tidy
from experiments.store import Ledger
from experiments.study import STUDIES, targets

METHODS = ("baseline", "SRC", "SRC+FFF", "GradExp", "GradExp+FFF")


def made_up(tmp_path, trials=2, **changed):
    """An MNIST study whose counts fall by 1,600 a level, plus what a method adds.

    `changed` maps a method to what it adds to the clean count, to every distorted one, and to the
    variance of the gradients and the overlap, as factors.
    """
    study = STUDIES["mnist"]
    cells = list(targets(study, "0" * 64, range(trials), METHODS))
    ledger = Ledger(tmp_path / "mnist.jsonl")
    for cell in cells:
        more = changed.get(cell.method.replace("+", "_"), {})
        if cell.kind == "evaluate":
            name, levels = cell.settings["distortion"], cell.settings["levels"]
            counts = [
                [level, 9600 + more.get("clean", 0) - cell.trial, 10_000]
                if name == "clean"
                else [level, max(1000, 9600 - 1600 * rank) + more.get("worse", 0), 10_000]
                for rank, level in enumerate(levels)
            ]
            result = {"counts": counts}
        elif cell.kind == "gradients":
            variance = 0.01 * more.get("variance", 1.0)
            result = {n: {"mean": 0.0, "variance": variance} for n in ("conv1", "conv2")}
        elif cell.kind == "trajectory":
            continue
        else:
            row = [0.14 * more.get("overlap", 1.0)] * 6
            result = {"layer": "conv2", "overlap": dict.fromkeys(study.distortions, row)}
        versions = dict.fromkeys(("python", "torch", "snntorch", "numpy", "commit"), "1")
        ledger.records[cell.key] = {
            "key": cell.key, "kind": cell.kind, "data": "mnist", "data_sha256": "0" * 64,
            "trial": cell.trial, "method": cell.method, "settings": dict(cell.settings),
            "inputs": [c.key for c in cell.inputs], "result": result, "seconds": 1.0,
            "versions": versions,
        }  # fmt: skip
    return Results(study, cells, ledger)


def verdicts(results):
    return {claim.number: claim.verdict for claim in claims(results)}


def test_numbers_like_the_papers_are_reproduced(tmp_path):
    found = verdicts(
        made_up(
            tmp_path,
            SRC={"clean": -150, "worse": 1500, "variance": 3.0, "overlap": 1.6},
            SRC_FFF={"clean": 0, "worse": 1000, "overlap": 1.3},
            GradExp={"worse": 50, "variance": 2.9},
        )
    )
    assert {n: found[n] for n in (2, 3, 4, 6, 9)} == dict.fromkeys((2, 3, 4, 6, 9), "reproduced")


@pytest.mark.parametrize(
    ("number", "changed", "verdict"),
    [
        (2, {"SRC": {"worse": 100}}, "in sign only"),
        (2, {"SRC": {"worse": 6000}}, "in sign only"),
        (2, {"SRC": {"worse": -100}}, "not reproduced"),
        (3, {"SRC": {"clean": -900}}, "in sign only"),
        (3, {"SRC": {"clean": 10}}, "not reproduced"),
        (4, {"SRC": {"worse": 900}, "SRC_FFF": {"worse": 100}}, "in sign only"),
        (4, {"SRC": {"worse": 900}, "SRC_FFF": {"worse": -100}}, "not reproduced"),
        (6, {"GradExp": {"worse": 150}}, "not reproduced"),
        (7, {"SRC": {"variance": 1.01}}, "in sign only"),
        (7, {"SRC": {"variance": 0.9}}, "not reproduced"),
        (8, {"SRC": {"variance": 3.0}, "GradExp": {"variance": 0.5}}, "not reproduced"),
        (8, {"SRC": {"variance": 9.0}, "GradExp": {"variance": 8.9}}, "in sign only"),
        (9, {"SRC": {"overlap": 1.05}}, "in sign only"),
        (9, {"SRC": {"overlap": 0.5}}, "not reproduced"),
    ],
)
def test_other_numbers_are_not(tmp_path, number, changed, verdict):
    assert verdicts(made_up(tmp_path, **changed))[number] == verdict


def test_a_trial_that_is_not_finished_is_left_out(tmp_path):
    results = made_up(tmp_path)
    for kind in ("gradients", "evaluate"):
        key = next(c.key for c in results.cells if (c.kind, c.method) == (kind, "GradExp"))
        del results.ledger.records[key]
    assert results.trials("GradExp") == (1,)
    assert {claim.number: claim.n for claim in claims(results)}[6] == 1


def test_counts_as_csv_have_a_row_for_each_level_of_each_network(tmp_path):
    rows = tidy(made_up(tmp_path)).splitlines()
    assert rows[0].startswith("data,method,distortion,level,trial,correct,total,seed")
    assert len(rows) == 1 + 2 * len(METHODS) * (1 + 3 * 6)
    assert rows[1].startswith("mnist,baseline,clean,0.0,0,9600,10000,0,")
