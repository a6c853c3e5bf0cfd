"""Is one row of a pair a linear map of the other, and is the map more than a scale and an offset?

Rows b are predicted from rows a of pairs in one relation, such as words and their plurals. The models, from poor to
rich: the mean of b; a + m; s a + m; S a + m with a scale of its own for every principal direction of a; s R a + m with
a rotation R; s a + M a + m with a matrix M by ridge regression, which pulls towards the scalar. Where two rows share
content and differ by noise, the best map shrinks directions in which there is little content, which S does; binding by
a matrix has to gain over that. All are judged by cross-validation: on folds drawn at random, and on folds that are
clusters of a, so that a map has to carry over to fillers of a kind that it has not seen.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.analysis.multiple_tests import monte_carlo
from zoo.errors import ZooError

FOLDS = 5
STARTS = 10  # of k-means, of which the best counts
ITERATIONS = 20
RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0)  # in units of the mean of the variance's eigenvalues
LEAST_PAIRS = 20
ENOUGH = 0.95  # of the best gain, at the rank that is reported


class Binding(NamedTuple):
    """Cross-validated R² of b from a, by model, and what a matrix adds."""

    pairs: int
    offset: float
    scale_offset: float
    shrinkage: float  # a scale per principal direction
    rotation: float
    matrix: float
    shuffled: float  # matrix, b dealt out to the a at random
    gain: float  # of the matrix over scale and offset, or over a scale per direction if that is better; random folds
    p_value: float  # of a gain over scale and offset as large when what these leave has random signs
    class_gain: float  # the same, over folds that are clusters of a
    class_p_value: float
    rank: int  # of M, the least that has 95 % of the gain; 0 if there is none
    gain_by_rank: list[float]  # of rank 0, 1, 2, ...


def binding(a: Tensor, b: Tensor, n_draws: int = 999, seed: int = 0) -> Binding:
    """Fit and judge all models.

    R² is 1 - (sum of squared errors) / (sum of squared errors of the mean of b over the other folds). The p-values give
    the residuals of scale and offset random signs (the wild bootstrap: Wu 1986, Annals of Statistics 14; signs by
    Davidson and Flachaire 2008, Journal of Econometrics 146), which keeps the size of every residual beside its a, so
    residuals may grow with the rows, and breaks what a says of their direction. The ridge that does best is chosen anew
    for every draw.

    Args:
        a: (n, D), n at least 20.
        b: (n, D), in the same order.
        n_draws: Draws of all signs, at most; fewer where p is above 0.05.
        seed: Of folds, clusters and signs.

    Raises:
        ZooError: If there are too few pairs, or all b or all a are the same.
    """
    n = len(a)
    if n < LEAST_PAIRS:
        raise ZooError(f"{n} pairs are too few for {FOLDS} folds; at least {LEAST_PAIRS} are needed")
    a, b = a.double(), b.double()
    rng = np.random.default_rng(seed)
    centred_a, centred_b = a - a.mean(0), b - b.mean(0)
    if not centred_a.any() or not centred_b.any():
        raise ZooError("all rows of one side of a relation are the same")
    scale = float((centred_a * centred_b).sum() / centred_a.square().sum())
    rest = centred_b - scale * centred_a
    at_random = torch.from_numpy(rng.permutation(np.arange(n) % FOLDS))
    mean, ridges = _mean_operator(at_random), _ridge_operators(a, at_random)
    total = _squares(b, mean)
    plain, best, ridge = _gains(rest, mean, ridges)
    shrunk = _shrinkage(a, rest, at_random)
    p_value = _p_value(rest, mean, ridges, plain - best, n_draws, seed)
    shuffled = _gains(b[torch.from_numpy(rng.permutation(n))], mean, ridges)[1]
    by_kind = clusters(a, FOLDS, seed)
    class_mean, class_ridges = _mean_operator(by_kind), _ridge_operators(a, by_kind)
    class_plain, class_best, _ = _gains(rest, class_mean, class_ridges)
    class_total = _squares(b, class_mean)
    class_shrunk = _shrinkage(a, rest, by_kind)
    by_rank = _gain_by_rank(a, rest, at_random, ridge, total)
    return Binding(
        n,
        1 - _squares(b - a, mean) / total,
        1 - plain / total,
        1 - shrunk / total,
        1 - _rotation(a, b, at_random) / total,
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
    """Assign rows (N, D) to n clusters of equal size, give or take one, near the middles that k-means finds, (N,).

    Rows are compared by direction, about their mean.
    """
    from scipy.optimize import linear_sum_assignment

    x = torch.nn.functional.normalize(rows.double() - rows.double().mean(0)).numpy()
    middles = _middles(x, n, np.random.default_rng(seed))
    places = np.sort(np.arange(len(x)) % n)  # as many in every cluster as there are rows for it
    _, chosen = linear_sum_assignment(((middles**2).sum(1) - 2 * x @ middles.T)[:, places])
    return torch.from_numpy(places[chosen])


def _middles(x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """The best n middles (n, D) of rows (N, D) that k-means finds from several starts at once, by k-means++."""
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
    """Between rows (N, D) and middles (starts, n, D), (starts, N, n)."""
    return ((middles**2).sum(2)[:, None] - 2 * x @ middles.transpose(0, 2, 1) + (x**2).sum(1)[:, None]).clip(min=0)


def _mean_operator(folds: Tensor) -> Tensor:
    """P (n, n) that predicts every row by the mean of the rows in other folds."""
    others = (folds.unsqueeze(1) != folds).double()
    return others / others.sum(1, keepdim=True)


def _ridge_operators(a: Tensor, folds: Tensor) -> list[Tensor]:
    """For every ridge, P (n, n) that predicts every row from its a by what the rows in other folds show."""
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
    """Squared errors without a matrix and with the best ridge, and that ridge."""
    errors = [_squares(rest, P) for P in ridges]
    at = int(np.argmin(errors))
    return _squares(rest, mean), errors[at], RIDGES[at]


def _p_value(rest: Tensor, mean: Tensor, ridges: Sequence[Tensor], gain: float, n_draws: int, seed: int) -> float:
    """Chance that a matrix gains as much if all residuals y have random signs.

    |(1 - P) S y|² with signs s on the diagonal of S is s' (((1 - P)'(1 - P)) ∘ (y y')) s, so no draw is fitted.
    """
    eye, gram = torch.eye(len(rest), dtype=torch.float64), rest @ rest.T
    plain, *left = ((eye - P).T @ (eye - P) * gram for P in (mean, *ridges))
    gains = [(plain - of).float() for of in left]
    g = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Tensor:
        signs = torch.randint(2, (count, len(rest)), generator=g).float() * 2 - 1
        return torch.stack([(signs @ of * signs).sum(1) for of in gains]).amax(0)

    return monte_carlo(draw, gain * (1 - 1e-6), n_draws).p_value


def _shrinkage(a: Tensor, rest: Tensor, folds: Tensor) -> float:
    """Squared errors with a scale for every principal direction of a, each by ridge regression; of the best ridge."""
    errors = torch.zeros(len(RIDGES), dtype=torch.float64)
    for test in (folds == f for f in folds.unique()):
        mean, offset = a[~test].mean(0), rest[~test].mean(0)
        axes = torch.linalg.eigh((a[~test] - mean).T @ (a[~test] - mean)).eigenvectors
        x, y = (a[~test] - mean) @ axes, (rest[~test] - offset) @ axes
        energy = x.square().sum(0)
        for i, ridge in enumerate(RIDGES):
            scales = (x * y).sum(0) / (energy + ridge * energy.mean())
            errors[i] += ((rest[test] - offset) @ axes - (a[test] - mean) @ axes * scales).square().sum()
    return float(errors.min())


def _rotation(a: Tensor, b: Tensor, folds: Tensor) -> float:
    """Squared errors of the best scaled rotation and offset (orthogonal Procrustes)."""
    error = 0.0
    for test in (folds == f for f in folds.unique()):
        mean_a, mean_b = a[~test].mean(0), b[~test].mean(0)
        x, y = a[~test] - mean_a, b[~test] - mean_b
        U, S, Vh = torch.linalg.svd(x.T @ y)
        error += float((b[test] - mean_b - S.sum() / x.square().sum() * (a[test] - mean_a) @ U @ Vh).square().sum())
    return error


def _gain_by_rank(a: Tensor, rest: Tensor, folds: Tensor, ridge: float, total: float) -> list[float]:
    """Gain in R² of reduced-rank ridge regression, of rank 0, 1, ...: only the fit's leading principal directions."""
    rank = min(a.shape[1], len(a) - 2 - len(a) // FOLDS)
    changes = torch.zeros(rank, dtype=torch.float64)
    for test in (folds == f for f in folds.unique()):
        mean, offset = a[~test].mean(0), rest[~test].mean(0)
        x, y = a[~test] - mean, rest[~test] - offset
        unit = x.square().sum() / min(x.shape)
        system = x.T @ x + ridge * unit * torch.eye(x.shape[1], dtype=torch.float64)
        M = torch.linalg.solve(system, x.T @ y)
        axes = torch.linalg.eigh(M.T @ (x.T @ x) @ M).eigenvectors.flip(1)[:, :rank]
        predicted, wanted = (a[test] - mean) @ M @ axes, (rest[test] - offset) @ axes
        changes += (wanted.square() - (wanted - predicted).square()).sum(0)
    return [0.0, *(changes.cumsum(0) / total).tolist()]


def _rank(gain_by_rank: list[float]) -> int:
    best = max(gain_by_rank)
    return next(rank for rank, gain in enumerate(gain_by_rank) if gain >= ENOUGH * best)
