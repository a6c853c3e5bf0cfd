"""Measurements beside a theory that has nothing to fit."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from zoo.estimates import Estimate, mean

TOLERANCE = 0.05  # by how much a measurement may differ from its theory, as a share


@dataclass(frozen=True)
class Agreement:
    """Measured over theory; as text, in a sentence.

    Args:
        overall: The mean over settings.
        each: Of every setting.
        largest: How far from 1 the worst setting's mean is.
    """

    overall: Estimate
    each: list[Estimate]
    largest: float

    @classmethod
    def of(cls, ratios: np.ndarray) -> "Agreement":
        """From ratios (settings, seeds)."""
        each = [mean(row) for row in ratios]
        return cls(mean(ratios.mean(0)), each, max(abs(one.mean - 1) for one in each))

    @property
    def answer(self) -> Literal["yes", "no", "undecided"]:
        """Whether they agree: no if the overall interval or that of a setting lies outside the tolerance."""
        low, high = 1 - TOLERANCE, 1 + TOLERANCE
        if any(one.high < low or one.low > high for one in (self.overall, *self.each)):
            return "no"
        return "yes" if abs(self.overall.low - 1) <= TOLERANCE >= abs(self.overall.high - 1) else "undecided"

    @property
    def brief(self) -> str:
        """The same in a few words."""
        return f"measured over theory {self.overall}, worst {100 * self.largest:.1f} %"

    def __str__(self) -> str:
        held, n = sum(1 in one for one in self.each), len(self.each)
        return (
            f"measured over theory is {self.overall} over all {n} settings, and off by {100 * self.largest:.1f} % in "
            f"the worst; {held} of the {n} intervals hold 1"
        )
