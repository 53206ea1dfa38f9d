import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from srcsnn import AutoConfig
from srcsnn.config import load_config
from srcsnn.datasets import load_images
from srcsnn.distortions import GaussianNoise
from srcsnn.errors import ConfigError, DatasetError, SleepError, SrcsnnError
from srcsnn.models import PaperCNN, paper_mnist
from srcsnn.robustness import Cell, Robustness
from srcsnn.training import Protocol, fit_head, fit_norms, initialize, train
from srcsnn.tuning import (
    SPACE,
    Candidate,
    Range,
    Search,
    confirm,
    finals,
    fitted,
    search,
    space_of,
    splits,
    tryout,
    tuned,
)  # fmt: skip
from srcsnn.tuning.splits import split

START = load_config("paper-mnist").with_changes(steps=12, thresholds=[0.5, 1.5])
SMALL = dict(SPACE) | {"steps": Range(5, 15, whole=True)}
NOISE = dataclasses.replace(GaussianNoise(), levels=(0.2, 0.5))


@pytest.fixture(scope="module")
def digits():
    images = torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(60) % 10


class Negative(PaperCNN):
    def forward(self, images):
        return super().forward(1 - images)


def look(digits, seed=0, trials=9, start=START, model=None, **options):
    model = initialize(paper_mnist, 0) if model is None else model
    given = {"distortions": [NOISE], "validation": 40, "population": 4, "space": SMALL}
    return search(model, *digits, start, trials=trials, seed=seed, **given | options)


def test_the_same_seed_gives_the_same_search(digits):
    first = look(digits)
    assert first == look(digits)
    assert len(first.candidates) == 9
    assert len({candidate.config for candidate in first.candidates}) > 5
    assert first.candidates[1:] != look(digits, seed=1).candidates[1:]


def test_the_settings_given_are_tried_first_and_what_is_not_searched_stays(digits):
    told = []
    found = look(digits, trials=5, progress=lambda *what: told.append(what))
    first = found.candidates[0].config
    assert first == START.with_changes(neuron="lif")
    assert [what[1:] for what in told] == [(n, 5) for n in range(1, 6)]
    assert told[3][0] == found.candidates[3]
    for candidate in found.candidates:
        assert candidate.config.gate == START.gate
        assert 5 <= candidate.config.steps <= 15
        assert all(0.5 <= threshold <= 50 for threshold in candidate.config.thresholds)
    only = look(digits, trials=4, space={"decay": SPACE["decay"]})
    assert {candidate.config.steps for candidate in only.candidates} == {12}
    assert len({candidate.config.decay for candidate in only.candidates}) == 4


def test_the_best_keeps_its_clean_accuracy(digits):
    baseline = look(digits, trials=1).baseline
    low, high = baseline.clean - 0.5, baseline.clean
    tried = (Candidate(START, low, 0.9), Candidate(START, high, 0.5), Candidate(START, high, 0.6))
    assert Search(baseline, tried, clean_loss=0.02).best == tried[2]
    assert Search(baseline, tried, clean_loss=1.0).best == tried[0]
    assert Search(baseline, tried[:1], clean_loss=0.02).best is None


def test_it_measures_a_part_of_the_training_images_under_noise_of_its_own(digits, monkeypatch):
    seen = []

    def evaluate(network, images, labels, *, distortions, seed):
        seen.append((images, labels, seed))
        return real_evaluate(network, images, labels, distortions=distortions, seed=seed)

    real_evaluate = tryout.evaluate
    monkeypatch.setattr(tryout, "evaluate", evaluate)
    monkeypatch.setattr(splits, "FIT_IMAGES", 5)
    look(digits, trials=2)
    assert len(seen) == 6  # the baseline and two candidates, each without and with distortions
    images, labels, seed = seen[0]
    assert images.shape == (55, 1, 28, 28)
    for kind, count in ((0, 55), (1, 40)):
        for other, others, noise in seen[kind::2]:
            assert torch.equal(other, images[:count])
            assert torch.equal(others, labels[:count])
            assert noise == seed
    where = (digits[0][:, None] == images[None]).flatten(2).all(2).nonzero()
    assert len(where) == 55  # each of them is a training image, with its own label
    assert torch.equal(digits[1][where[:, 0]], labels[where[:, 1]])
    fitting = split(len(digits[0]), 40, seed=0).fitting
    assert len(fitting) == 5
    assert not set(fitting.tolist()) & set(where[:, 0].tolist())  # nor are heads fitted to any
    assert seed > 2**32  # seeds of trials, under which test images are measured, are small


