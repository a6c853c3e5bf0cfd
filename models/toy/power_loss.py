"""Exact losses of linear maps of rank d under the loss |error|^q, when one of n features is on.

The input is a unit vector e_i, and every i is equally likely. The output should be e_i. The loss is |1 - y_i|^q plus
`zero_weight` times the sum of |y_j|^q over the other outputs j. It is the loss per feature, so that y = 0 has loss 1.
"""

import math

import torch
from torch import Tensor

from zoo.errors import ZooError


def dedicated_loss(n: int, d: int) -> float:
    """Return the loss if d of n features have a dimension of their own and the others are 0: 1 - d/n."""
    _check(n, d)
    return 1 - d / n


def equiangular_loss(n: int, d: int, q: float, zero_weight: float = 1.0) -> float:
    """Return the smallest loss of multiples of the Gram matrix of an equiangular tight frame of n vectors.

    The Gram matrix has entries 1 and +-sqrt(g / (n - 1)) with g = (n - d) / d. With the diagonal beta of the map, and
    k = zero_weight (n - 1) (g / (n - 1))^(q/2), the loss is (1 - beta)^q + k beta^q. Its minimum is at
    beta = 1 / (1 + k^(1 / (q - 1))) and equals k / (1 + k^(1 / (q - 1)))^(q - 1). Features can also be divided into
    groups, each with a frame of its own, and a group of n features in d dimensions then has this loss.

    Such frames exist only for some n and d, see `equiangular_frame`. For q >= 2 the formula is also a lower bound for
    all maps of rank d with equal diagonal entries.

    Args:
        n: Number of features.
        d: Rank of the map, at most n.
        q: Exponent of the loss, above 1.
        zero_weight: Weight of the outputs that should be 0.

    Raises:
        ZooError: If a number is out of range.
    """
    _check(n, d)
    if not (q > 1 and zero_weight >= 0):
        raise ZooError(f"q is {q} and zero_weight is {zero_weight}; q must be above 1, and zero_weight at least 0")
    if n == d:
        return 0.0
    if zero_weight == 0:
        return 0.0
    log_k = math.log(zero_weight * (n - 1)) + q / 2 * math.log((n - d) / (d * (n - 1)))
    return math.exp(log_k - (q - 1) * _log1p_exp(log_k / (q - 1)))


def grouped_loss(n: int, d: int, q: float, zero_weight: float = 1.0) -> float:
    """Return the smallest loss of the known constructions: dedicated dimensions, and equal groups with frames.

    For every g that divides n and d, and for which `equiangular_frame` has a frame of n/g vectors in d/g dimensions,
    each of g groups has such a frame (`equiangular_loss`).

    Raises:
        ZooError: If a number is out of range.
    """
    found = [dedicated_loss(n, d)]
    for g in range(1, math.gcd(n, d) + 1):
        if n % g == d % g == 0:
            try:
                equiangular_frame(n // g, d // g)
            except ZooError:
                continue
            found.append(equiangular_loss(n // g, d // g, q, zero_weight))
    return min(found)


def sharing_threshold(q: float) -> float:
    """Return the weight on zeros below which two features in one dimension cost less than one dedicated dimension.

    The loss of the pair, w / (1 + w^(1 / (q - 1)))^(q - 1), equals 1/2 at w = (2^(1 / (q - 1)) - 1)^(1 - q). It is 1
    for q = 2, and below 1 for smaller q.

    Raises:
        ZooError: If q is not above 1.
    """
    if q <= 1:
        raise ZooError(f"q is {q}; it must be above 1")
    return math.exp((1 - q) * _log_expm1(math.log(2) / (q - 1)))


def equiangular_frame(n: int, d: int) -> Tensor:
    """Return unit vectors with equal |cosines| whose Gram matrix has rank d, (n, d) float64.

    The frames are orthonormal bases (d = n), simplices (d = n - 1), single directions (d = 1), and frames of n = 2 d
    vectors from Paley's conference matrices, for which n - 1 = 4 k + 1 is a prime or the square of one.

    Raises:
        ZooError: If there is no such frame among these.
    """
    _check(n, d)
    if d == n:
        return torch.eye(n, dtype=torch.float64)
    if d == 1:
        return torch.ones(n, 1, dtype=torch.float64)
    if d == n - 1:
        gram = (n * torch.eye(n, dtype=torch.float64) - 1) / d
    elif n == 2 * d and (n - 1) % 4 == 1 and _field(n - 1):
        gram = torch.eye(n, dtype=torch.float64) + _conference_matrix(n) / math.sqrt(n - 1)
    else:
        raise ZooError(
            f"no equiangular frame of {n} vectors in {d} dimensions is known to this function; it has d = 1, n - 1, n, "
            "and n / 2 if n - 1 = 4 k + 1 is a prime or the square of one, such as n = 6, 10, 14, 18, 26, 30"
        )
    values, vectors = torch.linalg.eigh(gram)
    return vectors[:, -d:] * values[-d:].sqrt()


def _conference_matrix(n: int) -> Tensor:
    """Return Paley's symmetric matrix with zero diagonal, entries +-1 and square (n - 1) I, (n, n)."""
    field = _field(n - 1)
    squares = {_product(x, x, field) for x in field if x != (0, 0)}
    C = torch.zeros(n, n, dtype=torch.float64)
    C[0, 1:] = C[1:, 0] = 1
    p = max(a for a, _ in field) + 1
    for i, (a, b) in enumerate(field):
        for j, (c, e) in enumerate(field):
            if i != j:
                C[i + 1, j + 1] = 1 if ((a - c) % p, (b - e) % p) in squares else -1
    return C


def _field(q: int) -> list[tuple[int, int]]:
    """Return the elements a + b w of the field of q = p or p² elements; b is 0 for p. For other q, return none."""
    p = q if _is_prime(q) else math.isqrt(q)
    if not _is_prime(p) or q not in (p, p * p):
        return []
    return [(a, b) for b in range(1 if q == p else p) for a in range(p)]


def _product(x: tuple[int, int], y: tuple[int, int], field: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the product of two elements, where w² is the smallest number that is no square modulo p."""
    p = max(a for a, _ in field) + 1
    squares = {a * a % p for a in range(1, p)}
    r = next((a for a in range(2, p) if a not in squares), 0)
    return (x[0] * y[0] + r * x[1] * y[1]) % p, (x[0] * y[1] + x[1] * y[0]) % p


def _log1p_exp(x: float) -> float:
    """Return ln(1 + e^x) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _log_expm1(x: float) -> float:
    """Return ln(e^x - 1) for positive x without overflow."""
    return x + math.log(-math.expm1(-x))


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % k for k in range(2, math.isqrt(n) + 1))


def _check(n: int, d: int) -> None:
    if not 1 <= d <= n:
        raise ZooError(f"the rank is {d} for {n} features; it must be 1 to {n}")
