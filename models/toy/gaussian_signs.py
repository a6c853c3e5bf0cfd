"""Expectations of Gaussian variables times signs of others, in closed form."""

import math

import torch
from torch import Tensor


def mean_abs_times_signs(variance: Tensor, with_a: Tensor, with_b: Tensor, ab: Tensor) -> Tensor:
    """E[|z| sgn(a) sgn(b)] of centred Gaussian variables, where a and b have variance 1.

    By Stein's lemma, E[z f] = sum over u of Cov(z, u) E[df/du] with f = sgn(z) sgn(a) sgn(b), where a sign's derivative
    is twice a Dirac delta, and by E[sgn(u) sgn(v)] = (2/pi) asin(corr(u, v)) for what is left given u = 0:

        (2/pi)^(3/2) [sd(z) asin(corr(a, b | z)) + Cov(z, a) asin(corr(z, b | a)) + Cov(z, b) asin(corr(z, a | b))]

    It does not hold where all three are multiples of one variable.

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
    """Arcsine of the correlation of u and v given w, from the three correlations."""
    spread = ((1 - uw**2) * (1 - vw**2)).clamp(min=0).sqrt()
    correlation = (uv - uw * vw) / spread.clamp(min=torch.finfo(spread.dtype).tiny)
    return correlation.clamp(-1, 1).asin()


def kappa(n_active: Tensor | float) -> Tensor:
    """1 / E[ReLU(z) sgn(a) sgn(b)], where z is the sum of `n_active` standard normal variables, a and b among them.

    It is 4.279 for 2 and 7.142 for 4 and tends to pi sqrt(pi/2) sqrt(n_active) = 3.937 sqrt(n_active): by symmetry
    ReLU(z) counts half of |z|, and `mean_abs_times_signs` becomes

        1 / kappa(l) = (1/pi) sqrt(2/pi) [2 asin(1 / sqrt(l - 1)) - sqrt(l) asin(1 / (l - 1))]

    Args:
        n_active: Number l of active inputs, at least 2, any shape.
    """
    active = torch.as_tensor(n_active, dtype=torch.float64)
    moment = 2 * ((active - 1) ** -0.5).asin() - active.sqrt() * (1 / (active - 1)).asin()
    return math.pi / (math.sqrt(2 / math.pi) * moment)
