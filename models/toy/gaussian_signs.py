"""Closed-form expectations of products of a Gaussian variable and signs of other Gaussian variables."""

import math

import torch
from torch import Tensor


def mean_abs_times_signs(variance: Tensor, with_a: Tensor, with_b: Tensor, ab: Tensor) -> Tensor:
    """Return E[|z| sgn(a) sgn(b)] for centred Gaussian variables, where a and b have variance 1.

    Stein's lemma gives E[z f] = sum over u of Cov(z, u) E[df/du] for f = sgn(z) sgn(a) sgn(b), where the derivative of
    a sign is twice a Dirac delta. The remaining two signs, given u = 0, have the expectation
    E[sgn(u) sgn(v)] = (2/pi) asin(corr(u, v)). The result is

        (2/pi)^(3/2) [sd(z) asin(corr(a, b | z)) + Cov(z, a) asin(corr(z, b | a)) + Cov(z, b) asin(corr(z, a | b))]

    It is not valid if all three variables are multiples of one variable.

    Args:
        variance: Variance of z, positive, any shape, float64.
        with_a: Covariance of z and a.
        with_b: Covariance of z and b.
        ab: Correlation of a and b.
    """
    za, zb = with_a / variance.sqrt(), with_b / variance.sqrt()  # correlations
    terms = _partial(ab, za, zb) + za * _partial(zb, za, ab) + zb * _partial(za, zb, ab)
    return (2 / math.pi) ** 1.5 * variance.sqrt() * terms


def _partial(uv: Tensor, uw: Tensor, vw: Tensor) -> Tensor:
    """Return the arcsine of the correlation of u and v given w, from the three pairwise correlations."""
    spread = ((1 - uw**2) * (1 - vw**2)).clamp(min=0).sqrt()
    correlation = (uv - uw * vw) / spread.clamp(min=torch.finfo(spread.dtype).tiny)
    return correlation.clamp(-1, 1).asin()


def kappa(n_active: Tensor | float) -> Tensor:
    """Return 1 / E[ReLU(z) sgn(a) sgn(b)], where z is a sum of `n_active` standard normal variables including a and b.

    It is 4.279 for 2 variables, 7.142 for 4, and tends to pi sqrt(pi/2) sqrt(n_active) = 3.937 sqrt(n_active). By
    symmetry, ReLU(z) may be replaced by |z| / 2, and `mean_abs_times_signs` becomes

        1 / kappa(l) = (1/pi) sqrt(2/pi) [2 asin(1 / sqrt(l - 1)) - sqrt(l) asin(1 / (l - 1))]

    Args:
        n_active: Number l of active inputs, at least 2, any shape.
    """
    active = torch.as_tensor(n_active, dtype=torch.float64)
    moment = 2 * ((active - 1) ** -0.5).asin() - active.sqrt() * (1 / (active - 1)).asin()
    return math.pi / (math.sqrt(2 / math.pi) * moment)
