import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import nn

from srcsnn.classifiers import check_takes
from srcsnn.distortions import (
    DISTORTIONS,
    GaussianBlur,
    GaussianNoise,
    SaltAndPepper,
    Speckle,
    default_distortions,
    parse_distortions,
)
from srcsnn.errors import ConfigError, DatasetError, SrcsnnError
from srcsnn.figures import accuracy_figure
from srcsnn.noise import Noise
from srcsnn.robustness import Robustness, evaluate
from srcsnn.training import Protocol, train


def noise(indices, seed=0, name="gaussian-noise", level=0.1):
    return Noise(seed, name, level, indices)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 4, 4), (1, 1, 1)])
def test_an_images_noise_does_not_depend_on_its_batch(kind, shape):
    whole = getattr(noise(range(50)), kind)(shape)
    part = getattr(noise((7, 8, 3, 40)), kind)(shape)
    assert torch.equal(part, whole[[7, 8, 3, 40]])
    assert torch.equal(getattr(noise(range(10, 20)), kind)(shape), whole[10:20])


def test_seed_distortion_level_and_image_each_change_the_noise():
    base = noise(range(2)).normal((64,))
    others = [noise(range(2), seed=1), noise(range(2), name="speckle"), noise(range(2), level=0.2)]
    for other in others:
        assert (other.normal((64,)) != base).all()
    assert (base[0] != base[1]).all()


def test_noise_has_the_distribution_it_says():
    count = 200 * 1000
    normal = noise(range(200)).normal((1000,)).double()
    uniform = noise(range(200)).uniform((1000,)).double()
    # Five standard errors of each estimate.
    assert abs(normal.mean()) < 5 / count**0.5
    assert abs(normal.var() - 1) < 5 * (2 / count) ** 0.5
    assert abs(uniform.mean() - 0.5) < 5 * (1 / 12 / count) ** 0.5
    assert uniform.min() > 0
    assert uniform.max() < 1
    neighbours = (normal[1:] * normal[:-1]).mean()
    assert abs(neighbours) < 5 / (199 * 1000) ** 0.5


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 28, 28), (1, 1, 9, 14)])
@pytest.mark.parametrize("sigma", [1.0, 3.0, 6.0])
def test_blur_is_scipys_with_the_nearest_border(shape, sigma):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    blurred = GaussianBlur()(images, sigma, noise(range(shape[0])))
    expected = gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="nearest")
    np.testing.assert_allclose(blurred.numpy(), expected, atol=1e-5)


def test_salt_and_pepper_hits_its_share_half_each():
    images = torch.full((50, 3, 40, 40), 0.5)
    for per_channel in (False, True):
        hit = SaltAndPepper(per_channel=per_channel)(images, 0.3, noise(range(50)))
        count = 50 * 1600 * (3 if per_channel else 1)
        sigma = (0.15 * 0.85 / count) ** 0.5
        assert abs((hit == 1).double().mean() - 0.15) < 5 * sigma
        assert abs((hit == 0).double().mean() - 0.15) < 5 * sigma
        together = (hit[:, 0] == hit[:, 1]).all()
        assert together != per_channel


def test_speckle_leaves_black_black_and_scales_with_the_pixel():
    images = torch.zeros(20, 1, 50, 50)
    images[..., 25:] = 0.25
    worse = Speckle()(images, 0.5, noise(range(20)))
    assert (worse[..., :25] == 0).all()
    # 0.25 * 0.5 = 0.125; clamping at 0 (2 sigma away) makes it a little smaller.
    assert 0.11 < worse[..., 25:].std() < 0.125


@pytest.mark.parametrize("distortion", DISTORTIONS.values(), ids=lambda d: d.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_distortion_keeps_range_shape_and_dtype(distortion, dtype):
    images = torch.rand(4, 3, 12, 12, dtype=dtype)
    before = images.clone()
    for level in distortion.levels:
        worse = distortion(images, level, noise(range(4), name=distortion.name, level=level))
        assert worse.dtype == dtype
        assert worse.shape == images.shape
        assert worse.min() >= 0
        assert worse.max() <= 1
        assert not torch.equal(worse, images)
    assert torch.equal(images, before)


def test_gaussian_noise_has_the_level_as_standard_deviation():
    worse = GaussianNoise()(torch.full((20, 1, 50, 50), 0.5), 0.1, noise(range(20)))
    assert worse.std() == pytest.approx(0.1, rel=0.02)


def test_the_levels_are_the_papers():
    levels = {name: distortion.levels for name, distortion in DISTORTIONS.items()}
    assert levels == {
        "gaussian-noise": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
        "gaussian-blur": (1, 2, 3, 4, 5, 6),
        "salt-and-pepper": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
        "speckle": (0.25, 0.5, 0.6, 0.75, 0.9, 1.0),
    }
    assert [d.name for d in default_distortions(1)] == list(levels)[:3]
    assert [d.name for d in default_distortions(3)] == list(levels)
    with pytest.raises(ConfigError, match="did you mean 'speckle'"):
        parse_distortions("gn,spekle")
    assert len(parse_distortions("gb,gn,gaussian-blur")) == 2


class Brightness(nn.Module):
    """Two classes: dark and bright."""

    def __init__(self):
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        bright = x.mean((1, 2, 3)) - self.limit
        return torch.stack([-bright, bright], 1)


@pytest.fixture
def data():
    images = torch.rand(30, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return images, (torch.arange(30) % 2)


@pytest.mark.parametrize("ask", [evaluate, check_takes])
def test_every_part_of_a_network_keeps_its_own_mode(data, ask):
    inner = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout())
    model = nn.Sequential(inner, Brightness()).train()
    inner[0].eval()  # frozen statistics
    before = inner[0].running_mean.clone()
    ask(model, *data)
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
    assert torch.equal(inner[0].running_mean, before)


class Broken(nn.Linear):
    """Fails in the way of the error it is given."""

    def __init__(self, error):
        super().__init__(36, 2)
        self.error = error

    def forward(self, images):
        raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("k"), "KeyError: 'k'"),
        (AttributeError("no fc2"), "AttributeError: no fc2"),
        (ValueError("one\ntwo"), "ValueError: one; are"),
        (TypeError(), "TypeError: TypeError"),
    ],
)
@pytest.mark.parametrize("ask", [evaluate, check_takes])
def test_whatever_a_forward_raises_is_told_in_words(data, ask, error, words):
    with pytest.raises(DatasetError, match=f"cannot take images of 1x6x6 .*: {words}"):
        ask(Broken(error), *data)


