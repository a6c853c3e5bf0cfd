"""Tests whether tokens with a known order lie in this order, and on a circle or on an open line or arc.

The tests use three orthonormal waves over the positions u = (i + 1/2) / n of n members, i = 0 ... n - 1. Members on a
circle, in order, vary as cos 2πu and sin 2πu. Members on an open line or arc vary as cos πu and cos 2πu, the two
slowest waves of a path with two ends. Both shapes have the wave cos 2πu, called the *bend*. The *sweep* is the
normalised sum of sin 2πu and cos πu, and contains most of the remaining energy of both shapes. The *return* is the
normalised difference sin 2πu - cos πu. On a circle the return points in the same direction in R^D as the sweep, because
the last members come back to the first. On a line it points in the opposite direction.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zoo.analysis.multiple_tests import monte_carlo
from zoo.errors import ZooError

LEAST = 6  # members of a family; with 5, only one direction would be left to measure the noise in
PERMUTED_FROM = 9  # members; they have 20,160 orders, if rotated and reflected orders count as the same
NOISE_WAVES = 8  # at most; the slowest remaining waves, as noise may be similar for neighbours in the order
LEVEL = 0.05  # chance of calling an open arc a circle, and of calling a circle an open arc

Shape = Literal["circle", "line or arc", "undecided"]


class Circle(NamedTuple):
    """Results of the tests of one family: whether it is in order, and which shape it has."""

    share: float  # of the centred rows' energy in the first harmonic of the order: high on a circle
    arc_share: float  # of the energy in the two slowest waves of an open path: high on a line or arc
    expected: float  # share of the energy of isotropic rows in any two waves: 2 / (n - 1)
    p_value: float  # of the energy in bend and sweep, if the order has no meaning
    p_if_open: float  # of the return along the sweep, on an open line or arc
    p_if_closed: float  # of the return along the sweep, on a circle
    plane: Tensor  # (forms, n, 2): coordinates of the members in the plane of bend and sweep

    @property
    def shape(self) -> Shape:
        """Shape of the members, if they are in order; wrong for at most 5 % of circles and of open lines or arcs."""
        if self.p_if_open <= LEVEL:
            return "circle"
        return "line or arc" if self.p_if_closed <= LEVEL else "undecided"


def first_harmonic(n: int) -> Tensor:
    """Return the orthonormal cosine and sine of one turn over n positions, (2, n) float64."""
    angle = 2 * math.pi * _places(n)
    return torch.stack([angle.cos(), angle.sin()]) * math.sqrt(2 / n)


def open_path(n: int) -> Tensor:
    """Return the two slowest orthonormal waves of a path with two ends, (2, n) float64: DCT-II, k = 1, 2."""
    return torch.stack([(math.pi * k * _places(n)).cos() for k in (1, 2)]) * math.sqrt(2 / n)


@cache
def waves(n: int) -> Tensor:
    """Return orthonormal waves, (3 + at most 8, n) float64: bend, sweep, return, then the slowest remaining ones.

    Args:
        n: Number of positions, at least 6.
    """
    (bend, sine), (line, _) = first_harmonic(n), open_path(n)
    slow = [(math.pi * k * _places(n)).cos() for k in range(1, min(n, NOISE_WAVES + 4))]
    columns = torch.stack([torch.ones(n, dtype=torch.float64), bend, sine + line, sine - line, *slow], 1)
    found = columns[:, :0]
    for column in columns.T:  # Gram-Schmidt
        left = column - found @ (found.T @ column)
        left = left - found @ (found.T @ left)
        if left.norm() > 1e-6 * column.norm():
            found = torch.cat([found, (left / left.norm()).unsqueeze(1)], 1)
    return found.T[1 : 4 + NOISE_WAVES]


def circle(rows: Tensor, n_draws: int = 20_000, seed: int = 0) -> Circle:
    """Test whether a family is in order, and whether its shape is closed or open.

    *In order?* The statistic is the share of the centred rows' energy in bend and sweep. From 9 members on it is
    compared with its values under random orders; this test assumes nothing about the rows. Fewer members have too few
    orders for a small p-value (360 for 7). For them the centred rows are multiplied by random rotations of R^(n-1)
    instead, which keep the eigenvalues of their Gram matrix. This test is exact for independent Gaussian rows of any
    covariance (Langsrud 2005, Rotation tests, Statistics and Computing 15).

    *Closed or open?* The coefficient of the rows in the return wave, a vector in R^D, is projected on their coefficient
    in the sweep wave. Student's t compares this projection with the projections of the other slow waves, which
    are orthogonal to bend, sweep and return; t has one degree of freedom for each of them (n - 4, at most 8). For
    Gaussian noise of any covariance, t is exact if the expected return is orthogonal to the sweep. This is the
    border between closed and open shapes: an arc whose n - 1 steps, with one more step, cover 297°. A shorter arc, or a
    line with any monotone spacing, returns less, also with any bend that is symmetric about the middle. A circle
    returns more.

    Args:
        rows: Rows in order, (n, D), or (forms, n, D) for several forms of one family, such as with and without a
            capital. Every form is centred separately, their energies are added, and all get the same random orders.
        n_draws: Largest number of random orders or rotations, see `monte_carlo`.
        seed: Seed of the random orders or rotations.

    Raises:
        ZooError: If there are fewer than 6 members, too few to measure the noise, or all members have the same row.
    """
    from scipy import stats

    x = rows.double().view(-1, *rows.shape[-2:])
    n = x.shape[1]
    if n < LEAST:
        raise ZooError(f"a family of {n} is too small to test for a circle; at least {LEAST} members are needed")
    x = x - x.mean(1, keepdim=True)
    gram = torch.einsum("fid,fjd->ij", x, x)
    total = gram.trace()
    if total <= 0:
        raise ZooError("the members of a family all have the same row")
    bend, sweep, back, *noise = (wave @ x for wave in waves(n))  # each (forms, D)
    common = (bend.square().sum() + sweep.square().sum()) / total
    g = torch.Generator().manual_seed(seed)
    draw = _permuted(gram / total, g) if n >= PERMUTED_FROM else _rotated(gram / total, g)
    p_value = monte_carlo(draw, float(common), n_draws).p_value
    t = _t(sweep, back, torch.stack(noise))

    basis = torch.linalg.qr(torch.stack([bend, sweep], 2)).Q  # (forms, D, 2)
    return Circle(
        float(_energy(first_harmonic(n), gram) / total),
        float(_energy(open_path(n), gram) / total),
        2 / (n - 1),
        p_value,
        float(stats.t.sf(t, len(noise))),
        float(stats.t.cdf(t, len(noise))),
        (x @ basis).float(),
    )


def _places(n: int) -> Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def _energy(of: Tensor, gram: Tensor) -> Tensor:
    """Return the energy (...) of rows with Gram matrix (n, n) in orthonormal waves (..., waves, n)."""
    return ((of @ gram) * of).sum((-2, -1))


def _permuted(gram: Tensor, g: torch.Generator) -> Callable[[int], Tensor]:
    """Return a function that draws the share of bend and sweep under random orders."""
    n = len(gram)
    both = waves(n)[:2]
    return lambda count: _energy(both[:, torch.rand(count, n, generator=g).argsort(1)].transpose(0, 1), gram)


def _rotated(gram: Tensor, g: torch.Generator) -> Callable[[int], Tensor]:
    """Return a function that draws the share of two random orthonormal waves of mean zero."""
    values = torch.linalg.eigvalsh(gram)[1:]  # without the eigenvalue of the constant vector, which is 0

    def draw(count: int) -> Tensor:
        first, second = torch.randn(2, count, len(values), generator=g, dtype=torch.float64)
        first = first / first.norm(dim=1, keepdim=True)
        second = second - (first * second).sum(1, keepdim=True) * first
        second = second / second.norm(dim=1, keepdim=True)
        return (first.square() + second.square()) @ values

    return draw


def _t(sweep: Tensor, back: Tensor, noise: Tensor) -> float:
    """Project the return (forms, D) on the sweep, in standard deviations of the noise (m, forms, D)."""
    length = sweep.norm()
    if length == 0:
        return 0.0
    spread = ((noise * sweep).sum((1, 2)) / length).square().mean().sqrt()
    return float((back * sweep).sum() / length / (spread + 1e-9 * length))
