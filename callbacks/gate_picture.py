"""The figure that `GateErrors` draws."""

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from zoo.metrics import CASES
from zoo.metrics.case_errors import EDGES

COLORS = ("C7", "C0", "C2", "C3")


def draw_gate_errors(case_errors: list[dict[str, Tensor]]) -> Figure:
    """Draw a histogram of the errors for every case of the gates' inputs, one row of panels per depth.

    Args:
        case_errors: The result of `CaseErrors.compute` for every depth.
    """
    height = 0.8 + 2.4 * len(case_errors)  # inches
    figure = Figure(figsize=(12, height), dpi=100)
    figure.subplots_adjust(0.06, 0.5 / height, 0.99, 1 - 0.3 / height, wspace=0.18, hspace=0.35)
    panels = figure.subplots(len(case_errors), 4, squeeze=False, sharex="row")
    edges = EDGES.numpy()
    for t, (row, found) in enumerate(zip(panels, case_errors, strict=True)):
        bins = found["bins"].cpu().numpy()
        shown = edges[:-1][bins.sum(0) > 0]
        reach = max(0.3, float(np.abs(shown).max()) + 0.05) if len(shown) else 2.0
        for i, (axes, case) in enumerate(zip(row, CASES, strict=True)):
            n = bins[i].sum()
            depth = f"depth {t + 1}, " if len(case_errors) > 1 else ""
            axes.set_title(f"{depth}inputs {case}", fontsize="medium")
            axes.axvline(0, color="black", lw=0.8)
            axes.grid(alpha=0.2)
            if not n:
                axes.text(0.5, 0.5, "does not occur", transform=axes.transAxes, ha="center")
                continue
            axes.stairs(bins[i] / n / np.diff(edges), edges, fill=True, color=COLORS[i], alpha=0.8)
            mean, most = (float(found[name][:, i].mean()) for name in ("mean", "max"))
            axes.text(
                0.97,
                0.95,
                f"mean |error| {mean:.3f}\nlargest {most:.3f}",
                transform=axes.transAxes,
                ha="right",
                va="top",
                fontsize="small",
            )
            axes.set_xlim(-reach, reach)
            axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
        row[0].set_ylabel("density")
    for axes in panels[-1]:
        axes.set_xlabel("output - true value of the gate")
    return figure
