"""Exact expected loss of a toy model of superposition with two sparse features in one dimension, and its minimum."""

import numpy as np

STARTS = [(1.0, -1.0), (1.0, -0.5), (0.5, -1.0), (1.0, 1.0), (1.0, 0.02), (0.02, 1.0)]  # (w1, w2) of the starts
NODES = 0.5 + np.array([-1, 1]) / 12**0.5  # two Gauss-Legendre nodes on [0, 1]: exact for cubic polynomials


def expected_loss(theta: np.ndarray, p: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return the expected loss of y = ReLU(w (w·x) + b) with two features.

    Each feature is on with probability p, and is then uniform in [0, 1].

    Args:
        theta: Weights and biases (w1, w2, b1, b2), (..., 4) float64.
        p: Density, (...).
        importance: Importance of the second feature, (...); that of the first feature is 1.

    Returns:
        E[(y1 - x1)² + importance (y2 - x2)²], exact up to rounding, (...).
    """
    residuals, _ = _residuals(theta, p, importance)
    return (residuals**2).sum(-1)


def minimum(p: np.ndarray, importance: np.ndarray, steps: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Minimise the expected loss over weights and biases, by descents from several starts.

    The starts in `STARTS` have either feature alone, or both with equal or opposite signs. The method is that of
    Levenberg and Marquardt, for all points and starts at once.

    Args:
        p: Densities, (N,).
        importance: Importances of the second feature, (N,).
        steps: Number of steps of every descent.

    Returns:
        The best (w1, w2, b1, b2), (N, 4), with w1 >= 0, and their losses, (N,).
    """
    n, k = len(p), len(STARTS)
    p, importance = (np.repeat(v, k).astype(float) for v in (p, importance))
    theta = np.concatenate([np.tile(STARTS, (n, 1)), np.zeros((n * k, 2))], 1)
    damping = np.full(n * k, 1e-2)
    loss = expected_loss(theta, p, importance)
    for _ in range(steps):
        residuals, jacobian = _residuals(theta, p, importance)
        curvature = np.einsum("nqi,nqj->nij", jacobian, jacobian)
        scale = damping * (np.trace(curvature, axis1=1, axis2=2) + 1e-12)
        slope = np.einsum("nqi,nq->ni", jacobian, residuals)
        step = np.linalg.solve(curvature + scale[:, None, None] * np.eye(4), -slope[..., None])[..., 0]
        tried = expected_loss(theta + step, p, importance)
        better = tried < loss
        theta = np.where(better[:, None], theta + step, theta)
        loss = np.where(better, tried, loss)
        damping = np.clip(np.where(better, damping / 3, damping * 3), 1e-9, 1e9)
    best = loss.reshape(n, k).argmin(1)
    chosen = theta.reshape(n, k, 4)[np.arange(n), best]
    chosen[:, :2] *= np.where(chosen[:, :1] < 0, -1, 1)
    return chosen, loss.reshape(n, k)[np.arange(n), best]


def _residuals(theta: np.ndarray, p: np.ndarray, importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return errors (..., Q) whose squares sum to the expected loss, and their derivatives by theta (..., Q, 4).

    Every error belongs to one output at one node of the quadrature. Its factor is the square root of the node's weight
    times the output's importance.
    """
    errors, slopes = [], []
    for own, other in ((0, 1), (1, 0)):
        x, weight = _nodes(theta, own, other, p)
        on = theta[..., own, None] * x[0] + theta[..., other, None] * x[1]  # w · x
        output = theta[..., own, None] * on + theta[..., 2 + own, None]
        factor = np.sqrt(weight * (importance[..., None] if own else 1.0))
        errors.append(factor * (np.maximum(output, 0) - x[0]))
        slope = np.zeros((*output.shape, 4))
        slope[..., own] = on + theta[..., own, None] * x[0]
        slope[..., other] = theta[..., own, None] * x[1]
        slope[..., 2 + own] = 1
        slopes.append(slope * (factor * (output > 0))[..., None])
    return np.concatenate(errors, -1), np.concatenate(slopes, -2)


def _nodes(theta: np.ndarray, own: int, other: int, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a quadrature for output `own`: values of its feature and of the other, (2, ..., Q), and weights (..., Q).

    The squared error is a quadratic polynomial on either side of the line on which the ReLU switches, so both sides get
    nodes of their own. With one feature on, the domain is [0, 1]. With both on, it is the unit square, which is first
    cut into strips where the line leaves it.
    """
    b, square = theta[..., 2 + own], theta[..., own] ** 2
    product = theta[..., own] * theta[..., other]
    nothing = np.zeros((*b.shape, 1))
    own_alone, own_weight = _pieces(_root(b, square)[..., None])
    other_alone, other_weight = _pieces(_root(b, product)[..., None])
    cuts = np.sort(np.stack([_root(b, square), _root(b + product, square)], -1), -1)
    x, x_weight = _pieces(cuts)
    line = b[..., None] + square[..., None] * x
    y, y_weight = _pieces(_root(line, np.broadcast_to(product[..., None], x.shape))[..., None])  # (..., 6, 4)
    both = np.stack([np.broadcast_to(x[..., None], y.shape), y]).reshape(2, *b.shape, -1)
    both_weight = (x_weight[..., None] * y_weight).reshape(*b.shape, -1)
    features = np.concatenate(
        [
            np.stack([nothing, nothing]),
            np.stack([own_alone, np.zeros_like(own_alone)]),
            np.stack([np.zeros_like(other_alone), other_alone]),
            both,
        ],
        -1,
    )
    p = p[..., None]
    weights = [(1 - p) ** 2 + nothing, p * (1 - p) * own_weight, p * (1 - p) * other_weight, p**2 * both_weight]
    return features, np.concatenate(weights, -1)


def _pieces(cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights on [0, 1], cut into pieces at (..., c) ascending points, (..., 2 c + 2) each."""
    ends = np.concatenate([np.zeros_like(cuts[..., :1]), cuts, np.ones_like(cuts[..., :1])], -1)
    lengths = np.diff(ends)[..., None]
    nodes = ends[..., :-1, None] + lengths * NODES
    weights = np.broadcast_to(lengths / 2, nodes.shape)
    return nodes.reshape(*cuts.shape[:-1], -1), weights.reshape(*cuts.shape[:-1], -1)


def _root(constant: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return the root of constant + slope x, clipped to [0, 1]; 0 if the slope is 0."""
    return np.clip(np.divide(-constant, slope, out=np.zeros_like(slope), where=slope != 0), 0, 1)