def test_weights_or_scores_that_blow_up_are_an_answer(digits, monkeypatch):
    def sleep(*arguments, **options):
        raise SleepError("conv1: weights are not finite after sleep")

    with monkeypatch.context() as patch:
        patch.setattr(tryout, "sleep", sleep)
        found = look(digits, trials=3)
    assert [(each.clean, each.mean) for each in found.candidates] == [(0.0, 0.0)] * 3
    assert {each.failure for each in found.candidates} == {
        "conv1: weights are not finite after sleep"
    }
    assert found.best is None
    # Finite weights that are too large for the layers behind them.
    large = dict.fromkeys(("inc", "dec"), Range(1e25, 1e27))
    last = look(digits, trials=3, space=large).candidates[-1]
    assert (last.clean, last.mean) == (0.0, 0.0)
    assert "scores are not finite" in last.failure


def test_a_stopped_search_goes_on_to_the_same_end(digits, tmp_path, monkeypatch):
    unbroken = look(digits)
    study = tmp_path / "study.db"
    real_evaluate, left = tryout.evaluate, 6  # the baseline and five candidates

    def evaluate(*arguments, **options):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return real_evaluate(*arguments, **options)

    monkeypatch.setattr(tryout, "evaluate", evaluate)
    with pytest.raises(KeyboardInterrupt):
        look(digits, study=study)
    monkeypatch.setattr(tryout, "evaluate", real_evaluate)
    assert look(digits, trials=5, study=study).candidates == unbroken.candidates[:5]
    assert look(digits, study=study) == unbroken


def test_a_study_of_something_else_is_refused(digits, tmp_path):
    study = tmp_path / "study.db"
    look(digits, trials=1, study=study)
    with pytest.raises(ConfigError, match=r"another search: seed differ"):
        look(digits, trials=1, study=study, seed=1)
    other = digits[0].flip(3), digits[1]
    with pytest.raises(ConfigError, match=r"another search: images differ"):
        look(other, trials=1, study=study)
    negative = Negative(channels=(1, 10, 20), features=(500, 64, 10), dropout=0.5)
    negative.load_state_dict(initialize(paper_mnist, 0).state_dict())
    with pytest.raises(ConfigError, match=r"another search: network differ"):
        look(digits, trials=1, study=study, model=negative)
    negative.__class__.__name__ = "PaperCNN"  # and so only its forward is another
    with pytest.raises(ConfigError, match=r"is of another network: before sleep it had \d+ of"):
        look(digits, trials=1, study=study, model=negative)
    (tmp_path / "no.db").write_text("no database")
    with pytest.raises(ConfigError, match=r"no\.db: cannot be opened"):
        look(digits, trials=1, study=tmp_path / "no.db")
    with pytest.raises(ConfigError, match="in a folder that is there"):
        look(digits, trials=1, study=tmp_path / "nowhere" / "study.db")
    with pytest.raises(ConfigError, match="whose driver is installed"):
        look(digits, trials=1, study="nosuch://host/name")


@pytest.mark.parametrize("scheme", ["", "sqlite:///"])
def test_processes_share_a_study(digits, tmp_path, scheme):
    told = []
    found = look(
        digits, trials=6, study=f"{scheme}{tmp_path / 'study.db'}", workers=2,
        progress=lambda *what: told.append(what),
    )  # fmt: skip
    assert len(found.candidates) in (6, 7)  # each may have begun one more
    configs = [candidate.config for candidate in found.candidates]
    assert len(set(configs[:3])) == 3  # drawn at random, by each process in its own way
    assert len(set(configs)) >= len(configs) - 1  # a child may be its parent again
    assert {done for _, done, _ in told} <= {1, 2, 3, 4, 5, 6, 7}
    with pytest.raises(ConfigError, match="need a study that they share"):
        look(digits, trials=1, workers=2)


def test_no_settings_are_begun_when_it_is_late(digits):
    assert look(digits, seconds=0).candidates == ()


