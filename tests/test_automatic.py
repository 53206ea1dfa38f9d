"""Sleep without hand-set numbers reaches what it promises, and says what it could not reach."""

import copy
import math

import pytest
import torch
from torch import nn

import srcsnn
from converters import conversion
from srcsnn import AutoConfig, load_config, settle
from srcsnn.config import load_settings
from srcsnn.errors import ConfigError, DatasetError, SrcsnnError
from srcsnn.night import run
from srcsnn.plasticity import IncDec
from srcsnn.seeding import stream
from tests.blobs import images, model
from tests.test_cli import command, night

__all__ = ["images", "model", "night"]  # fixtures

QUICK = AutoConfig(steps=20, neuron="lif", keep=0)


def test_every_layer_fires_at_the_target_rate(model, images):
    for rate in (0.02, 0.2):
        config = settle(model, images, QUICK.with_changes(rate=rate), seed=0).config
        snn = srcsnn.prepare(model, images, config)
        counts = dict.fromkeys((layer.name for layer in snn.layers), 0.0)

        def count(name, spikes, counts=counts):
            if name in counts:
                counts[name] += float(spikes.mean()) / 50

        replay = config.make_replay(images.mean(0))
        generator = stream(0, "spikes that it was not calibrated with")
        run(snn, replay, IncDec(0, 0), steps=50, generator=generator, observers=[count])
        assert counts == pytest.approx(
            dict.fromkeys(counts, rate), rel=0.2
        )  # as exactly as 50 steps tell


def test_a_large_layer_whose_first_part_is_silent_gets_a_dose():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 8192), nn.ReLU())
    with torch.no_grad():
        model[2].weight[:4096], model[2].bias[:4096] = 0.0, -1.0
    images = torch.rand(9, 1, 1, 16, generator=torch.Generator().manual_seed(0))
    settled = settle(model, images, QUICK.with_changes(layers="all"), seed=0)
    assert settled.unmoved == ()
    assert settled.config.inc[1] > 0


def test_a_night_of_no_steps_does_nothing(model, images):
    config = settle(model, images, QUICK, seed=0).config
    snn = srcsnn.prepare(model, images, config)
    rules = [IncDec(1, 1)] * len(snn.sleeping)
    generator = stream(0, "sleep")
    before = [unit.synapse.weight.detach().clone() for unit in snn.units]
    assert run(snn, config.make_replay(images.mean(0)), rules, steps=0, generator=generator) == 0
    assert all(torch.equal(u.synapse.weight, w) for u, w in zip(snn.units, before, strict=True))


def test_the_night_ends_at_the_dose_and_all_layers_change_alike(model, images):
    for dose in (0.05, 0.2):
        night = srcsnn.sleep(model, images, QUICK.with_changes(dose=dose), seed=0)
        changes = [layer.change for layer in night.report.layers]
        reached = math.sqrt(sum(change**2 for change in changes) / 2)
        assert dose <= reached < 1.4 * dose
        assert all(dose / 3 < change < 3 * dose for change in changes)
        assert not night.report.misses
    first, last = srcsnn.sleep(
        model, images, QUICK.with_changes(dose=0.1, tilt=9), seed=0
    ).report.layers
    assert first.change == pytest.approx(0.1 / 3, rel=0.5)
    assert last.change == pytest.approx(0.1 * 3, rel=0.5)


def test_the_settings_written_out_give_the_same_bits(model, images, tmp_path):
    night = srcsnn.sleep(model, images, AutoConfig(steps=20), seed=3)
    path = tmp_path / "found.toml"
    path.write_text(night.config.to_toml())
    again = srcsnn.sleep(model, images, path, seed=3)
    assert again.config == night.config
    assert not torch.equal(night.model[0].weight, model[0].weight)
    for name, value in night.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_the_dose_is_halved_until_the_classes_are_kept(model, images):
    def kept(auto):
        slept = srcsnn.sleep(model, images, auto, seed=0).model
        return float((slept(images).argmax(1) == model(images).argmax(1)).float().mean())

    large = QUICK.with_changes(dose=4.0, dec_share=0.2)
    assert kept(large) < 0.9
    assert kept(large.with_changes(keep=0.99)) >= 0.99
    found = settle(model, images, large.with_changes(keep=0.99), seed=0)
    assert found.kept >= 0.99
    assert found.dose in {4.0 / 2**halvings for halvings in range(1, 12)}


def test_images_that_the_network_has_not_seen_keep_their_classes_too(model, images):
    large = QUICK.with_changes(dose=4.0, dec_share=0.2, keep=0.01, keep_shifted=0)
    loose = settle(model, images, large, seed=0)
    strict = settle(model, images, large.with_changes(keep_shifted=1.0), seed=0)
    assert strict.dose < loose.dose == 4.0
    assert loose.kept_shifted < 1 == strict.kept_shifted
    slept = srcsnn.sleep(model, images, strict.config, seed=0).model
    moved = images.roll((1, 1), (2, 3))
    assert torch.equal(slept(moved).argmax(1), model(moved).argmax(1))


