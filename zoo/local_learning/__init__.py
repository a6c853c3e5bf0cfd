"""The local learning coefficient of any module, by sampling parameters near those that were trained.

The local learning coefficient λ at w* is the exponent with which the volume of the parameters near w* that have a loss
below L(w*) + t shrinks: V(t) ~ t^λ (ln 1/t)^(m-1), with the multiplicity m (Watanabe 2009). For a regular model, λ is
half the number of parameters. The estimator is that of Lau et al. (2023, arXiv:2308.12108), with the temperature of
Watanabe (2013, WBIC).

**Convention.** L(w) is the mean loss per data point, in nats, and n the number of data points, which you state.

- Density: exp(-U(w)) with U(w) = nβ L(w) + γ/2 |w - w*|² + ρ/2 |w|², and nβ = n / ln n by default.
- SGLD: w <- w - ε/2 ∇U(w) + √ε ξ, with standard normal ξ. (`posteriors` writes ε for what is ε/2 here.)
- Estimate: λ̂ = nβ (E[L(w)] - L(w*)). The mean is over the steps after burn-in of every chain, the interval over
  chains, and L(w*) is the loss on all data.

**Bias.** For a quadratic loss with curvatures h_i, the expectation of λ̂ is known at every step size and localization::

    λ̂ = Σ_i 1/2 nβ h_i / (nβ h_i + γ) · 1 / (1 - ε (nβ h_i + γ) / 4)

The second factor is the bias of the step size. HMC does not have it. Because of the localization γ, directions in which
nβ h_i is not much larger than γ contribute less than 1/2.
"""

from zoo.local_learning.diagnostics import Diagnostics, Limits
from zoo.local_learning.estimator import LocalLearningCoefficient, local_learning_coefficient
from zoo.local_learning.hmc import HMC
from zoo.local_learning.samplers import SGLD, RMSPropSGLD

__all__ = [
    "HMC",
    "SGLD",
    "Diagnostics",
    "Limits",
    "LocalLearningCoefficient",
    "RMSPropSGLD",
    "local_learning_coefficient",
]
