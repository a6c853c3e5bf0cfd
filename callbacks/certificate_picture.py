"""The figure that `Certificates` draws."""

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

DECADES = 6  # the axis starts this many decades below the tolerance
BARS_PER_DECADE = 10


def draw_certificates(rows: dict[str, Tensor], tolerance: float, step: int) -> Figure:
    """Draw a histogram of the rows' relative duality gaps, with the rows that are not certified in another colour.

    Args:
        rows: `relative_gap`, `visited` and `certified` of every row, (V,) each.
        tolerance: Rows whose relative gap is at most this are certified.
        step: Training step, for the title.
    """
    gaps, visited, certified = (rows[name].numpy() for name in ("relative_gap", "visited", "certified"))
    finite, unbounded = np.isfinite(gaps), int(np.isinf(gaps).sum())
    low, high = tolerance / 10**DECADES, max(10 * tolerance, 1.2 * gaps[finite].max(initial=0.0))
    edges = np.geomspace(low, high, round(BARS_PER_DECADE * np.log10(high / low)) + 1).tolist()

    figure = Figure(figsize=(7, 4), dpi=120)
    figure.subplots_adjust(left=0.1, right=0.97, bottom=0.14, top=0.91)
    axes = figure.subplots()
    uncertified = "not certified" + (f", {unbounded:,} without a bound (last bar)" if unbounded else "")
    for name, part, color in (("certified", certified, "C0"), (uncertified, visited & ~certified, "C3")):
        if part.any():
            axes.hist(gaps[part].clip(low, high), edges, color=color, alpha=0.7, label=f"{part.sum():,} {name}")
    axes.axvline(tolerance, color="black", ls="--", lw=1, label=f"tolerance, {tolerance:.0e}")
    axes.set(xscale="log", yscale="log", ylabel="rows", ylim=(0.7, None))
    axes.set_xlabel(f"duality gap / objective (first bar: {low:.0e} and less)")
    axes.set_title(f"{certified.sum():,} of {visited.sum():,} rows certified after step {step:,}")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0.05, 1))
    axes.grid(alpha=0.2)
    axes.set_axisbelow(True)
    return figure