def test_a_layer_that_cannot_fire_is_reported_and_not_forced(model, images):
    network = copy.deepcopy(model)
    network[1].bias.data[0] = -100  # so that the only channel that could excite layer 4 is silent
    network[4].weight.data.abs_().neg_()
    network[4].weight.data[:, 0] = 1
    network[4].bias.data.zero_()
    night = srcsnn.sleep(network, images, QUICK, seed=0)
    missed = " | ".join(night.report.warnings)
    assert "4: fires 0.0000 times a step at the best threshold found, not 0.05" in missed
    assert "4: nothing drives a change of its weights" in missed
    assert torch.equal(night.model[4].weight, network[4].weight)
    assert not torch.equal(night.model[0].weight, network[0].weight)


def test_a_network_without_classes_sleeps_if_none_are_watched(model, images):
    maps = model[:6]
    with pytest.raises(SrcsnnError, match=r"\(images, classes\) are needed, or keep = 0"):
        settle(maps, images, QUICK.with_changes(keep=0.9), seed=0)
    assert settle(maps, images, QUICK, seed=0).kept is None


def test_same_seed_same_settings(model, images):
    first = settle(model, images, QUICK, seed=0)
    assert settle(model, images, QUICK, seed=0) == first
    assert settle(model, images, QUICK, seed=1).config != first.config


def test_any_neuron_by_name_is_given_thresholds(model, images):
    auto = QUICK.with_changes(neuron="tests.test_automatic:slow", dose=0.1)
    found = settle(model, images, auto, seed=0)
    assert not found.warnings
    assert found.config.thresholds != settle(model, images, QUICK, seed=0).config.thresholds


def slow(threshold, decay):
    """A neuron that keeps half of its voltage, whatever it is told."""
    return srcsnn.LIF(threshold, 0.5 * decay)


def test_activations_are_measured_once(model, images, monkeypatch):
    measured = []
    whole = conversion.measure_scales
    monkeypatch.setattr(
        conversion, "measure_scales", lambda *given: measured.append(0) or whole(*given)
    )
    srcsnn.sleep(model, images, QUICK, seed=0)
    assert len(measured) == 1


def test_what_auto_cannot_know_is_refused(model, images):
    with pytest.raises(ConfigError, match="auto finds its numbers for the inc/dec rule"):
        srcsnn.sleep(model, images, "auto", seed=0, rule=IncDec(0, 0))
    with pytest.raises(ConfigError, match="see settle"):
        load_config("auto")
    with pytest.raises(ConfigError, match=r"AutoConfig: layers = 'convs': right would be .conv"):
        AutoConfig(layers="convs")
    for odd in ("self", 1):
        with pytest.raises(ConfigError, match=f"the settings: .*unknown setting '{odd}'"):
            load_config({odd: 1})
    with pytest.raises(ConfigError, match=r"unknown setting 'dosis' .did you mean 'dose'"):
        load_settings("auto").with_changes(dosis=1)
    with pytest.raises(ConfigError, match="neuron 'math:pi' is a float; right would be a class"):
        srcsnn.sleep(model, images, QUICK.with_changes(neuron="math:pi"), seed=0)
    with pytest.raises(DatasetError, match="is black"):
        settle(model, torch.zeros(4, 1, 12, 12), QUICK, seed=0)


def test_one_inc_and_dec_for_each_sleeping_layer(model, images):
    found = settle(model, images, QUICK, seed=0).config
    assert len(found.inc) == len(found.dec) == 2
    with pytest.raises(ConfigError, match=r"inc: 3 given for 2 sleeping layers \(0, 4\)"):
        srcsnn.sleep(model, images, found.with_changes(inc=[0, 0, 0]), seed=0)
    with pytest.raises(ConfigError, match=r"3 rules for 2 sleeping layers: 0, 4"):
        srcsnn.sleep(model, images, found, seed=0, rule=[IncDec(0, 0)] * 3)


def test_the_command_line_needs_no_settings(night, tmp_path, capsys):
    words = ["sleep", night / "model.pt", "--arch", "paper-mnist", "--data", night / "data.npz"]
    found, slept, again = (tmp_path / name for name in ("found.toml", "slept.pt", "again.pt"))
    assert command(*words, "-o", slept, "--save-config", found, "--set", "steps=10") == 0
    assert "found: conv1: threshold" in capsys.readouterr().out
    assert command(*words, "-o", again, "--config", found) == 0
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in (slept, again))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert command(*words, "-o", tmp_path / "x.pt", "--save-config", found) == 2
    assert "is there already" in capsys.readouterr().err
