"""Two sparse features in one dimension: which of them a network keeps, over density and importance."""

import numpy as np

from zoo.analysis.two_feature_theory import expected_loss

PHASES = ("feature 2 ignored", "feature 2 dedicated (feature 1 ignored)", "superposition")


def grid(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Densities and importances of all points, (points²,) each; importances run faster."""
    importances = 10 ** np.linspace(-1, 1, points)
    return np.repeat(np.geomspace(0.01, 1, points), points), np.tile(importances, points)


def phase(theta: np.ndarray) -> np.ndarray:
    """Index into `PHASES` of networks (..., 4): by the size of w2 and its overlap with w1, which is |w1|; (...) int."""
    w1, w2 = np.abs(theta[..., 0]), np.abs(theta[..., 1])
    return np.where(w2 < 0.5, 0, np.where(w1 < 0.5, 1, 2))


def agree(one: np.ndarray, other: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Where phases are the same, or mirror images at importance 1, which are equally good."""
    return (one == other) | ((importance == 1) & (one < 2) & (other < 2))


def best_of(theta: np.ndarray, p: np.ndarray, importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of networks (seeds, N, 4) the one of least expected loss at each point, (N, 4), and its loss, (N,)."""
    losses = expected_loss(theta, p, importance)
    return theta[losses.argmin(0), np.arange(len(p))], losses.min(0)


def flip_density(p: np.ndarray, theta: np.ndarray) -> float:
    """The density up to which both of two equally important features are kept; NaN if none are, or at all densities.

    Args:
        p: Ascending densities, (P,).
        theta: Weights and biases at each, (P, 4).

    Returns:
        Where the smaller of |w1| and |w2| falls below 1/2 for good, between two densities by a straight line in log p.
    """
    smaller = np.abs(theta[:, :2]).min(1)
    kept = np.flatnonzero(smaller >= 0.5)
    if not len(kept) or kept[-1] == len(p) - 1:
        return float("nan")
    last = kept[-1]
    share = (smaller[last] - 0.5) / (smaller[last] - smaller[last + 1])
    return float(p[last] * (p[last + 1] / p[last]) ** share)