def test_counts_equal_a_plain_loop_for_any_batch_size(data):
    images, labels = data
    model = Brightness().train()
    result = evaluate(model, images, labels, batch_size=7, seed=3)
    assert result == evaluate(model, images, labels, batch_size=30, seed=3)
    assert model.training
    expected = 0
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        own = Noise(3, "gaussian-noise", 0.4, (index,))
        worse = GaussianNoise()(image[None], 0.4, own)
        expected += int(model(worse).argmax() == label)
    assert result.levels("gaussian-noise")[3].correct == expected
    assert result.cells[0].correct == int((model(images).argmax(1) == labels).sum())
    assert Robustness.from_dict(result.to_dict()) == result
    means = [result.mean(name) for name in result.distortions]
    assert result.mean() == pytest.approx(sum(means) / 3)


def test_bad_labels_and_scores_are_refused(data):
    images, labels = data
    with pytest.raises(DatasetError, match="labels for 30 images"):
        evaluate(Brightness(), images, labels[:4])
    with pytest.raises(DatasetError, match="labels from 0 to 5 for 2 classes"):
        evaluate(Brightness(), images, labels * 5)
    broken = Brightness()
    broken.limit.data.fill_(float("nan"))
    with pytest.raises(SrcsnnError, match="not finite"):
        evaluate(broken, images, labels)
    with pytest.raises(SrcsnnError, match="scores of shape"):
        evaluate(nn.Conv2d(1, 1, 3), images, labels)
    with pytest.raises(SrcsnnError, match="cannot take images"):
        evaluate(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), images, labels)


def test_a_network_may_have_no_parameters(data):
    images, labels = data
    found = evaluate(nn.Flatten(), images, labels, distortions=[])
    assert found.clean == (images.flatten(1).argmax(1) == labels).float().mean()


def test_the_figure_is_written_and_a_bad_suffix_refused(data, tmp_path):
    result = evaluate(Brightness(), *data)
    accuracy_figure({"a": result, "b": result}, tmp_path / "a.png", title="two")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SrcsnnError, match="cannot write the figure"):
        accuracy_figure({"a": result}, tmp_path / "a.what")


def test_a_network_that_writes_to_its_images_changes_nothing():
    class Rude(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            return self.head(x.sub_(0.5).flatten(1))

    images = torch.rand(6, 1, 4, 4)
    before = images.clone()
    evaluate(Rude(), images, torch.zeros(6).long())
    assert torch.equal(images, before)


class Viewing(nn.Module):
    """A network of many, whose `view` cannot take what a channels-last convolution gives."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8 * 9, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        self.layout = x.is_contiguous(memory_format=torch.channels_last)
        return self.head(self.flat(x))

    def flat(self, x):
        return x.view(len(x), -1)


class Flattening(Viewing):
    def flat(self, x):
        return x.flatten(1)


def test_networks_are_measured_in_the_quick_layout_if_they_can():
    torch.manual_seed(0)
    images, labels = torch.rand(40, 3, 8, 8), torch.arange(40) % 3
    usual, quick = Viewing(), Flattening()
    quick.load_state_dict(usual.state_dict())
    assert evaluate(usual, images, labels) == evaluate(quick, images, labels)
    assert (usual.layout, quick.layout) == (False, True)
    protocol = Protocol(epochs=2, learning_rate=0.1, batch_size=10)
    for model in (usual, quick):
        train(model, images, labels, protocol, seed=0)
        assert model.conv.weight.is_contiguous()
    assert (usual.layout, quick.layout) == (False, True)
    for one, other in zip(usual.parameters(), quick.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_distortions_of_one_name_are_refused_and_none_has_no_mean(data):
    twice = [SaltAndPepper(), GaussianNoise(), SaltAndPepper(per_channel=True)]
    with pytest.raises(ConfigError, match="more than one is called salt-and-pepper;"):
        evaluate(Brightness(), *data, distortions=twice)
    with pytest.raises(ConfigError, match="more than one is called clean;"):
        evaluate(Brightness(), *data, distortions=[GaussianNoise(name="clean")])
    assert np.isnan(evaluate(Brightness(), *data, distortions=[]).mean())


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_a_blur_without_width_is_refused(sigma):
    with pytest.raises(ConfigError, match="a sigma must be above 0"):
        GaussianBlur(levels=(sigma, 1.0))


def test_a_distortion_by_name_is_told_how_to_become_one(data):
    with pytest.raises(ConfigError, match=r"'gb' is a word; right would be parse_distortions\('gb"):
        evaluate(Brightness(), *data, distortions=["gb", "gn"])
