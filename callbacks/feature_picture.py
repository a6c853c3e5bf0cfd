"""The figure that `FeatureGeometry` draws."""

from fractions import Fraction
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from torch import Tensor

from zoo.metrics import feature_dimensionality

KNOWN = [Fraction(3, 8), Fraction(2, 5), Fraction(1, 2), Fraction(2, 3), Fraction(1)]
PANELS = 8


def draw_features(W: Tensor, losses: Tensor) -> Figure:
    """Draw the feature directions of some seeds, and a histogram of the dimensionalities of all features of all seeds.

    For `d_hidden` 1 or 2 the directions themselves are drawn, on a line or in a plane, for the seeds of best, median
    and worst loss. For larger `d_hidden` the scalar products between the features of the best seed are drawn.

    Args:
        W: Feature directions, (n_seeds, n_features, d_hidden).
        losses: Loss of every seed, which orders the seeds, (n_seeds,); NaN comes last.
    """
    figure = Figure(figsize=(14, 4.6), dpi=110, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)  # type: ignore[union-attr, call-arg]
    parts: Any = figure.subfigures(1, 2, width_ratios=[1.9, 1])
    left, right = parts
    order = losses.nan_to_num(torch.inf).argsort(stable=True)
    if W.shape[2] == 2:
        _draw_planes(left, W, losses, order)
    elif W.shape[2] == 1:
        _draw_lines(left.subplots(), W, losses, order)
    else:
        _draw_products(left, W[order[0]], f"seed {order[0]}, the best: loss {losses[order[0]]:.5g}")
    _draw_dimensionalities(right.subplots(), feature_dimensionality(W).flatten().numpy())
    return figure


def _shown(order: Tensor) -> list[tuple[str, int]]:
    """Label and number of up to 8 seeds: the first, the middle and the last in the order given."""
    n = len(order)
    places = range(n) if n <= PANELS else [0, 1, 2, n // 2 - 1, n // 2, n - 3, n - 2, n - 1]
    names = {0: "best", n // 2: "median", n - 1: "worst"} if n > 2 else {0: "best"}
    return [(names.get(place, ""), int(order[place])) for place in places]


def _draw_planes(figure: Figure, W: Tensor, losses: Tensor, order: Tensor) -> None:
    shown = _shown(order)
    n_columns = min(4, len(shown))
    grid = figure.subplots(-(-len(shown) // n_columns), n_columns, squeeze=False, sharex=True, sharey=True)
    reach = 1.12 * max(W[[seed for _, seed in shown]].norm(dim=2).max().item(), 0.5)
    for axes, (name, seed) in zip(grid.flat, shown, strict=False):
        vectors = W[seed].numpy()
        ring = vectors[np.linalg.norm(vectors, axis=1) > 0.1 * reach]
        ring = ring[np.argsort(np.arctan2(ring[:, 1], ring[:, 0]))]
        axes.fill(*ring.T, facecolor="0.93", edgecolor="0.7", lw=1)
        for color, (x, y) in zip(_colors(len(vectors)), vectors, strict=True):
            axes.plot([0, x], [0, y], color=color, lw=1.8)
            axes.plot(x, y, "o", color=color, ms=5)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        axes.tick_params(labelsize="x-small", length=2)
        axes.grid(alpha=0.2)
        axes.set_title(f"seed {seed}{', ' * bool(name)}{name}\nloss {losses[seed]:.5g}", fontsize="small")
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()


def _draw_lines(axes: Axes, W: Tensor, losses: Tensor, order: Tensor) -> None:
    shown = _shown(order)
    for height, (_, seed) in enumerate(shown):
        axes.axhline(height, color="0.85", lw=1, zorder=0)
        values = W[seed, :, 0].numpy()
        for i, (color, value) in enumerate(zip(_colors(len(values)), values, strict=True)):
            axes.plot(value, height, "o", color=color, ms=7, alpha=0.8, label=f"feature {i}" if height == 0 else None)
    labels = [f"seed {seed}{', ' * bool(name)}{name}\nloss {losses[seed]:.5g}" for name, seed in shown]
    axes.set_yticks(range(len(shown)), labels, fontsize="small")
    axes.axvline(0, color="0.6", lw=1, zorder=0)
    axes.invert_yaxis()
    axes.set(xlabel="weight of the feature", title="features in one dimension")
    if W.shape[1] <= 10:
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def _draw_products(figure: Figure, W: Tensor, title: str) -> None:
    """Draw scalar products, norms and dimensionalities of the rows of W (n_features, d_hidden)."""
    products = (W @ W.T).numpy()
    sizes, n = np.abs(products), len(products)
    # The colour scale may end below the largest squared norm, so that products of different features stay visible.
    most = max((sizes * (1 - np.eye(n))).max(), sizes.max() / 4, 1e-12)
    image_axes, bars = figure.subplots(1, 2, width_ratios=[1.15, 1])
    image = image_axes.imshow(products, cmap="RdBu_r", norm=TwoSlopeNorm(0, -most, most))
    figure.colorbar(image, ax=image_axes, shrink=0.8, extend="both" if sizes.max() > most else "neither")
    image_axes.set(title="scalar products of features", xlabel="feature", ylabel="feature")
    places = np.arange(n)
    bars.barh(places - 0.2, W.norm(dim=1).numpy(), 0.4, color="C0", label="norm")
    bars.barh(places + 0.2, feature_dimensionality(W).numpy(), 0.4, color="C1", label="dimensionality")
    bars.set(ylim=(n - 0.5, -0.5), xlabel="norm; dimensionality", ylabel="feature", title=title)
    for axes in (image_axes.xaxis, image_axes.yaxis, bars.yaxis):
        axes.get_major_locator().set_params(integer=True)
    bars.grid(axis="x", alpha=0.2)
    bars.legend(fontsize="small")


def _draw_dimensionalities(axes: Axes, shares: np.ndarray) -> None:
    axes.hist(shares, bins=((np.arange(82) - 0.5) / 80).tolist(), color="C1")
    for known in KNOWN:
        axes.axvline(float(known), color="0.5", lw=0.7, ls=":")
        axes.annotate(
            str(known), (float(known), 1), xycoords=("data", "axes fraction"), xytext=(0, 2), fontsize="x-small",
            textcoords="offset points", ha={Fraction(3, 8): "right", Fraction(2, 5): "left"}.get(known, "center"),
        )  # fmt: skip
    axes.set(xlabel="dimensionality", ylabel="features of all seeds", xlim=(-0.01, 1.01))
    axes.set_title(" ", fontsize="small")  # room for the fractions


def _colors(n: int) -> np.ndarray:
    return matplotlib.colormaps["viridis"](np.linspace(0, 0.95, n))
