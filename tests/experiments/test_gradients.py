import math

import numpy as np
import pytest
import torch

from experiments.gradients import (
    Gaussian,
    expand,
    fit_gradient,
    matching_expansion,
    spatial_gradient,
)


def weights(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 5


@pytest.mark.parametrize("shape", [(20, 10, 3, 3), (2, 1, 2, 5)])
def test_the_gradient_is_numpys(shape):
    weight = weights(*shape)
    expected = np.concatenate(
        [part.ravel() for part in np.gradient(weight.double().numpy(), axis=(2, 3))]
    )
    found = spatial_gradient(weight)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-14)
    fitted = fit_gradient(weight)
    assert fitted.mean == pytest.approx(expected.mean(), rel=1e-9)
    assert fitted.variance == pytest.approx(expected.var(), rel=1e-12)


@pytest.mark.parametrize("shape", [(5, 4), (3, 2, 1, 3)])
def test_a_weight_without_neighbours_is_refused(shape):
    with pytest.raises(ValueError, match="no spatial gradient"):
        spatial_gradient(torch.ones(shape))


def test_kl_is_the_integral_that_defines_it():
    one, other = Gaussian(0.1, 0.3), Gaussian(-0.2, 0.7)
    x, step = np.linspace(-12, 12, 200_001, retstep=True)

    def log_density(gaussian):
        return -((x - gaussian.mean) ** 2) / (2 * gaussian.variance) - 0.5 * math.log(
            2 * math.pi * gaussian.variance
        )

    integrand = np.exp(log_density(one)) * (log_density(one) - log_density(other))
    assert one.kl(other) == pytest.approx(integrand.sum() * step, rel=1e-9)


def test_kl_without_a_spread_is_refused():
    with pytest.raises(ValueError, match="positive"):
        Gaussian(0, 1).kl(Gaussian(0, 0))


def test_expanding_keeps_signs_and_dtype():
    weight = weights(4, 3, 3, 3)
    expanded = expand(weight, 0.3)
    assert expanded.dtype == weight.dtype
    assert torch.equal(expanded.sign(), weight.sign())
    torch.testing.assert_close(expanded.abs(), weight.abs() + 0.3)


@pytest.mark.parametrize("factor", [1.001, 4.1, 1e6])
def test_the_matching_expansion_is_the_root_of_the_parabola(factor):
    weight = weights(20, 10, 3, 3)
    target = Gaussian(0, factor * fit_gradient(weight).variance)
    by = matching_expansion(weight, target)
    # Var(g + by * s) = Var(g) + 2 by Cov(g, s) + by**2 Var(s), s the gradient of the signs.
    gradient = spatial_gradient(weight).numpy()
    signs = spatial_gradient(weight.sign()).numpy()
    (start, cross), (_, square) = np.cov(gradient, signs, ddof=0)
    expected = max(np.roots([square, 2 * cross, start - target.variance]))
    assert by == pytest.approx(expected, rel=1e-6)
    assert fit_gradient(expand(weight.double(), by)).variance == pytest.approx(
        target.variance, rel=1e-5
    )


def test_a_weight_with_the_targets_variance_is_not_expanded():
    weight = weights(4, 3, 3, 3)
    assert matching_expansion(weight, fit_gradient(weight)) == 0
    assert matching_expansion(weight, Gaussian(0, 0.0)) == 0


def test_what_no_expansion_reaches_is_refused():
    signs = torch.tensor([1.0, -1.0])[:, None, None, None]
    with pytest.raises(ValueError, match="same sign"):
        matching_expansion(weights(2, 3, 3, 3).abs() * signs, Gaussian(0, 10.0))
    with pytest.raises(ValueError, match="finite"):
        matching_expansion(weights(2, 3, 3, 3), Gaussian(0, math.inf))
    with pytest.raises(ValueError, match="finite"):
        matching_expansion(torch.full((1, 1, 3, 3), math.nan), Gaussian(0, 1.0))