@pytest.mark.parametrize(("borne", "low", "high"), [(0.001, 0.0005, 0.045), (0.04, 0.005, 0.32)])
def test_doses_are_searched_where_the_network_bears_them(digits, monkeypatch, borne, low, high):
    """Up to eight times as much, and to those that are tried first."""
    monkeypatch.setattr(tryout, "settle", lambda *_, **__: SimpleNamespace(dose=borne))
    start = AutoConfig()
    work = tryout.Tryout(
        initialize(paper_mnist, 0), *digits, start, space_of(start, fit_head=True), 0, (NOISE,),
        30, 0.02,
    ).with_firsts()  # fmt: skip
    assert (work.space["dose"].low, work.space["dose"].high) == pytest.approx((low, high))
    assert all(low <= first["dose"] <= high for first in work.firsts)


def test_from_auto_its_few_numbers_are_searched_and_the_head_is_fitted(digits):
    model = initialize(paper_mnist, 0)
    auto = AutoConfig(steps=5, keep=0.99)
    space = space_of(auto, fit_head=True)
    found = search(
        model, *digits, auto, trials=9, seed=0, distortions=[NOISE], validation=30, space=space,
        clean_loss=1.0,
    )  # fmt: skip
    fits = [each.fit_images for each in found.candidates[:8]]
    assert fits == [0, 1000, 1000, 1000, 0, 0, 0, 20_000]
    assert all(each.fit_images == 0 or each.fit_images >= 64 for each in found.candidates)
    first, second, third = (np.divide(*each.config.dec) for each in found.candidates[:3])
    assert first / second == pytest.approx(30)  # more of the second dose is the last layer's
    assert third > 20 * first  # and of the third the first layer's
    assert found.candidates[2].config.inc[0] > 8 * found.candidates[2].config.dec[0]
    assert len({candidate.config.max_rate_hz for candidate in found.candidates}) == 2  # 8 alike
    for candidate in (*found.candidates[:2], *found.candidates[7:]):
        network = tuned(model, *digits, candidate, seed=0, validation=30)
        changed = not torch.equal(network.fc2.weight, model.fc2.weight)
        assert changed == (candidate.fit_images > 0)
        awake = fitted(model, *digits, candidate, seed=0, validation=30)
        assert torch.equal(awake.conv1.weight, model.conv1.weight)
        assert changed == (not torch.equal(awake.fc2.weight, model.fc2.weight))


def test_a_head_is_fitted_until_clean_accuracy_is_back():
    """A night that ruins the classes costs as few images as mend them, or all that are allowed."""
    digits = load_images("digits", "train")
    images, labels = digits.images[:400], digits.labels[:400]
    model = initialize(paper_mnist, 0)
    train(model, images, labels, Protocol(30, 0.1, 16), seed=0)
    ruin = START.with_changes(dec=0.04, inc=1e-4)
    space = {"steps": Range(10, 12, whole=True), "fit_images": Range(1, 2, whole=True)}

    def fits(clean_loss):
        found = look(
            (images, labels), trials=1, start=ruin, space=space, model=model, validation=100,
            clean_loss=clean_loss,
        )  # fmt: skip
        return found.baseline.clean, found.candidates[0]

    before, untouched = fits(1.0)
    assert untouched.fit_images == 0
    assert untouched.clean < before - 0.1
    _, mended = fits(0.05)
    assert mended.clean >= before - 0.05
    assert 64 <= mended.fit_images < 4_000
    _, given_up = fits(before - 1.01)  # more than all cannot be right
    assert 5_000 / 1.5 < given_up.fit_images <= 5_000
    assert given_up.mean == 0  # under distortions nobody needs to know it


def test_the_head_alone_is_fitted():
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = (images[:, 0, 0, 0] > 0.5).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
        ).eval()
    before = copy.deepcopy(model.state_dict())
    fitted = fit_head(model, images, labels, seed=0, epochs=300)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    differ = {name for name, value in fitted.state_dict().items() if not value.equal(before[name])}
    assert differ == {"4.weight", "4.bias"}
    assert all(parameter.requires_grad for parameter in fitted.parameters())

    @torch.no_grad()
    def loss(network):
        return float(nn.functional.cross_entropy(network(images), labels))

    assert loss(fitted) < 0.95 * loss(model)
    for dtype in (torch.float64, torch.bfloat16):
        other = fit_head(copy.deepcopy(model).to(dtype), images, labels, seed=0, epochs=300)
        assert {value.dtype for value in other.parameters()} == {dtype}
        assert not torch.equal(other[4].weight, model[4].weight.to(dtype))
    with pytest.raises(ConfigError, match="no linear layer"):
        fit_head(nn.Sequential(nn.Conv2d(1, 2, 8), nn.Flatten()), images, labels, seed=0)


