"""Phases of networks with two sparse features in one dimension: which features a network represents."""

import numpy as np

from zoo.analysis.two_feature_theory import expected_loss

PHASES = ("feature 2 ignored", "feature 2 dedicated (feature 1 ignored)", "superposition")


def grid(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return densities and importances of all points of a grid, (points²,) each; importances vary fastest."""
    importances = 10 ** np.linspace(-1, 1, points)
    return np.repeat(np.geomspace(0.01, 1, points), points), np.tile(importances, points)


def phase(theta: np.ndarray) -> np.ndarray:
    """Return the index into `PHASES` of networks (..., 4), (...) int.

    It depends on |w2|, and on the overlap of w1 with the direction of w2, which is |w1| in one dimension.
    """
    w1, w2 = np.abs(theta[..., 0]), np.abs(theta[..., 1])
    return np.where(w2 < 0.5, 0, np.where(w1 < 0.5, 1, 2))


def agree(one: np.ndarray, other: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return where phases are equal; at importance 1, phases with exchanged features are equally good and count too."""
    return (one == other) | ((importance == 1) & (one < 2) & (other < 2))


def best_of(theta: np.ndarray, p: np.ndarray, importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the network of smallest expected loss at every point, from (seeds, N, 4), and its loss, (N,)."""
    losses = expected_loss(theta, p, importance)
    return theta[losses.argmin(0), np.arange(len(p))], losses.min(0)


def flip_density(p: np.ndarray, theta: np.ndarray) -> float:
    """Return the density up to which both of two equally important features are represented.

    Args:
        p: Ascending densities, (P,).
        theta: Weights and biases at every density, (P, 4).

    Returns:
        Density at which the smaller of |w1| and |w2| falls below 1/2 for the last time, interpolated linearly in log p.
        NaN if it is below 1/2 at all densities, or at least 1/2 at the largest.
    """
    smaller = np.abs(theta[:, :2]).min(1)
    kept = np.flatnonzero(smaller >= 0.5)
    if not len(kept) or kept[-1] == len(p) - 1:
        return float("nan")
    last = kept[-1]
    share = (smaller[last] - 0.5) / (smaller[last] - smaller[last + 1])
    return float(p[last] * (p[last + 1] / p[last]) ** share)
