from dataclasses import replace

import pytest
import torch

from experiments import schedule, searching, study
from experiments.beyond import search_figure, variant_lines
from experiments.neurons import Adaptive, Synaptic
from experiments.place import Place
from experiments.results import Results
from experiments.searching import search_variant
from experiments.store import Ledger, missing
from srcsnn.config import load_config
from srcsnn.errors import ConfigError
from srcsnn.neurons import LIF
from srcsnn.training import Protocol

TINY = replace(
    study.quick(),
    protocol=Protocol(epochs=3, learning_rate=0.1, batch_size=64),
    distortions={"gaussian-noise": (0.3, 0.6)},
)


@pytest.fixture
def configs(tmp_path, monkeypatch):
    for module in (study, searching):
        monkeypatch.setattr(module, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr("experiments.beyond.CONFIGS", tmp_path / "configs")
    (tmp_path / "configs" / "digits").mkdir(parents=True)
    return tmp_path / "configs" / "digits"


def compute(place, ledger, methods):
    cells = list(study.targets(TINY, place.images.sha256, [0], methods))
    schedule.run_here(missing(cells, ledger, place.models), place, ledger, lambda *_: None)
    return Results(TINY, cells, ledger)


def test_a_search_becomes_a_method_with_a_row_and_a_figure(tmp_path, configs):
    place, ledger = Place("digits", tmp_path / "study"), Ledger(tmp_path / "ledger.jsonl")
    with pytest.raises(ConfigError, match="--methods baseline` first"):
        search_variant(TINY, place, "mine", "conv", 2, tmp_path, lambda *_: None)
    compute(place, ledger, ["baseline"])
    told = []
    layers = ("fc1", "fc2")
    path = search_variant(TINY, place, "mine", layers, 5, tmp_path, lambda *x: told.append(x[1:]))
    assert told == [(n, 5) for n in range(1, 6)]
    config = load_config(path)
    assert path == configs / "mine.toml"
    assert (config.layers, len(config.thresholds), config.neuron) == (layers, 4, "leaky")
    assert TINY.variants == ("SRC-mine", "SRC-mine+FFF")
    results = compute(place, ledger, ["baseline", "SRC", *TINY.variants])
    assert results.methods == ("baseline", "SRC")
    assert results.variants == TINY.variants
    (slept,) = results.networks("SRC-mine")
    assert load_config(slept["settings"]["config"]) == config.with_changes(neuron="lif")
    rows = list(variant_lines(results))[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| SRC", "| SRC-mine", "| SRC-mine+FFF"]
    assert " | fc1, fc2 | leaky | " in rows[1]
    search_figure(tmp_path / "digits-mine.json", tmp_path / "mine.png", "mine")
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", sorted(p.name for p in study.CONFIGS.glob("*/*.toml")))
def test_the_committed_variants_can_be_read(name):
    (path,) = study.CONFIGS.glob(f"*/{name}")
    assert load_config(path).steps > 0


def spike_train(neuron, currents):
    state, spikes = neuron.init_state(torch.zeros(1, 1)), []
    for current in currents:
        fired, state = neuron(torch.full((1, 1), current), state)
        spikes.append(int(fired))
    return spikes


def test_an_adaptive_neuron_tires_and_recovers():
    constant = [1.0] * 40
    leaky = spike_train(LIF(2.9, 1.0), constant)
    adaptive = spike_train(Adaptive(2.9, 1.0), constant)
    assert adaptive[:3] == leaky[:3] == [0, 0, 1]  # rested, it is the same neuron
    assert 0 < sum(adaptive) < sum(leaky)
    # Three steps after a spike the threshold is still 2.9 * (1 + 0.2 * 0.9**2), above 3.
    assert adaptive.index(1, 3) > leaky.index(1, 3)


def test_a_synaptic_neuron_gets_the_same_charge_later():
    pulse = [4.0] + [0.0] * 9
    assert spike_train(LIF(3.5, 1.0), pulse) == [1] + [0] * 9
    # 2, 3, 3.5, 3.75: half of what is left comes in each step.
    assert spike_train(Synaptic(3.5, 1.0), pulse) == [0, 0, 0, 1] + [0] * 6
    assert sum(spike_train(Synaptic(4.0, 1.0), pulse)) == 0
