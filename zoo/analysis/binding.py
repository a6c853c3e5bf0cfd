"""Tests whether one row of a pair is a linear map of the other, by more than a scale and an offset.

Pairs of tokens in one relation, such as words and their plurals, have rows a and b, and b is predicted from a. The
models, from the simplest to the richest:

- the mean of b;
- a + m, with an offset m;
- s a + m, with a scale s;
- S a + m, with a separate scale for every principal direction of a;
- s R a + m, with a rotation R;
- s a + M a + m, with a matrix M fitted by ridge regression, which shrinks M towards 0.

If two rows share content and differ by noise, the best map shrinks the directions with little content. S does this as
well, so binding by a matrix requires a gain over S. All models are evaluated by cross-validation, on random folds and
on folds that are clusters of a. With clusters as folds, a map has to generalise to a kind of token that it was not
fitted on.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.analysis.multiple_tests import monte_carlo
from zoo.errors import ZooError

FOLDS = 5
STARTS = 10  # of k-means; the best one is used
ITERATIONS = 20
RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0)  # in units of the mean nonzero eigenvalue of a's centred Gram matrix
LEAST_PAIRS = 20
LEAST_VARIANCE = 1e-10  # along a direction, as a share of the largest
ENOUGH = 0.95  # the reported rank of M is the smallest with this share of the largest gain


class Binding(NamedTuple):
    """Cross-validated R² of b predicted from a, for every model, and the gain by a matrix."""

    pairs: int
    offset: float
    scale_offset: float
    shrinkage: float  # a scale per principal direction
    rotation: float
    matrix: float
    shuffled: float  # the matrix model, with the rows of b in random order
    gain: float  # R² of the matrix minus that of `scale_offset` or `shrinkage`, whichever is larger; random folds
    p_value: float  # of the gain over scale and offset, if the residuals of these have random signs
    class_gain: float  # like `gain`, on folds that are clusters of a
    class_p_value: float  # like `p_value`, on folds that are clusters of a
    rank: int  # smallest rank of M with 95 % of the largest gain; 0 if no rank gains
    gain_by_rank: list[float]  # gain for M of rank 0, 1, 2, ...


def binding(a: Tensor, b: Tensor, n_draws: int = 999, seed: int = 0) -> Binding:
    """Fit and evaluate all models.

    R² is 1 - (sum of squared errors) / (sum of squared errors of the mean of b over the other folds). For the p-values,
    the residuals of scale and offset get random signs (the wild bootstrap: Wu 1986, Annals of Statistics 14; signs by
    Davidson and Flachaire 2008, Journal of Econometrics 146). Every residual keeps its size and its row a, so residuals
    may grow with the rows, but their direction no longer depends on a. The best ridge is selected again for every draw.

    Args:
        a: First rows of the pairs, (n, D), n at least 20.
        b: Second rows of the pairs, (n, D), in the same order.
        n_draws: Largest number of draws of all signs, see `monte_carlo`.
        seed: Seed of the folds, clusters and signs.

    Raises:
        ZooError: If there are fewer than 20 pairs, or all rows a or all rows b are the same.
    """
    n = len(a)
    if n < LEAST_PAIRS:
        raise ZooError(f"{n} pairs are too few for {FOLDS} folds; at least {LEAST_PAIRS} are needed")
    a, b = a.double(), b.double()
    rng = np.random.default_rng(seed)
    centred_a, centred_b = a - a.mean(0), b - b.mean(0)
    if not centred_a.any() or not centred_b.any():
        raise ZooError("the first rows of all pairs of a relation are the same, or all second rows are")
    scale = float((centred_a * centred_b).sum() / centred_a.square().sum())
    rest = centred_b - scale * centred_a
    at_random = torch.from_numpy(rng.permutation(np.arange(n) % FOLDS))
    mean, ridges = _mean_operator(at_random), _ridge_operators(a, at_random)
    total = _squares(b, mean)
    plain, best, ridge = _gains(rest, mean, ridges)
    axes = _axes_of_folds(a, at_random)
    shrunk = _shrinkage(a, rest, at_random, axes)
    p_value = _p_value(rest, mean, ridges, plain - best, n_draws, seed)
    shuffled = _gains(b[torch.from_numpy(rng.permutation(n))], mean, ridges)[1]
    by_kind = clusters(a, FOLDS, seed)
    class_mean, class_ridges = _mean_operator(by_kind), _ridge_operators(a, by_kind)
    class_plain, class_best, _ = _gains(rest, class_mean, class_ridges)
    class_total = _squares(b, class_mean)
    class_shrunk = _shrinkage(a, rest, by_kind, _axes_of_folds(a, by_kind))
    by_rank = _gain_by_rank(a, rest, at_random, axes, ridge, total)
    return Binding(
        n,
        1 - _squares(b - a, mean) / total,
        1 - plain / total,
        1 - shrunk / total,
        1 - _rotation(a, b, at_random, axes) / total,
        1 - best / total,
        1 - shuffled / total,
        (min(plain, shrunk) - best) / total,
        p_value,
        (min(class_plain, class_shrunk) - class_best) / class_total,
        _p_value(rest, class_mean, class_ridges, class_plain - class_best, n_draws, seed),
        _rank(by_rank),
        by_rank,
    )


def clusters(rows: Tensor, n: int, seed: int = 0) -> Tensor:
    """Assign rows (N, D) to n clusters whose sizes differ by at most one, near the centres of k-means, (N,).

    Rows are centred and compared by direction.
    """
    from scipy.optimize import linear_sum_assignment

    x = torch.nn.functional.normalize(rows.double() - rows.double().mean(0)).numpy()
    middles = _middles(x, n, np.random.default_rng(seed))
    places = np.sort(np.arange(len(x)) % n)  # cluster of every place
    _, chosen = linear_sum_assignment(((middles**2).sum(1) - 2 * x @ middles.T)[:, places])
    return torch.from_numpy(places[chosen])


def _middles(x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return the best n centres (n, D) of rows (N, D) by k-means from several starts of k-means++."""
    middles = x[rng.integers(len(x), size=(STARTS, 1))]  # (starts, 1, D)
    while middles.shape[1] < n:
        far = _squared_distances(x, middles).min(2).cumsum(1)  # (starts, N)
        at = (far < rng.random((STARTS, 1)) * far[:, -1:]).sum(1)
        middles = np.concatenate([middles, x[at.clip(max=len(x) - 1)][:, None]], 1)
    for _ in range(ITERATIONS):
        own = np.eye(n)[_squared_distances(x, middles).argmin(2)]  # (starts, N, n)
        size = own.sum(1)[:, :, None]
        middles = np.where(size > 0, own.transpose(0, 2, 1) @ x / size.clip(min=1), middles)
    return middles[_squared_distances(x, middles).min(2).sum(1).argmin()]


