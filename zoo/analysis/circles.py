"""Are tokens of a known order in that order, and do they lie on a circle or on an open line or arc?

Three orthonormal waves over the places of n members decide, with u = (i + 1/2) / n for i = 0 ... n - 1. A circle in
order has cos 2πu and sin 2πu; an open line or arc has cos πu and cos 2πu, the two slowest waves of a path with two
ends. They share the *bend* cos 2πu. Of sin 2πu and cos πu the *sweep* is the normalised sum, in which both have most of
their energy, and the *return* is the normalised difference: on a circle it points the same way in R^D as the sweep,
since the last members come back to the first; on a line it points the opposite way, since they go on.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zoo.analysis.multiple_tests import monte_carlo
from zoo.errors import ZooError

LEAST = 6  # members: of 5, one direction is left to measure the noise in
PERMUTED_FROM = 9  # members, of which there are 20,160 orders that differ by more than rotation and reflection
NOISE_WAVES = 8  # at most, the slowest that are left: noise of neighbours in the order may be alike
LEVEL = 0.05  # chance of calling an open arc a circle, and a circle an open arc

Shape = Literal["circle", "line or arc", "undecided"]


class Circle(NamedTuple):
    """Whether a family is in order, and how it lies."""

    share: float  # of the centred rows' energy in the first harmonic of the order, which a circle has
    arc_share: float  # in the two slowest waves of an open path, which a line or arc has
    expected: float  # in any two waves, by isotropic rows: 2 / (n - 1)
    p_value: float  # of as much energy in bend and sweep, if the order meant nothing
    p_if_open: float  # of coming back as far, on an open line or arc
    p_if_closed: float  # of going on as far, on a circle
    plane: Tensor  # (forms, n, 2): where the members lie in the plane of bend and sweep

    @property
    def shape(self) -> Shape:
        """What the members lie on if they are in order, wrong in at most 5 % of circles and of open lines or arcs."""
        if self.p_if_open <= LEVEL:
            return "circle"
        return "line or arc" if self.p_if_closed <= LEVEL else "undecided"


def first_harmonic(n: int) -> Tensor:
    """Orthonormal cosine and sine of one turn over n places, (2, n) float64."""
    angle = 2 * math.pi * _places(n)
    return torch.stack([angle.cos(), angle.sin()]) * math.sqrt(2 / n)


def open_path(n: int) -> Tensor:
    """The two slowest waves of a path with two ends over n places, orthonormal, (2, n) float64: DCT-II, k = 1, 2."""
    return torch.stack([(math.pi * k * _places(n)).cos() for k in (1, 2)]) * math.sqrt(2 / n)


@cache
def waves(n: int) -> Tensor:
    """Bend, sweep and return, then up to 8 of the slowest waves without them, orthonormal, (3 + at most 8, n) float64.

    Args:
        n: Places, at least 6.
    """
    (bend, sine), (line, _) = first_harmonic(n), open_path(n)
    slow = [(math.pi * k * _places(n)).cos() for k in range(1, min(n, NOISE_WAVES + 4))]
    columns = torch.stack([torch.ones(n, dtype=torch.float64), bend, sine + line, sine - line, *slow], 1)
    found = columns[:, :0]
    for column in columns.T:  # Gram-Schmidt, without what the earlier ones hold already
        left = column - found @ (found.T @ column)
        left = left - found @ (found.T @ left)
        if left.norm() > 1e-6 * column.norm():
            found = torch.cat([found, (left / left.norm()).unsqueeze(1)], 1)
    return found.T[1 : 4 + NOISE_WAVES]


def circle(rows: Tensor, n_draws: int = 20_000, seed: int = 0) -> Circle:
    """Test the order of a family, and whether it is closed.

    *In order?* The statistic is the share of the centred rows' energy in bend and sweep. From 9 members on it is
    compared with the shares of random orders, whatever the rows are like. Fewer members have too few orders for a small
    p-value (360 for 7), so there the centred rows are turned by random rotations of R^(n-1) instead, which keeps all
    their inner products' eigenvalues; that is exact for independent Gaussian rows of any covariance (Langsrud 2005,
    Rotation tests, Statistics and Computing 15).

    *Closed or open?* The return wave's row is projected on the sweep's row, and compared with the projections of the
    other slow waves, which have no part in either, by Student's t with as many degrees of freedom (n - 4, at most 8).
    For Gaussian noise of any covariance, t is exact where the mean return is orthogonal to the sweep: between the
    closed and the open, on an arc whose n - 1 steps and one more cover 297°. An arc over less and a line in any
    monotone spacing return less, also with any bend that is symmetric about the middle; a circle returns more.

    Args:
        rows: (n, D), in order, or (forms, n, D) for several forms of one family, such as with and without a capital;
            each is centred on its own, energies are added up, and forms are drawn together.
        n_draws: Random orders or rotations, at most; fewer where p is above 0.05.
        seed: Of these.

    Raises:
        ZooError: If there are fewer than 6 members, which leave nothing to measure noise by, or all are the same.
    """
    from scipy import stats

    x = rows.double().view(-1, *rows.shape[-2:])
    n = x.shape[1]
    if n < LEAST:
        raise ZooError(f"a family of {n} is too small to tell a circle; at least {LEAST} members are needed")
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
    """Energy (...) in orthonormal waves (..., waves, n) of rows with Gram matrix (n, n)."""
    return ((of @ gram) * of).sum((-2, -1))


def _permuted(gram: Tensor, g: torch.Generator) -> Callable[[int], Tensor]:
    """Draws of the share of bend and sweep under random orders."""
    n = len(gram)
    both = waves(n)[:2]
    return lambda count: _energy(both[:, torch.rand(count, n, generator=g).argsort(1)].transpose(0, 1), gram)


def _rotated(gram: Tensor, g: torch.Generator) -> Callable[[int], Tensor]:
    """Draws of the share of any two orthonormal waves without mean."""
    values = torch.linalg.eigvalsh(gram)[1:]  # all but that of the mean, which is 0

    def draw(count: int) -> Tensor:
        first, second = torch.randn(2, count, len(values), generator=g, dtype=torch.float64)
        first = first / first.norm(dim=1, keepdim=True)
        second = second - (first * second).sum(1, keepdim=True) * first
        second = second / second.norm(dim=1, keepdim=True)
        return (first.square() + second.square()) @ values

    return draw


def _t(sweep: Tensor, back: Tensor, noise: Tensor) -> float:
    """How far the return (forms, D) goes along the sweep, in standard deviations of the noise's rows (m, forms, D)."""
    length = sweep.norm()
    if length == 0:
        return 0.0
    spread = ((noise * sweep).sum((1, 2)) / length).square().mean().sqrt()
    return float((back * sweep).sum() / length / (spread + 1e-9 * length))
