"""The figure that `EmbeddingDrift` draws."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor


def draw_drift(
    name: str,
    relative: Tensor,
    counts: Tensor | None,
    groups: list[str],
    history: list[list[float]],
    decay_alone: float,
) -> Figure:
    """Draw the drift of every row against its token's frequency, and the median of every frequency group over training.

    Args:
        name: Name of the matrix.
        relative: Distance of every row from its initial value, divided by the row's norm, (R,).
        counts: How often each row's token occurs, (R,); None if not known.
        groups: Labels of the frequency groups.
        history: One entry per measurement: step, then the median of every group.
        decay_alone: Drift that weight decay alone would have caused.
    """
    figure = Figure(figsize=(10, 4), dpi=120)
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.14, top=0.91, wspace=0.18)
    left, right = figure.subplots(1, 2)
    y = relative.numpy()
    if counts is None:
        left.hist(y, bins=60, color="C0")
        left.set(xlabel="distance from the initial row / row norm", ylabel="rows")
    else:
        left.scatter(counts.numpy() + 1, y, s=4, alpha=0.35, linewidths=0, color="C0")
        left.set(xscale="log", xlabel="occurrences of the token + 1", ylabel="distance from the initial row / row norm")
    if decay_alone > 0:
        line = left.axvline if counts is None else left.axhline
        line(decay_alone, color="black", ls="--", lw=1, label="weight decay alone")
        left.legend()
    left.set_title(f"rows of {name}")
    curves = np.array(history)  # (measurements, 1 + groups)
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(groups)))
    for i, label in enumerate(groups):
        right.plot(curves[:, 0], curves[:, i + 1], color=colors[i], marker=".", label=label)
    right.set(
        xlabel="step",
        ylabel="median distance / row norm",
        title="by number of occurrences" if counts is not None else "median over training",
    )
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.2)
    return figure