def _squared_distances(x: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Return squared distances between rows (N, D) and centres (starts, n, D), (starts, N, n)."""
    return ((middles**2).sum(2)[:, None] - 2 * x @ middles.transpose(0, 2, 1) + (x**2).sum(1)[:, None]).clip(min=0)


def _mean_operator(folds: Tensor) -> Tensor:
    """Return P (n, n) that predicts every row by the mean of the rows in other folds."""
    others = (folds.unsqueeze(1) != folds).double()
    return others / others.sum(1, keepdim=True)


def _ridge_operators(a: Tensor, folds: Tensor) -> list[Tensor]:
    """Return P (n, n) for every ridge, which predicts every row from its a by a fit to the rows in other folds."""
    n = len(a)
    operators = [torch.zeros(n, n, dtype=torch.float64) for _ in RIDGES]
    for test in (folds == f for f in folds.unique()):
        mean = a[~test].mean(0)
        train = a[~test] - mean
        values, vectors = torch.linalg.eigh(train @ train.T)
        cross = (a[test] - mean) @ train.T @ vectors
        unit = values.sum() / min(train.shape)
        centre = torch.eye(len(train), dtype=torch.float64) - 1 / len(train)
        places = test.nonzero(), (~test).nonzero().T
        for P, ridge in zip(operators, RIDGES, strict=True):
            weights = cross / (values.clamp(min=0) + ridge * unit) @ vectors.T @ centre + 1 / len(train)
            P[places] = weights
    return operators


def _squares(y: Tensor, P: Tensor) -> float:
    return float((y - P @ y).square().sum())


def _gains(rest: Tensor, mean: Tensor, ridges: Sequence[Tensor]) -> tuple[float, float, float]:
    """Return squared errors without a matrix and with the best ridge, and this ridge."""
    errors = [_squares(rest, P) for P in ridges]
    at = int(np.argmin(errors))
    return _squares(rest, mean), errors[at], RIDGES[at]


def _p_value(rest: Tensor, mean: Tensor, ridges: Sequence[Tensor], gain: float, n_draws: int, seed: int) -> float:
    """Return the p-value of a matrix's gain, if all residuals y have random signs.

    |(1 - P) S y|² with signs s on the diagonal of S is s' (((1 - P)'(1 - P)) ∘ (y y')) s, so the draws need no fits.
    """
    eye, gram = torch.eye(len(rest), dtype=torch.float64), rest @ rest.T
    plain, *left = ((eye - P).T @ (eye - P) * gram for P in (mean, *ridges))
    gains = [(plain - of).float() for of in left]
    g = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Tensor:
        signs = torch.randint(2, (count, len(rest)), generator=g).float() * 2 - 1
        return torch.stack([(signs @ of * signs).sum(1) for of in gains]).amax(0)

    return monte_carlo(draw, gain * (1 - 1e-6), n_draws).p_value


def _shrinkage(a: Tensor, rest: Tensor, folds: Tensor, axes_of_a: Sequence[Tensor]) -> float:
    """Return squared errors with a scale for every principal direction of a, fitted with the best ridge.

    The scale is 0 along directions in which the other folds do not vary.
    """
    errors = torch.zeros(len(RIDGES), dtype=torch.float64)
    for axes, test in zip(axes_of_a, (folds == f for f in folds.unique()), strict=True):
        mean, offset = a[~test].mean(0), rest[~test].mean(0)
        x, y, wanted = (a[~test] - mean) @ axes, (rest[~test] - offset) @ axes, (rest[test] - offset) @ axes
        energy = x.square().sum(0)
        whole = (rest[test] - offset).square().sum() - wanted.square().sum()
        for i, ridge in enumerate(RIDGES):
            scales = (x * y).sum(0) / (energy + ridge * energy.sum() / a.shape[1])
            errors[i] += whole + (wanted - (a[test] - mean) @ axes * scales).square().sum()
    return float(errors.min())


def _rotation(a: Tensor, b: Tensor, folds: Tensor, axes_of_a: Sequence[Tensor]) -> float:
    """Return squared errors of the best scaled rotation and offset (orthogonal Procrustes).

    If there are fewer pairs than dimensions, the rotation maps the span of the rows a to that of the rows b. Everything
    else is mapped to 0, because the pairs say nothing about it.
    """
    error = 0.0
    for from_a, test in zip(axes_of_a, (folds == f for f in folds.unique()), strict=True):
        mean_a, mean_b = a[~test].mean(0), b[~test].mean(0)
        x, y = a[~test] - mean_a, b[~test] - mean_b
        from_b = _principal_axes(y)
        U, S, Vh = torch.linalg.svd((x @ from_a).T @ (y @ from_b), full_matrices=False)
        turned = (a[test] - mean_a) @ from_a @ U @ Vh @ from_b.T
        error += float((b[test] - mean_b - S.sum() / x.square().sum() * turned).square().sum())
    return error


def _gain_by_rank(
    a: Tensor, rest: Tensor, folds: Tensor, axes_of_a: Sequence[Tensor], ridge: float, total: float
) -> list[float]:
    """Return the gain in R² of reduced-rank ridge regression, for ranks 0, 1, ... of the fitted values."""
    rank = min(a.shape[1], len(a) - 2 - len(a) // FOLDS)
    changes = torch.zeros(rank, dtype=torch.float64)
    for own, test in zip(axes_of_a, (folds == f for f in folds.unique()), strict=True):
        mean, offset = a[~test].mean(0), rest[~test].mean(0)
        x, y = (a[~test] - mean) @ own, rest[~test] - offset
        unit = x.square().sum() / min(len(a) - test.sum().item(), a.shape[1])
        M = (x.T @ y) / (x.square().sum(0) + ridge * unit).unsqueeze(1)
        axes = _principal_axes(x @ M)[:, :rank]
        predicted, wanted = (a[test] - mean) @ own @ M @ axes, (rest[test] - offset) @ axes
        changes[: axes.shape[1]] += (wanted.square() - (wanted - predicted).square()).sum(0)
    return [0.0, *(changes.cumsum(0) / total).tolist()]


def _axes_of_folds(a: Tensor, folds: Tensor) -> list[Tensor]:
    """Return, for every fold, the principal directions of the rows (n, D) outside it, (D, rank)."""
    outside = [a[folds != f] for f in folds.unique()]
    return [_principal_axes(rows - rows.mean(0)) for rows in outside]


def _principal_axes(x: Tensor) -> Tensor:
    """Return the principal directions of rows (n, D) along which they vary, by falling variance, (D, rank)."""
    if len(x) >= x.shape[1]:
        values, axes = torch.linalg.eigh(x.T @ x)
        return axes.flip(1)[:, : int((values > LEAST_VARIANCE * values[-1]).sum())]
    values, places = torch.linalg.eigh(x @ x.T)
    some = values > LEAST_VARIANCE * values[-1]
    return (x.T @ places[:, some] / values[some].sqrt()).flip(1)


def _rank(gain_by_rank: list[float]) -> int:
    best = max(gain_by_rank)
    return next(rank for rank, gain in enumerate(gain_by_rank) if gain >= ENOUGH * best)
