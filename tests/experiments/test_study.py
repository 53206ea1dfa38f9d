import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from experiments import schedule, study
from experiments.__main__ import main
from experiments.cells import in_order
from experiments.compute import compute
from experiments.images import images_of
from experiments.place import Place
from experiments.store import Ledger, missing
from srcsnn.errors import SrcsnnError
from srcsnn.training import Protocol

TINY = replace(
    study.quick(),
    protocol=Protocol(epochs=1, learning_rate=0.1, batch_size=64),
    distortions={"gaussian-noise": (0.3, 0.6), "gaussian-blur": (2.0, 4.0)},
)
SHORT = ["baseline", "SRC"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return images_of("digits", tmp_path_factory.mktemp("images"))


@pytest.fixture
def place(tmp_path):
    return Place("digits", tmp_path / "study")


def wanted(digits, trials=1, methods=SHORT, changed=TINY):
    return list(study.targets(changed, digits.sha256, range(trials), methods))


def run_all(cells, place, path):
    ledger = Ledger(path)
    schedule.run_here(missing(cells, ledger, place.models), place, ledger, lambda *_: None)
    return ledger


def without_seconds(path):
    """The bytes of a ledger but for how long each cell took."""
    return re.sub(r'"seconds": [0-9.]+', "", path.read_text())


def test_a_finished_study_has_nothing_missing_even_where_its_networks_are_gone(
    digits, place, tmp_path
):
    cells = wanted(digits)
    ledger = run_all(cells, place, tmp_path / "ledger.jsonl")
    assert all(cell in ledger for cell in in_order(cells))
    elsewhere = Place("digits", tmp_path / "elsewhere")
    assert missing(cells, Ledger(ledger.path), elsewhere.models) == []


def test_a_new_distortion_costs_only_its_evaluation_and_a_new_trial_only_its_own_cells(
    digits, place, tmp_path
):
    ledger = run_all(wanted(digits), place, tmp_path / "ledger.jsonl")
    more = replace(TINY, distortions=TINY.distortions | {"salt-and-pepper": (0.1,)})
    new = missing(wanted(digits, changed=more), ledger, place.models)
    evaluations = [cell for cell in new if cell.kind not in ("attention", "trajectory")]
    assert [(c.kind, c.settings["distortion"]) for c in evaluations] == 2 * [
        ("evaluate", "salt-and-pepper")
    ]
    assert {c.trial for c in missing(wanted(digits, trials=2), ledger, place.models)} == {1}


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_lines(digits, place, tmp_path):
    cells = wanted(digits)
    whole = run_all(cells, place, tmp_path / "whole.jsonl")
    other, path = Place("digits", tmp_path / "other"), tmp_path / "broken.jsonl"
    ledger = Ledger(path)
    # Killed between the network of the first cell and its line, and in the middle of the second.
    first, *_ = missing(cells, ledger, other.models)
    compute(first, other)
    (other.folder / ".srcsnn-0.part").write_bytes(b"half a network")
    run_all(cells, other, path)
    assert without_seconds(path) == without_seconds(whole.path)


def test_every_method_gives_what_it_says(digits, place, tmp_path):
    cells = wanted(digits, methods=list(TINY.methods))
    ledger = run_all(cells, place, tmp_path / "ledger.jsonl")
    by_method = {cell.method: place.network(cell) for cell in in_order(cells) if cell.gives_model}
    base = by_method["baseline"]

    def same(one, other, layer):
        weights = (m.get_parameter(f"{layer}.weight") for m in (by_method[one], by_method[other]))
        return torch.equal(*weights)

    assert set(by_method) == {"baseline", "SRC", "SRC+FFF", "GradExp", "GradExp+FFF",
                              "FT-GN", "FT-GB", "FT-all"}  # fmt: skip
    for before in ("SRC", "GradExp"):
        assert not same("baseline", before, "conv1")
        assert same("baseline", before, "fc1")
        assert same(before, f"{before}+FFF", "conv1")
        assert not same(before, f"{before}+FFF", "fc1")
    for tuned in ("FT-GN", "FT-GB", "FT-all"):
        assert not same("baseline", tuned, "conv1")
        assert not same("baseline", tuned, "fc2")
    signs = by_method["GradExp"].conv1.weight.sign() == base.conv1.weight.sign()
    assert signs[base.conv1.weight != 0].all()
    found = {
        (r["method"], r["kind"]): r["result"]
        for r in ledger.records.values()
        if r["kind"] == "gradients"
    }
    for layer in ("conv1", "conv2"):
        expanded, slept, before = (
            found[method, "gradients"][layer]["variance"]
            for method in ("GradExp", "SRC", "baseline")
        )
        assert expanded == pytest.approx(max(slept, before), rel=1e-4)


def test_counts_in_the_ledger_are_those_of_evaluate(digits, place, tmp_path):
    import srcsnn

    cells = wanted(digits, methods=["baseline"])
    ledger = run_all(cells, place, tmp_path / "ledger.jsonl")
    blur = next(c for c in cells if c.settings.get("distortion") == "gaussian-blur")
    network = place.network(blur.inputs[0])
    from srcsnn.distortions import GaussianBlur

    expected = srcsnn.evaluate(
        network, digits.test, digits.test_labels,
        distortions=[GaussianBlur(levels=(2.0, 4.0))], seed=0,
    ).cells[1:]  # fmt: skip
    found = ledger.records[blur.key]["result"]["counts"]
    assert found == [[cell.level, cell.correct, cell.total] for cell in expected]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def dask(workers):
    """The address of a scheduler on the loopback interface, and its workers' processes."""
    address = f"tcp://127.0.0.1:{free_port()}"
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "10s",
    }

    def start(*words):
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *words], env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    port = address.rpartition(":")[2]
    words = ("--host", "127.0.0.1", "--no-dashboard")
    processes = [start("scheduler", "--port", port, *words)]
    try:
        for _ in range(workers):
            processes.append(start("worker", address, "--nthreads", "1", "--no-nanny", *words))
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_cluster_that_loses_a_worker_gives_what_one_process_gives(digits, place, tmp_path):
    cells = wanted(digits, trials=2)
    alone = run_all(cells, place, tmp_path / "alone.jsonl")
    together = Place("digits", tmp_path / "together")
    ledger = Ledger(tmp_path / "together.jsonl")
    done = []
    with dask(workers=2) as (address, workers), schedule.cluster(None, address) as client:

        def finished(cell, record):
            if not done:  # in mid-run
                workers[-1].send_signal(signal.SIGKILL)
            done.append(cell)

        client.wait_for_workers(2, timeout=60)
        schedule.run_on(client, missing(cells, ledger, together.models), together, ledger, finished)
    assert len(done) == len(list(in_order(cells)))
    assert without_seconds(ledger.path) == without_seconds(alone.path)


