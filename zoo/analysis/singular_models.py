"""Models whose learning coefficients, expected losses and volumes of nearly optimal parameters are known exactly.

K(w) >= 0 is the loss above its minimum, in nats per data point. V(t) is the share of parameters with K(w) <= t under
the prior. As t goes to 0, V(t) is proportional to t^λ (-ln t)^(m - 1): λ is the learning coefficient, m is its
multiplicity (Watanabe 2009, "Algebraic Geometry and Statistical Learning Theory", theorem 7.1). With inverse
temperature nβ, the expectation of nβK under the tempered posterior, which is proportional to exp(-nβK) times the prior,
goes to λ as nβ goes to infinity.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.errors import ZooError

SMALLEST_LOG_W = -36.0  # exp(-36) is the rounding error of a double
LARGEST_LOG_W = 2.5  # the Gaussian density of w = exp(2.5) is 1e-33
GRID_STEP = 0.04  # of ln K; the trapezoid rule converges exponentially, and half of it changes no digit of ten


@dataclass(frozen=True)
class LearningCoefficient:
    """A learning coefficient and its multiplicity.

    Args:
        value: Learning coefficient λ: half the number of parameters in a regular model, and less in a singular one.
        multiplicity: Multiplicity m. ln V(t) is λ ln t + (m - 1) ln(-ln t) up to a constant, as t goes to 0.
    """

    value: float
    multiplicity: int


def monomial_learning_coefficient(k: Sequence[int]) -> LearningCoefficient:
    """Return the learning coefficient of K(w) = prod_i w_i^(2 k_i), for a prior that is positive at w = 0.

    λ is the smallest 1 / (2 k_i), and m is the number of coordinates that have it (Watanabe 2009, section 4.2).

    Args:
        k: Exponents k_i >= 0, of which one is positive.

    Raises:
        ZooError: If an exponent is negative or not a whole number, or none is positive.
    """
    _check_exponents(k)
    return LearningCoefficient(1 / (2 * max(k)), list(k).count(max(k)))


def expected_monomial(k: Sequence[int], n_beta: float) -> float:
    """Return the expectation of nβK for K(w) = prod_i w_i^(2 k_i) under the prior exp(-|w|² / 2), by quadrature.

    The expectation is ∫ nβK exp(-nβK - |w|²/2) dw / ∫ exp(-nβK - |w|²/2) dw. It depends on w only through ln K, which
    is a sum of independent variables 2 k_i ln|w_i|. The density of the sum is the convolution of their densities.

    Args:
        k: Exponents k_i >= 0, of which one is positive.
        n_beta: Inverse temperature nβ, positive.

    Returns:
        The expectation. It goes to λ = min 1 / (2 k_i) as nβ goes to infinity: quickly if m is 1, and like
        λ - (m - 1) / ln nβ if m is larger.

    Raises:
        ZooError: If an exponent is negative or not a whole number, none is positive, or nβ is not positive.
    """
    _check_exponents(k)
    if not (math.isfinite(n_beta) and n_beta > 0):
        raise ZooError(f"n_beta is {n_beta}; it must be a positive number")
    density, start = np.ones(1), 0.0
    for k_i in (one for one in k if one):
        low, high = 2 * k_i * SMALLEST_LOG_W, 2 * k_i * LARGEST_LOG_W
        log_w = np.arange(low, high, GRID_STEP) / (2 * k_i)
        density, start = np.convolve(density, np.exp(log_w - np.exp(2 * log_w) / 2)), start + low
        density /= density.sum()
    n_beta_K = n_beta * np.exp(start + GRID_STEP * np.arange(len(density)))
    weight = density * np.exp(-n_beta_K)
    return float((weight * n_beta_K).sum() / weight.sum())


def reduced_rank(n_in: int, width: int, n_out: int, rank: int) -> LearningCoefficient:
    """Return the learning coefficient of reduced-rank regression y = B A x + noise.

    A is (width, n_in), B is (n_out, width), and the true matrix has the given rank r. Aoyagi and Watanabe 2005,
    "Stochastic complexities of reduced rank regression in Bayesian estimation", Neural Networks 18, main theorem. With
    M = n_in, N = n_out, H = width:

    1. N + r <= M + H, M + r <= N + H and H + r <= M + N: λ = (2(H + r)(M + N) + 2MN - (H + r)² - M² - N²) / 8 and m = 1
       if M + H + N + r is even; 1/8 more and m = 2 if it is odd.
    2. M + H < N + r: λ = (HM - Hr + Nr) / 2, m = 1.
    3. N + H < M + r: λ = (HN - Hr + Mr) / 2, m = 1.
    4. M + N < H + r: λ = MN / 2, m = 1.

    Conditions: the covariances of inputs and noise have full rank, and the prior is positive at the parameters that
    compute the true matrix. λ belongs to the most singular of them, where all factors that the true matrix does not
    need are zero. See `reduced_rank_generic` for the others.

    Raises:
        ZooError: If a width is not positive, or the rank is negative or larger than the smallest width.
    """
    _check_widths((n_in, width, n_out), rank)
    M, H, N, r = n_in, width, n_out, rank
    if N + r > M + H:
        return LearningCoefficient((H * M - H * r + N * r) / 2, 1)
    if M + r > N + H:
        return LearningCoefficient((H * N - H * r + M * r) / 2, 1)
    if H + r > M + N:
        return LearningCoefficient(M * N / 2, 1)
    odd = (M + H + N + r) % 2
    eighths = 2 * (H + r) * (M + N) + 2 * M * N - (H + r) ** 2 - M**2 - N**2 + odd
    return LearningCoefficient(eighths / 8, 1 + odd)


def reduced_rank_generic(n_in: int, width: int, n_out: int, rank: int) -> float:
    """Return the local learning coefficient of y = B A x + noise where A has full rank, such as at B = 0 for rank 0.

    There the parameters with the true matrix C form a smooth manifold, and λ is half its codimension, which is the rank
    of the Jacobian of B A by the parameters. The rows of A have to span those of C, which are rank * (n_in - width)
    equations, and A then determines the n_out * width entries of B:
    λ = (n_out * width + rank * (n_in - width)) / 2.

    Training ends at such a point rather than at the most singular one, which is a set of smaller dimension.

    Raises:
        ZooError: If a width is not positive, the rank is negative or larger than the smallest width, or the width is
            larger than n_in, so that the rows of A are dependent.
    """
    _check_widths((n_in, width, n_out), rank)
    if width > n_in:
        raise ZooError(f"width is {width}; it must be at most n_in, {n_in}, for A to have independent rows")
    return (n_out * width + rank * (n_in - width)) / 2


def deep_linear(widths: Sequence[int], rank: int) -> LearningCoefficient:
    """Return the learning coefficient of a deep linear network y = W_L ... W_1 x + noise.

    Aoyagi 2024, "Consideration on the learning efficiency of multiple-layered neural networks with linear units",
    Neural Networks 172 (arXiv 2303.15739), main theorem. With D_i = widths[i] - rank, take the l + 1 smallest D_i, for
    the smallest l >= 1 such that their sum S is below l times the next larger one, or all of them if there is no such
    l. With M = ceil(S / l) and a = S - (M - 1) l:

        λ = (rank (n_in + n_out) - rank²) / 2 + a (l - a) / (4 l) - (l - 1) S² / (4 l) + 1/2 sum_{i < j} D_i D_j
        m = a (l - a) + 1

    The sum is over pairs of the l + 1 chosen D_i. With two matrices this is `reduced_rank`, and with one matrix it is
    n_in * n_out / 2. Conditions are those of `reduced_rank`, and λ belongs to the most singular parameter.

    Args:
        widths: n_in, widths of the hidden layers, n_out; L + 1 numbers.
        rank: Rank of the true matrix.

    Raises:
        ZooError: If there are fewer than two widths, one is not positive, or the rank is negative or larger than the
            smallest width.
    """
    _check_widths(widths, rank)
    excess = sorted(width - rank for width in widths)
    last = len(excess) - 1
    l = next((n for n in range(1, last) if sum(excess[: n + 1]) < n * excess[n + 1]), last)  # noqa: E741
    chosen = excess[: l + 1]
    S = sum(chosen)
    a = S - (math.ceil(S / l) - 1) * l
    pairs = (S**2 - sum(D**2 for D in chosen)) / 2  # sum over i < j of D_i D_j
    needed = (rank * (widths[0] + widths[-1]) - rank**2) / 2
    value = needed + a * (l - a) / (4 * l) - (l - 1) * S**2 / (4 * l) + pairs / 2
    return LearningCoefficient(value, a * (l - a) + 1)


def cross_volume(t: float) -> float:
    """Return the area of the part of the unit square [0, 1]² with (w1 w2)² <= t: √t (1 - ln(t) / 2); 1 for t >= 1.

    Raises:
        ZooError: If t is not positive.
    """
    _check_threshold(t)
    return math.sqrt(t) * (1 - math.log(t) / 2) if t < 1 else 1.0


def cross_exponent(t: float) -> float:
    """Return the slope of ln V against ln t for `cross_volume`: 1/2 - 1 / (2 - ln t). Its limit at t = 0 is 1/2.

    Raises:
        ZooError: If t is not positive.
    """
    _check_threshold(t)
    return 0.5 - 1 / (2 - math.log(t)) if t < 1 else 0.0


def line_volume(t: float) -> float:
    """Return the area of the part of the unit square [0, 1]² with w1² <= t: √t; 1 for t >= 1.

    Raises:
        ZooError: If t is not positive.
    """
    _check_threshold(t)
    return min(math.sqrt(t), 1.0)


def squares_volume(area: float, squares: int, t: float) -> float:
    """Return the area of the points whose squared distance from a set of equal squares is at most t.

    It is area + 4 √(squares area t) + squares π t: every square with a band along its sides and quarter discs at its
    corners. Condition: the squares are more than 2 √t apart.

    Args:
        area: Area of all squares together, positive.
        squares: Number of squares.
        t: Largest squared distance, positive.

    Raises:
        ZooError: If the area, the number of squares or t is not positive.
    """
    _check_squares(area, squares, t)
    return area + 4 * math.sqrt(squares * area * t) + squares * math.pi * t


def squares_exponent(area: float, squares: int, t: float) -> float:
    """Return the slope of ln V against ln t for `squares_volume`. Its limit at t = 0 is 0.

    Raises:
        ZooError: If the area, the number of squares or t is not positive.
    """
    slope = 2 * math.sqrt(squares * area * t) + squares * math.pi * t
    return slope / squares_volume(area, squares, t)


def _check_exponents(k: Sequence[int]) -> None:
    for one in k:
        if one != int(one) or one < 0:
            raise ZooError(f"k has {one}; exponents must be whole numbers that are at least 0")
    if not any(k):
        raise ZooError(f"k is {list(k)}; at least one exponent must be positive")


def _check_widths(widths: Sequence[int], rank: int) -> None:
    if len(widths) < 2:
        raise ZooError(f"widths is {list(widths)}; at least the numbers of inputs and outputs are needed")
    if min(widths) < 1:
        raise ZooError(f"widths are {list(widths)}; each must be at least 1")
    if not 0 <= rank <= min(widths):
        raise ZooError(f"rank is {rank}; it must be between 0 and the smallest width, {min(widths)}")


def _check_threshold(t: float) -> None:
    if not (math.isfinite(t) and t > 0):
        raise ZooError(f"t is {t}; it must be a positive number")


def _check_squares(area: float, squares: int, t: float) -> None:
    _check_threshold(t)
    if not area > 0 or squares < 1:
        raise ZooError(f"there are {squares} squares with area {area} together; both must be positive")
