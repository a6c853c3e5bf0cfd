"""What the traces of chains say about whether their mean can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from zoo import estimates
from zoo.estimates import Estimate


@dataclass(frozen=True)
class Limits:
    """Limits of the diagnostics, beyond which an estimate is refused.

    Args:
        drift: Largest difference between the means of the second and the first half of the chains, as a share of the
            estimate. A larger drift counts only if its 95 % interval excludes 0.
        step_size_bias: Largest bias of the step size and of the noise of batches, as a share of the estimate.
        acceptance: Least mean probability of acceptance of HMC.
        r_hat: Largest R-hat.
        effective: Least number of effective draws of all chains together.
        sensitivity: Largest change with half the step size or twice the localization, as a share of the estimate. A
            larger change counts only if its 95 % interval excludes 0.
        divergent: Largest share of chains that may be left out because their loss is not finite.
    """

    drift: float = 0.1
    step_size_bias: float = 0.1
    acceptance: float = 0.5
    r_hat: float = 1.2
    effective: float = 50.0
    sensitivity: float = 0.1
    divergent: float = 0.1


@dataclass(frozen=True)
class Diagnostics:
    """Diagnostics of the chains; all are None or NaN where they do not apply.

    Args:
        drift: Mean of the second half of the chains minus that of the first half, in units of the estimate.
        r_hat: R-hat of the halves of all chains (Gelman et al. 2013, section 11.4). It is 1 if chains cannot be told
            apart.
        effective: Number of independent draws with the same error of the mean, all chains together (the same, 11.5).
        acceptance: HMC's mean probability of acceptance.
        step_size_bias: SGLD's E[ε ∇U G ∇(nβ L)] / 8, in units of the estimate: what the step size and the noise of
            batches add to it. It is exact if L is quadratic and a batch is all data.
        equipartition: E[(w - w*) ∇U] / (d + E[ε ∇U G ∇U] / 4), which is 1 for chains in equilibrium, whatever the step
            size. It is NaN for HMC.
        lower: Share of recorded losses that are below the loss at the centre.
        gradient_gain: nβ |∇L(w*)|² / (2 h + 2 (γ + ρ) / nβ), in units of the estimate: about how much lower a minimum
            near the centre is. h is the largest curvature. NaN if the step size was given.
        half_step_size: Change of the estimate with half the step size, if asked for.
        double_localization: Change of the estimate with twice the localization, if asked for.
    """

    drift: Estimate
    r_hat: float
    effective: float
    acceptance: float
    step_size_bias: float
    equipartition: float
    lower: float
    gradient_gain: float
    half_step_size: Estimate | None = None
    double_localization: Estimate | None = None

    def problems(self, value: Estimate, left_out: int, chains: int, limits: Limits) -> list[str]:
        """Return one line for every diagnostic that fails.

        Args:
            value: The estimate.
            left_out: Number of chains that are left out.
            chains: Number of all chains.
            limits: The limits.
        """
        size, found = abs(value.mean), []
        if left_out > limits.divergent * chains:
            found.append(f"{left_out} of {chains} chains diverged: use a smaller step size")
        if value.high < 0:
            found.append(
                f"the estimate {value} is negative: the parameters are not at a minimum of the loss, and chains find "
                "lower losses nearby; train longer or use more localization"
            )
        if self.drift.sign != "undecided" and abs(self.drift.mean) > limits.drift * size:
            found.append(f"chains drift: their second half is higher by {self.drift}; use a longer burn-in")
        if self.step_size_bias > limits.step_size_bias * size:
            found.append(
                f"the step size and the noise of batches add about {self.step_size_bias:.3g}; use a smaller step size "
                "or larger batches"
            )
        if self.acceptance < limits.acceptance:
            found.append(f"the mean acceptance is {self.acceptance:.2f}; use a smaller step size or a longer burn-in")
        if not self.r_hat <= limits.r_hat:
            found.append(f"R-hat is {self.r_hat:.2f}: chains differ from one another; use more steps")
        if not self.effective >= limits.effective:
            found.append(f"there are only {self.effective:.0f} effective draws; use more steps or more chains")
        for name, change in (
            ("half the step size", self.half_step_size),
            ("twice the localization", self.double_localization),
        ):
            if change and change.sign != "undecided" and abs(change.mean) > limits.sensitivity * size:
                found.append(f"the estimate changes by {change} with {name}")
        return found


def drift(draws: np.ndarray) -> Estimate:
    """Return the mean of the second half minus that of the first half, with an interval over chains.

    Args:
        draws: Draws of all chains, (T, C).
    """
    half = len(draws) // 2
    return estimates.mean(draws[-half:].mean(0) - draws[:half].mean(0))


def r_hat(draws: np.ndarray) -> float:
    """Return R-hat of the halves of the chains (Gelman et al. 2013, equation 11.4); 1 for draws that are all equal.

    Args:
        draws: Draws of all chains, (T, C).
    """
    within, total = _variances(draws)
    return math.sqrt(total / within) if within > 0 else (1.0 if total == 0 else math.inf)


def _variances(draws: np.ndarray) -> tuple[float, float]:
    """The mean variance within halves of chains, and the estimate of the whole variance."""
    n = len(draws) // 2
    halves = np.concatenate([draws[:n], draws[-n:]], 1)
    within = float(halves.var(0, ddof=1).mean())
    return within, (n - 1) / n * within + float(halves.mean(0).var(ddof=1))


def effective_draws(draws: np.ndarray) -> float:
    """Return the effective number of draws (Gelman et al. 2013, equation 11.8, with Geyer's rule for the sum).

    Args:
        draws: Draws of all chains, (T, C).
    """
    n, chains = draws.shape
    within = draws.var(0, ddof=1)
    total = (n - 1) / n * within.mean() + draws.mean(0).var(ddof=1)
    if total == 0:
        return float(n * chains)
    centred = draws - draws.mean(0)
    spectrum = np.fft.rfft(centred, 2 * n, axis=0)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[:n] / n
    rho = 1 - (within.mean() - covariance.mean(1) * n / (n - 1)) / total
    pairs = rho[: n // 2 * 2].reshape(-1, 2).sum(1)
    positive = np.minimum.accumulate(pairs[: _first(pairs <= 0)])
    return float(min(n * chains / max(2 * positive.sum() - 1, 1 / math.log10(max(n * chains, 10))), n * chains))


def _first(found: np.ndarray) -> int:
    """Index of the first True, or the length."""
    return int(found.argmax()) if found.any() else len(found)
