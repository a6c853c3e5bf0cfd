"""The task that trains or measures toys that compute with real numbers, and what their studies share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.estimates import Estimate, mean
from zoo.study import Result, Task, Work

Settings = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class TrainToy(Task):
    """Train the networks of all seeds of one toy side by side, or only measure them.

    Args:
        module: Class of the toy in `zoo.models`.
        settings: Settings of the class, apart from sizes that follow the data.
        active: Class of `zoo.active_inputs`, and its number of active inputs.
        data: Settings of `SparseFeaturesDataModule`.
        steps: Number of optimizer steps; 0 to measure without training.
        learning_rate: Learning rate of Adam, which falls to 0 over the second half of the steps.
        n_seeds: Number of networks.
        cost: About how many seconds 1,000 steps take.
    """

    module: str
    settings: Settings
    active: tuple[str, float]
    data: Settings
    steps: int
    learning_rate: float
    n_seeds: int
    cost: float

    def named_by(self) -> dict[str, Any]:
        """Return the fields that decide the result: all except the estimate of its time."""
        return {key: value for key, value in super().named_by().items() if key != "cost"}

    def do(self, work: Work) -> Result:
        """Return what `zoo.analysis.continuous_toys.measured` says of the networks."""
        import torch

        import zoo.active_inputs
        import zoo.models
        from zoo.analysis.continuous_toys import measured
        from zoo.datamodules import SparseFeaturesDataModule
        from zoo.models import AdamLinear
        from zoo.quiet_fit import fit, validate

        torch.manual_seed(0)
        kind, number = self.active
        active = getattr(zoo.active_inputs, kind)(int(number) if kind == "FixedActive" else number)
        data = SparseFeaturesDataModule(active=active, n_seeds=self.n_seeds, **dict(self.data))
        settings = dict(self.settings) | ({"d_in": data.d_in} if self.module == "UniversalProducts" else {})
        optimizer = AdamLinear(self.learning_rate, warmup_steps=0, decay_fraction=0.5)
        module = getattr(zoo.models, self.module)(
            data.n_features, n_seeds=self.n_seeds, optimizer=optimizer, **settings
        )
        if self.steps:
            fit(module, data, self.steps)
        validate(module, data)
        return measured(module)

    def seconds(self) -> float:
        """Return an estimate of the time to train, and to import what training needs."""
        return 3 + 1e-3 * self.steps * self.cost


def line(result: Result, name: str) -> float:
    """Return a reference loss of a result of `TrainToy`; NaN if it is not known."""
    return float(result["lines"].get(name, np.nan))


def over(result: Result, name: str) -> Estimate:
    """Return the mean loss of all networks divided by a reference loss."""
    return mean(np.asarray(result["loss"]) / line(result, name))


def spanned(values: Sequence[float], form: str) -> str:
    """Return "1.002 to 1.005", the smallest and the largest value in this format; only one if they look the same."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def exponent(x: Sequence[float], values: np.ndarray) -> Estimate:
    """Return the exponent of a power law that is fitted to the values of every seed.

    Args:
        x: Positive numbers, (n,).
        values: Positive values, (n, seeds).
    """
    return mean(np.polyfit(np.log(np.asarray(x, float)), np.log(values), 1)[0])


def exact_exponent(x: Sequence[float], values: Sequence[float]) -> float:
    """Return the exponent of a power law that is fitted to exact values at the same numbers, (n,) each."""
    slope = np.polyfit(np.log(np.asarray(x, float)), np.log(np.asarray(values, float)), 1)[0]
    return round(float(slope), 12) + 0.0  # not -0
