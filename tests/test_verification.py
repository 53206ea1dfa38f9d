"""What `verify` says of a conversion is true, and shows where one is bad."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from converters import ConversionError, measure, simulate
from srcsnn.errors import ConfigError, SrcsnnError
from srcsnn.verification import classify, verify
from tests.blobs import LABELS, images, model
from tests.test_cli import command, night

__all__ = ["images", "model", "night"]  # fixtures


def test_rates_follow_activations(model, images):
    found = verify(model, images, seed=0, shown=16, steps=300)
    assert found.difference < 1e-5
    assert [layer.name for layer in found.layers] == ["0", "4"]
    assert [layer.neurons for layer in found.layers] == [6 * 12 * 12, 8 * 4 * 4]
    for layer in found.layers:
        assert 0.9 < layer.correlation <= 1
        assert layer.dead < 0.7
    assert verify(model, images, seed=0, shown=16, steps=300) == found


def test_a_bad_scale_shows(model, images):
    scales = measure(model, images)

    def scaled(factor):
        largest = scales["4"].largest * factor
        bad = scales | {"4": dataclasses.replace(scales["4"], largest=largest)}
        return verify(model, images, seed=0, shown=8, steps=50, scales=bad).layers[1]

    dead = scaled(1e6)
    assert dead.dead == 1
    assert math.isnan(dead.correlation)
    assert scaled(1e-6).saturated > 0.5


def test_the_simulated_copy_computes_the_activations(model, images):
    output, activations = simulate(model, images[:5])
    with torch.no_grad():
        torch.testing.assert_close(output, model(images[:5]))
        torch.testing.assert_close(activations["0"], model[:3](images[:5]))


def test_spikes_classify_what_the_network_classifies(model, images):
    scales = measure(model, images, layers="all")
    given = {"seed": 0, "steps": 100, "scales": scales}
    right = classify(model, images, LABELS, **given)
    assert right > 0.9
    assert classify(model, images, (LABELS + 1) % 4, **given) < 0.25
    with pytest.raises(ConfigError, match="steps=0: must be 1 or more"):
        verify(model, images, seed=0, steps=0)


def test_classes_are_counted_where_a_mean_over_the_image_makes_them(images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 4, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*layers).eval()
    given = {"seed": 0, "steps": 200, "scales": measure(network, images, layers="all")}
    with torch.no_grad():
        classes = network(images).argmax(1)
    assert classify(network, images, classes, **given) > 0.9
    halves = nn.Sequential(*layers[:2], nn.AdaptiveAvgPool2d(2), nn.Flatten()).eval()
    with pytest.raises(ConfigError, match=r"0, the last layer .* has 4 channels, .* 16 classes"):
        classify(halves, images, classes, **given)


class Two(nn.Sequential):
    def forward(self, images):
        scores = super().forward(images)
        return scores, scores


def test_a_network_that_gives_no_tensor_is_refused(images):
    network = Two(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.Flatten())
    with pytest.raises(SrcsnnError, match="gives a tuple; a tensor is needed"):
        verify(network, images, seed=0)


@pytest.mark.parametrize("between", [nn.MaxPool2d(2), nn.ChannelShuffle(2), nn.Flatten()])
def test_rates_are_compared_in_front_of_what_moves_them(between):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 4, 3), between, nn.ReLU(), nn.Flatten())
    images = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    (layer,) = verify(network, images, seed=0, steps=200).layers
    assert layer.neurons == 4 * 6 * 6
    assert layer.correlation > 0.9


def test_what_cannot_be_converted_is_refused(images):
    with pytest.raises(ConversionError, match="ConvTranspose"):
        verify(nn.Sequential(nn.ConvTranspose2d(1, 2, 3), nn.ReLU()), images, seed=0)


def test_the_command_line_verifies(night, capsys):
    words = ["verify", night / "model.pt", "--arch", "paper-mnist", "--data", night / "data.npz"]
    assert command(*words, "--steps", "10", "--classify", "10") == 0
    out = capsys.readouterr().out
    assert "conv2" in out
    assert "by spikes in 10 steps" in out
    assert command(*words, "--layers", "nosuch") == 1
    assert "nosuch" in capsys.readouterr().err
