"""What more is required of an estimate at parameters that may still be far from a minimum, as they are in training."""

from zoo import estimates
from zoo.estimates import Estimate
from zoo.local_learning.estimator import LocalLearningCoefficient

LOWER = 0.02  # largest share of losses below that at the parameters; at a minimum, none is, except by noise of batches


def problems_in_training(result: LocalLearningCoefficient) -> list[str]:
    """Return the failed diagnostics of an estimate, and whether chains found losses below that at the parameters.

    Estimates at parameters that are not at a minimum are too small, long before they are negative: the estimate is a
    mean excess over the loss at the parameters, which should be the smallest loss nearby.
    """
    share = result.diagnostics.lower
    if share <= LOWER or result.unchecked.high < 0:  # negative estimates are refused by the diagnostics
        return [*result.problems]
    why = f"{share:.0%} of the losses nearby are lower than that at the parameters, which are not at a minimum"
    return [*result.problems, why]


def value_in_training(result: LocalLearningCoefficient) -> Estimate:
    """Return the estimate, or `UNKNOWN` if there is one of `problems_in_training`."""
    return estimates.UNKNOWN if problems_in_training(result) else result.unchecked
