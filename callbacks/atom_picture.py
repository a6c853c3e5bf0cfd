"""The figure that `AtomReport` draws."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor


def draw_atoms(
    points: list[list[float]], frequency: Tensor, n_vectors: int, cosine: Tensor | None, null: Tensor | None
) -> Figure:
    """Draw FVU against L0 over training, firing frequencies, and largest cosines with a row of `W_E`.

    Args:
        points: Step, L0 and FVU of every validation so far.
        frequency: Share of the last validation's vectors in which each latent fires, (K,).
        n_vectors: Number of vectors in the last validation.
        cosine: Largest cosine of every atom with a row of `W_E`, (K,); None if there is no `W_E`.
        null: Largest cosine of every random atom with a row of `W_E`, (n,); None if there is no `W_E`.
    """
    figure = Figure(figsize=(13, 4), dpi=120)
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.14, top=0.91, wspace=0.32)
    left, middle, right = figure.subplots(1, 3)
    _draw_path(figure, left, points)

    alive = frequency > 0
    dead = int((~alive).sum())
    if alive.any():
        decades = frequency[alive].log10().numpy()
        middle.hist(decades, bins=np.linspace(min(-1.0, decades.min()), 0, 51).tolist(), color="C0")
    middle.set(xlabel="log10 of the firing frequency", ylabel="latents", title="how often a latent fires")
    name = f"{dead:,} of {len(frequency):,} ({dead / len(frequency):.1%})\nnever fired in {n_vectors:,} vectors"
    middle.text(0.03, 0.97, name, transform=middle.transAxes, va="top", fontsize="small")
    middle.set_ylim(top=1.2 * middle.get_ylim()[1])

    right.set(xlabel="largest cosine with a row of W_E", ylabel="share of atoms", title="atoms that fire: nearest row")
    if cosine is None or null is None:
        right.text(0.5, 0.5, "the datamodule has no W_E of this width", transform=right.transAxes, ha="center")
    else:
        shown = {"random, covariance of W_E": null.numpy(), "atoms": cosine[alive].numpy()}
        low = min((float(np.nanmin(v)) for v in shown.values() if len(v)), default=0.0)
        edges = np.linspace(max(-1.0, low - 0.01), 1, 51).tolist()
        _draw_shares(right, shown["atoms"], edges, {"color": "C0", "alpha": 0.7, "label": "atoms"})
        style = {"histtype": "step", "color": "black", "lw": 1.3, "label": "random atoms, covariance of W_E"}
        _draw_shares(right, shown["random, covariance of W_E"], edges, style)
        right.legend(fontsize="small", loc="upper left")
        right.set_ylim(top=1.2 * right.get_ylim()[1])
    for axes in (left, middle, right):
        axes.grid(alpha=0.2)
        axes.set_axisbelow(True)
    return figure


def _draw_path(figure: Figure, axes: Axes, points: list[list[float]]) -> None:
    axes.set(xlabel="L0", ylabel="FVU", title="validations")
    if not points:
        axes.text(0.5, 0.5, "val/l0 and val/fvu were not logged", transform=axes.transAxes, ha="center")
        return
    step, l0, fvu = np.array(points).T
    axes.plot(l0, fvu, color="0.8", lw=1, zorder=1)
    dots = axes.scatter(l0, fvu, c=step, cmap="viridis", s=18, zorder=2)
    figure.colorbar(dots, ax=axes, label="step", pad=0.02)
    axes.set_ylim(bottom=0)


def _draw_shares(axes: Axes, values: np.ndarray, edges: list[float], style: dict[str, Any]) -> None:
    if len(values):
        axes.hist(values, bins=edges, weights=np.full(len(values), 1 / len(values)), **style)
