"""Comparison of measurements with a theory that has no free parameters."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from zoo.estimates import Estimate, mean

TOLERANCE = 0.05  # largest relative difference between measurement and theory that counts as agreement


@dataclass(frozen=True)
class Agreement:
    """The ratio measured / theory. `str` writes it as part of a sentence.

    Args:
        overall: Mean ratio over all settings.
        each: Mean ratio of every setting.
        largest: Largest distance of a setting's mean ratio from 1.
    """

    overall: Estimate
    each: list[Estimate]
    largest: float

    @classmethod
    def of(cls, ratios: np.ndarray) -> "Agreement":
        """Return the agreement of ratios measured / theory, (settings, seeds)."""
        each = [mean(row) for row in ratios]
        return cls(mean(ratios.mean(0)), each, max(abs(one.mean - 1) for one in each))

    @property
    def answer(self) -> Literal["yes", "no", "undecided"]:
        """Whether measurement and theory agree.

        The answer is "no" if the overall interval or that of any setting lies outside the tolerance. Otherwise it is
        "yes" if the overall interval lies within the tolerance, and "undecided" if not.
        """
        low, high = 1 - TOLERANCE, 1 + TOLERANCE
        if any(one.high < low or one.low > high for one in (self.overall, *self.each)):
            return "no"
        return "yes" if abs(self.overall.low - 1) <= TOLERANCE >= abs(self.overall.high - 1) else "undecided"

    @property
    def brief(self) -> str:
        """The ratio in a few words, for a table."""
        return f"measured / theory {self.overall}; largest difference of a setting {100 * self.largest:.1f} %"

    def __str__(self) -> str:
        held, n = sum(1 in one for one in self.each), len(self.each)
        return (
            f"the ratio measured / theory is {self.overall} over all {n} settings, and differs from 1 by "
            f"{100 * self.largest:.1f} % in the worst setting; {held} of the {n} intervals contain 1"
        )
