"""The figure that `ReconstructionError` draws."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor


def draw_errors(
    rows: dict[str, Tensor], counts: Tensor | None, groups: list[str], history: list[list[float]]
) -> Figure:
    """Draw the relative error of every row against its token's frequency, and of every frequency group over training.

    Args:
        rows: `relative_error`, `n` (number of vectors of the row) and `held_out`, (V,) each.
        counts: How often each row's token occurs, (V,); None if not known.
        groups: Labels of the frequency groups.
        history: One entry per validation: step, relative error of held-out rows, then of every group.
    """
    figure = Figure(figsize=(12, 4), dpi=120)
    figure.subplots_adjust(left=0.065, right=0.86, bottom=0.14, top=0.91, wspace=0.18)
    left, right = figure.subplots(1, 2)
    _draw_rows(left, rows, counts)
    left.set_title(f"rows after step {history[-1][0]:,.0f}")
    curves = np.array(history)  # (validations, 2 + groups)
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(groups)))
    for i, label in enumerate(groups):
        if np.isfinite(curves[:, i + 2]).any():
            right.plot(curves[:, 0], curves[:, i + 2], color=colors[i], marker=".", label=label)
    if np.isfinite(curves[:, 1]).any():
        right.plot(curves[:, 0], curves[:, 1], color="C3", ls="--", marker=".", label="all held-out rows")
    title = "over training, by number of occurrences" if counts is not None else "over training"
    right.set(xlabel="step", ylabel="pooled squared error / norm²", title=title)
    if right.lines:
        right.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    right.set_ylim(0, 1.05 * right.get_ylim()[1])
    for axes in (left, right):
        axes.grid(alpha=0.2)
    return figure


def _draw_rows(axes: Axes, rows: dict[str, Tensor], counts: Tensor | None) -> None:
    relative, held_out = rows["relative_error"].numpy(), rows["held_out"].numpy()
    visited = np.isfinite(relative)
    parts = {"trained": (visited & ~held_out, "C0"), "held out": (visited & held_out, "C3")}
    parts = {name: part for name, part in parts.items() if part[0].any()}
    # Rows of tiny norm can have huge relative errors; the axis ends below them, so that the other rows stay visible.
    shown = relative[visited]
    top = 1.05 * min(shown.max(), 2 * np.quantile(shown, 0.99)) if len(shown) else 0.0
    top = top if top > 0 else 1.0
    label = "squared error / norm²"
    above = int((shown > top).sum())
    size = float(np.clip(16_000 / max(1, len(shown)), 2, 12))
    for name, (members, color) in parts.items():
        if counts is None:
            edges = np.linspace(0, top, 61).tolist()
            axes.hist(relative[members], bins=edges, color=color, alpha=0.6, label=name)
        else:
            x = counts.numpy()[members] + 1
            axes.scatter(x, relative[members], s=size, alpha=0.4, lw=0, color=color, label=name)
    if counts is None:
        axes.set(xlabel=label, ylabel="rows", xlim=(0, top))
    else:
        axes.set(xscale="log", xlabel="occurrences of the token + 1", ylabel=label, ylim=(0, top))
    title = f"not shown: {above:,} above {top:.2g}" if above else None
    if "held out" in parts or above:
        axes.legend(fontsize="small", title=title, title_fontsize="small", markerscale=5 / size**0.5)
