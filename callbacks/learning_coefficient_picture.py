"""The figure that `LearningCoefficient` draws."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from zoo.estimates import Estimate


def draw_learning_coefficient(
    history: list[dict[str, Any]], means: list[Estimate], drift: dict[str, list[list[float]]]
) -> Figure:
    """Draw the local learning coefficient over training, below it the loss, and the drift of rows if it is known.

    Steps are on a logarithmic axis with a linear part up to the first step after 0. A step at which all estimates are
    refused has a cross at the bottom of the first panel.

    Args:
        history: One entry per measurement: `step`, and the `networks` with `mean` and `loss`, which may be None.
        means: Estimate over all networks of every measurement.
        drift: One list per matrix with an entry per measurement: step, then the median drift of groups of rows.
    """
    n_panels = 3 if drift else 2
    figure = Figure(figsize=(8, 2.2 * n_panels + 0.6), dpi=120, layout="constrained")
    panels: list[Any] = list(figure.subplots(n_panels, 1, sharex=True))
    steps = np.array([entry["step"] for entry in history])
    networks = max(len(entry["networks"]) for entry in history)
    for key, axes, color in (("mean", panels[0], "C0"), ("loss", panels[1], "C1")):
        values = np.full((len(steps), networks), np.nan)
        for i, entry in enumerate(history):
            for j, one in enumerate(entry["networks"]):
                values[i, j] = np.nan if one[key] is None else one[key]
        if networks > 1:
            axes.plot(steps, values, color=color, alpha=0.3, lw=0.8, marker=".", ms=3)
        mean = np.array([one.mean for one in means]) if key == "mean" else values.mean(1)
        axes.plot(steps, mean, color=color, marker="o", ms=4, label="mean" if networks > 1 else None)
    low, high = (np.array([getattr(one, end) for one in means]) for end in ("low", "high"))
    panels[0].fill_between(steps, low, high, color="C0", alpha=0.2, lw=0, label="95 % interval")
    refused = steps[[not np.isfinite(one.mean) for one in means]]
    if len(refused):
        at_bottom = panels[0].get_xaxis_transform()
        panels[0].plot(refused, [0.04] * len(refused), "kx", ms=5, transform=at_bottom, label="refused")
    panels[0].legend(fontsize="small")
    panels[0].set(ylabel="local learning coefficient", title="Local learning coefficient over training")
    panels[1].set(ylabel="loss at the parameters")
    for name, curve in drift.items():
        points = np.array(curve)
        if len(points):
            panels[2].plot(points[:, 0], points[:, 1:].mean(1), marker=".", label=name)
            panels[2].set(ylabel="median drift / row norm")
            panels[2].legend(fontsize="small")
    after = steps[steps > 0]
    if len(after) > 2 and after.max() > 20 * after.min():
        panels[-1].set_xscale("symlog", linthresh=float(after.min()), subs=range(2, 10))
    panels[-1].set(xlabel="step")
    for axes in panels:
        axes.grid(alpha=0.2)
    return figure