def test_a_head_is_fitted_behind_statistics_that_stay():
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = (images[:, 0, 0, 0] > 0.5).long()

    def network(affine):
        norm = nn.BatchNorm2d(4, affine=affine)
        norm.running_mean += 0.3
        norm.running_var *= 2
        layers = (nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        return initialize(lambda: nn.Sequential(*layers), 0).eval()

    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = network(affine=False)
    second = network(affine=True)
    for index in (0, 4):
        second[index].load_state_dict(first[index].state_dict())
    found = [fit_head(each, images, labels, seed=0, epochs=3)[4].weight for each in (first, second)]
    assert not torch.equal(found[0], first[4].weight)
    assert torch.allclose(*found, atol=1e-6)


def normed(seed=0):
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    return initialize(lambda: nn.Sequential(*layers), seed).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_get_the_statistics_of_the_images(dtype):
    images = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = normed().to(dtype)
    model[1].num_batches_tracked += 7
    before = copy.deepcopy(model.state_dict())
    after = fit_norms(model, images).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    differ = {name for name in after if not torch.equal(after[name], before[name])}
    assert differ == {"1.running_mean", "1.running_var"}
    with torch.no_grad():
        seen = copy.deepcopy(model[0]).float()(images).transpose(0, 1).flatten(1)
    assert torch.allclose(after["1.running_mean"], seen.mean(1).to(dtype), rtol=1e-4)
    assert torch.allclose(after["1.running_var"], seen.var(1).to(dtype), rtol=1e-4)
    assert {value.dtype for name, value in after.items() if "running" in name} == {dtype}
    uneven = torch.cat([images * 0.1, torch.ones(1, 1, 8, 8)])  # 101: one more than a batch
    with torch.no_grad():
        seen = copy.deepcopy(model[0]).float()(uneven).transpose(0, 1).flatten(1)
    found = fit_norms(model, uneven)[1]
    assert torch.allclose(found.running_mean.float(), seen.mean(1), atol=0.01)
    with pytest.raises(DatasetError, match="1 images: statistics are of 2 or more"):
        fit_norms(model, images[:1])
    without = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    with pytest.raises(ConfigError, match="no BatchNorm with statistics"):
        fit_norms(without.to(dtype), images)


def test_norms_are_fitted_after_sleep_where_a_candidate_says_so():
    images = torch.rand(90, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    given = images, (images[:, 0, 0, 0] > 0.5).long()
    auto, model = AutoConfig(steps=5, keep=0.5), normed()
    space = space_of(auto, fit_head=False, fit_norms=True)
    found = search(model, *given, auto, trials=12, seed=0, distortions=[NOISE], validation=30,
                   space=space, clean_loss=1.0).candidates  # fmt: skip
    assert {candidate.fit_norms for candidate in found} == {False, True}
    for candidate in found:
        network = tuned(model, *given, candidate, seed=0, validation=30)
        kept = torch.equal(network[1].running_mean, model[1].running_mean)
        assert kept == (not candidate.fit_norms)
        awake = fitted(model, *given, candidate, seed=0, validation=30)
        assert torch.equal(awake[0].weight, model[0].weight)
        assert kept == torch.equal(awake[1].running_mean, model[1].running_mean)
    without = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
    with pytest.raises(ConfigError, match="fit_norms: the network has no BatchNorm"):
        search(without, *given, auto, trials=1, seed=0, space=space)


def test_dropout_goes_on_beside_a_buffer_while_a_head_is_fitted():
    modes = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(36, 2)
            self.register_buffer("mean", torch.tensor(0.5))

        def forward(self, x):
            modes.append(self.training)
            return self.fc(nn.functional.dropout(x - self.mean, training=self.training).flatten(1))

    fit_head(initialize(Net, 0), torch.rand(40, 1, 6, 6), torch.arange(40) % 2, seed=0)
    assert any(modes)


@pytest.mark.parametrize("changes", [{"brightest": 0.6}, {"rate": 0.4}, {"rate": 0.97}])
def test_a_range_widens_no_further_than_settings_allow(digits, changes):
    start = AutoConfig(steps=5, keep=0, **changes)
    found = look(digits, trials=9, start=start, space=space_of(start, fit_head=False))
    assert len(found.candidates) == 9
    assert not any(candidate.failure for candidate in found.candidates)


def test_settings_of_each_layer_are_searched_for_each_layer(digits):
    start = START.with_changes(inc=[1e-7, 1e-3], dec=[0.0, 1e-3])
    space = space_of(start, fit_head=False)
    assert space["inc"].low == pytest.approx(1e-8)  # ten times below what is unusually small
    assert space["inc"].high == SPACE["inc"].high
    assert "dec" not in space  # ratios never reach the 0
    found = look(digits, trials=4, space=space_of(start, fit_head=False), start=start).candidates
    assert found[0].config.inc == start.inc
    assert {candidate.config.dec for candidate in found} == {start.dec}
    firsts, seconds = zip(*(candidate.config.inc for candidate in found), strict=True)
    assert len(set(firsts)) == len(set(seconds)) == 4


class Described(nn.Sequential):
    """Notes beside its weights what is no tensor."""

    def get_extra_state(self):
        return {"made": "by hand"}

    def set_extra_state(self, state):
        """There is nothing to set."""


def test_a_network_may_have_no_linear_layer_and_notes_of_its_own(digits):
    model = initialize(
        lambda: Described(nn.Conv2d(1, 10, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 0
    )
    auto = AutoConfig(steps=5, keep=0)
    given = {"trials": 3, "seed": 0, "distortions": [NOISE], "validation": 30}
    assert len(search(model, *digits, auto, **given).candidates) == 3
    with pytest.raises(ConfigError, match="fit_images: the network has no linear layer"):
        search(model, *digits, auto, space=space_of(auto, fit_head=True), **given)


def test_a_misspelt_neuron_is_found_before_anything_is_tried(digits, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown neuron 'leeky' .did you mean 'leaky'"):
        look(digits, start=AutoConfig(neuron="leeky"), space={}, study=tmp_path / "study.db")
    assert not (tmp_path / "study.db").exists()


def test_what_cannot_be_searched_is_refused(digits):
    with pytest.raises(DatasetError, match="2 images: a search needs 3"):
        look((digits[0][:2], digits[1][:2]))
    with pytest.raises(ConfigError, match="space: layers: can search steps, coefficient"):
        look(digits, space={"layers": Range(0, 1)})
    with pytest.raises(ConfigError, match="2 given for 4 spiking layers"):
        search(paper_mnist(), *digits, START.with_changes(layers="all"), trials=1, seed=0)


def test_the_best_few_are_measured_again_and_luck_does_not_last(monkeypatch):
    """Of a search whose first is best on its own images, on others the third is."""
    images = torch.rand(10_400, 1, 2, 2)
    labels = torch.zeros(10_400).long()
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(4, 2))
    baseline = Robustness((Cell("clean", 0.0, 90, 100), Cell("gn", 1.0, 50, 100)), 0)
    means = (0.62, 0.61, 0.6, 0.59, 0.58, 0.57, 0.9)
    candidates = [
        Candidate(START.with_changes(steps=step), 0.9, mean) for step, mean in enumerate(means, 1)
    ]
    candidates[-1] = dataclasses.replace(candidates[-1], clean=0.5)  # too low
    found = Search(baseline, tuple(candidates), 0.02)
    seen, used = [], []

    def slept(network, given, classes, candidate, **options):
        seen.append(candidate.config.steps)
        return candidate

    def measured(candidate, given, classes, **options):
        used.append(given)
        right = 80 if candidate.config.steps == 3 else 40
        return Robustness((Cell("clean", 0.0, 90, 100), Cell("gn", 1.0, right, 100)), 0)

    monkeypatch.setattr(finals, "tuned", slept)
    monkeypatch.setattr(finals, "evaluate", measured)
    best = confirm(found, model, images, labels, seed=0, distortions=[NOISE], validation=100)
    assert seen == [1, 2, 3, 4, 5]
    assert best is candidates[2]
    parts = split(10_400, 100, seed=0)
    assert torch.equal(used[0], images[parts.unseen])
    known = torch.cat([parts.clean, parts.fitting]).tolist()
    assert len(parts.unseen) == 100
    assert not set(known) & set(parts.unseen.tolist())
    # Without images that nobody has looked at, the best of the search it is.
    assert confirm(found, model, images[:50], labels[:50], seed=0) is candidates[0]
    with pytest.raises(SrcsnnError, match="none of 1 settings keeps clean accuracy"):
        confirm(Search(baseline, (candidates[-1],), 0.02), model, images, labels, seed=0)
