"""Do tokens of a known cyclic order lie on a circle?"""

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.errors import ZooError

LEAST = 5  # members: of 4, one order in 3 is as good as the true one
EXACT_UP_TO = 8  # members whose orders are all tried
PERMUTATIONS_AT_ONCE = 2048


class Circle(NamedTuple):
    """How much of a family lies on a circle in its order, beside other orders and an open arc."""

    share: float  # of the centred rows' energy in the first harmonic of the order
    expected: float  # by isotropic rows, 2 / (n - 1)
    arc_share: float  # in the two slowest waves of an open path in the same order
    p_value: float  # of a share as high under permuted members
    plane: Tensor  # (forms, n, 2): where the members lie in the plane of the circle

    @property
    def closed(self) -> bool:
        """Whether a circle describes the rows at least as well as an open line or arc does, in as many dimensions."""
        return self.share >= self.arc_share


def first_harmonic(n: int) -> Tensor:
    """Orthonormal cosine and sine of one turn over n places, (2, n) float64."""
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.stack([angle.cos(), angle.sin()]) * math.sqrt(2 / n)


def open_path(n: int) -> Tensor:
    """The two slowest waves of a path with two ends over n places, orthonormal, (2, n) float64: DCT-II, k = 1, 2."""
    place = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.stack([(math.pi * place).cos(), (2 * math.pi * place).cos()]) * math.sqrt(2 / n)


def circle(rows: Tensor, n_permutations: int = 20_000, seed: int = 0) -> Circle:
    """Share of a family's variance in the first harmonic of its cyclic order, and its p-value.

    With X the centred rows in order and F the two orthonormal waves of one turn, the share is |F X|² / |X|², 1 for
    points evenly spaced on a circle and 2 / (n - 1) on average for isotropic rows, in however many dimensions. The
    p-value permutes the members: all orders that differ by more than rotation and reflection up to 8 members, random
    ones (and the true one) beyond. A straight line in the same order has a high share too (0.61 for even steps), so the
    share of an open path's two slowest waves stands beside it.

    Args:
        rows: (n, D), in order, or (forms, n, D) for several forms of one family, such as with and without a capital;
            each is centred on its own, energies are added up, and permutations are the same for all.
        n_permutations: Random orders, for more than 8 members.
        seed: Of these.

    Raises:
        ZooError: If there are fewer than 5 members, of which no order is surprising, or all are the same.
    """
    x = rows.double().view(-1, *rows.shape[-2:])
    n = x.shape[1]
    if n < LEAST:
        raise ZooError(f"a family of {n} has too few orders to tell a circle; at least {LEAST} members are needed")
    x = x - x.mean(1, keepdim=True)
    gram = torch.einsum("fid,fjd->ij", x, x)
    if gram.trace() <= 0:
        raise ZooError("the members of a family all have the same row")
    harmonic, path = first_harmonic(n), open_path(n)
    kernel = harmonic.T @ harmonic
    total = gram.trace()
    share = float((kernel * gram).sum() / total)
    as_high, tried = 0, 0
    for order in _orders(n, n_permutations, seed):
        permuted = gram[order.unsqueeze(2), order.unsqueeze(1)]  # (orders, n, n)
        as_high += int(((permuted * kernel).sum((1, 2)) / total >= share - 1e-9).sum())
        tried += len(order)
    # All orders hold the true one; to random ones it is added.
    p_value = as_high / tried if n <= EXACT_UP_TO else (1 + as_high) / (1 + tried)
    directions = harmonic @ x  # (forms, 2, D)
    basis = torch.linalg.qr(directions.mT).Q  # (forms, D, 2)
    return Circle(share, 2 / (n - 1), float(((path.T @ path) * gram).sum() / total), p_value, (x @ basis).float())


def _orders(n: int, n_permutations: int, seed: int) -> list[Tensor]:
    if n <= EXACT_UP_TO:
        rest = torch.tensor([(0, *order) for order in itertools.permutations(range(1, n)) if order[0] < order[-1]])
        return list(rest.split(PERMUTATIONS_AT_ONCE))
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(n), (n_permutations, 1)), axis=1)
    return list(torch.from_numpy(orders).split(PERMUTATIONS_AT_ONCE))