def test_a_network_is_measured_before_the_next_is_trained(digits, place, tmp_path):
    ledger, done = Ledger(tmp_path / "ledger.jsonl"), []
    cells = missing(wanted(digits, methods=["baseline", "SRC", "FT-GN"]), ledger, place.models)
    with dask(workers=1) as (address, _), schedule.cluster(None, address) as client:
        client.wait_for_workers(1, timeout=60)
        schedule.run_on(client, cells, place, ledger, lambda cell, _: done.append(cell.key))
    assert done == [cell.key for cell in cells]


def test_wrong_words_are_told(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["status", "mnits"])
    assert exit_.value.code == 2
    assert "did you mean 'mnist'" in capsys.readouterr().err


def test_a_second_run_on_the_same_ledger_is_refused(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with (
        ledger.held(),
        pytest.raises(SrcsnnError, match="another run is writing"),
        Ledger(ledger.path).held(),
    ):
        pass


def test_a_network_made_again_with_other_bits_is_refused(digits, place, tmp_path):
    ledger = run_all(wanted(digits), place, tmp_path / "ledger.jsonl")
    record = next(r for r in ledger.records.values() if r["kind"] == "train")
    other = record | {"result": record["result"] | {"weights_sha256": "another"}}
    with pytest.raises(
        SrcsnnError, match="trial 0, baseline: the network came out with other bits"
    ):
        ledger.add(other)


def test_a_cell_of_other_images_is_not_computed(digits, place):
    cell = replace(wanted(digits)[0].inputs[0], sha256="0" * 64)
    with pytest.raises(SrcsnnError, match="the images of digits here are others"):
        compute(cell, place)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cell_that_fails_costs_those_that_need_it_and_no_others(digits, place, tmp_path, workers):
    cells = list(in_order(wanted(digits)))
    broken = replace(cells[0], settings=dict(cells[0].settings) | {"precision": "float8"})
    needs = replace(cells[1], inputs=(broken,))
    other = replace(cells[0], trial=7)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    rest = [broken, needs, other], place, ledger, lambda *_: None
    with ExitStack() as until_the_end:
        run = schedule.run_here
        if workers:
            address, _ = until_the_end.enter_context(dask(workers))
            client = until_the_end.enter_context(schedule.cluster(None, address))
            run = partial(schedule.run_on, client)
        with pytest.raises(SrcsnnError, match="2 of 3 cells failed") as caught:
            run(*rest)
    assert "use float32 or bfloat16" in str(caught.value)
    assert other in ledger


def test_a_night_that_is_looked_at_ends_like_one_that_is_not(digits, place, tmp_path):
    ledger = run_all(wanted(digits), place, tmp_path / "ledger.jsonl")
    found = {r["kind"]: r["result"] for r in ledger.records.values() if r["method"] == "SRC"}
    last = found["trajectory"]["snapshots"][-1]
    slept = {layer["name"]: layer for layer in found["sleep"]["layers"]}
    assert last["step"] == 61
    for name, change in last["change"].items():
        assert change == slept[name]["change"]
        assert last["rate"][name] == slept[name]["rate"]


def test_where_training_is_in_half_precision_the_baseline_can_be_trained_in_float32():
    assert study.EXACT not in study.STUDIES["mnist"].methods
    cifar = study.STUDIES["cifar10"]
    assert study.EXACT in cifar.methods
    cells = {
        method: next(study.targets(cifar, "0" * 64, [0], [method])).inputs[0]
        for method in ("baseline", study.EXACT)
    }
    precisions = {method: cell.settings["precision"] for method, cell in cells.items()}
    assert precisions == {"baseline": "bfloat16", study.EXACT: "float32"}
    assert cells["baseline"].key != cells[study.EXACT].key
