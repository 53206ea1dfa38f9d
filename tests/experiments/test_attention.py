import pytest
import torch
import torch.nn.functional as F

from experiments import attention
from experiments.attention import attention_maps, overlap
from srcsnn.models import PaperCNN


@pytest.fixture
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PaperCNN(channels=(1, 3, 4), features=(100, 8, 10), dropout=0.5)


@pytest.fixture
def images():
    return torch.rand(7, 1, 28, 28, generator=torch.Generator().manual_seed(1))


TARGETS = torch.tensor([0, 3, 9, 3, 1, 7, 2])


def one_map(model, image, target):
    """Grad-CAM written out, for one image (1, 28, 28)."""
    pooled = F.max_pool2d(F.relu(model.conv1(image[None])), 2)
    convolved = model.conv2(pooled).detach().requires_grad_()
    pooled = F.max_pool2d(F.relu(convolved), 2)
    score = model.fc2(F.relu(model.fc1(pooled.flatten(1))))[0, target]
    (gradient,) = torch.autograd.grad(score, convolved)
    total = sum(
        gradient[0, channel].mean() * convolved[0, channel] for channel in range(len(convolved[0]))
    )
    total = total.clamp(min=0)[None, None]
    return F.interpolate(total, (28, 28), mode="bilinear", align_corners=False)[0, 0].detach()


def test_maps_are_grad_cam_written_out(model, images):
    maps = attention_maps(model, "conv2", images, TARGETS)
    expected = torch.stack(list(map(one_map, [model] * 7, images, TARGETS)))
    assert (expected.flatten(1).amax(1) > 0).sum() > 3
    torch.testing.assert_close(maps, expected)
    assert not maps.requires_grad


def test_batches_change_nothing(model, images, monkeypatch):
    whole = attention_maps(model, "conv2", images, TARGETS)
    monkeypatch.setattr(attention, "_BATCH", 3)
    torch.testing.assert_close(attention_maps(model, "conv2", images, TARGETS), whole)


def test_the_model_is_left_as_it_was(model, images):
    model.train()
    model.conv1.eval()
    model.conv1.requires_grad_(False)
    model.conv2.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    given = images.clone()
    maps = attention_maps(model, "conv2", images, TARGETS)
    with pytest.raises(ValueError, match="no maps"):
        attention_maps(model, "fc1", images, TARGETS)
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(images, given)
    assert not images.requires_grad
    # Dropout was off, though the model is in training mode.
    assert torch.equal(maps, attention_maps(model.eval(), "conv2", images, TARGETS))


def test_without_gradients_around_it_the_maps_are_the_same(model, images):
    expected = attention_maps(model, "conv2", images, TARGETS)
    with torch.no_grad():
        assert torch.equal(attention_maps(model, "conv2", images, TARGETS), expected)


def test_wrong_targets_and_layers_are_refused(model, images):
    with pytest.raises(ValueError, match="one each"):
        attention_maps(model, "conv2", images, TARGETS[:1])
    with pytest.raises(AttributeError, match="conv3"):
        attention_maps(model, "conv3", images, TARGETS)


def test_overlap_is_the_cosine_with_the_mask():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(5, 6, 8, generator=generator)
    clean = torch.rand(5, 3, 6, 8, generator=generator)
    clean *= torch.rand(5, 1, 6, 8, generator=generator) < 0.3
    expected = F.cosine_similarity(maps.flatten(1), (clean.sum(1) > 0).float().flatten(1))
    torch.testing.assert_close(overlap(maps, clean), expected.double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(overlap(maps * 1e-25, clean), overlap(maps, clean))


def test_a_map_like_the_mask_overlaps_fully_and_an_empty_one_not_at_all():
    clean = torch.zeros(3, 1, 4, 4)
    clean[:2, 0, 1:3, 1:3] = 0.2
    maps = torch.zeros(3, 4, 4)
    maps[0, 1:3, 1:3] = 7
    maps[2] = 1  # of an image that is black
    assert overlap(maps, clean).tolist() == pytest.approx([1, 0, 0])
    with pytest.raises(ValueError, match="do not fit"):
        overlap(maps[:2], clean)
