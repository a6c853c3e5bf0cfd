"""Rings among the rows of an embedding, when no order is known."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SIZES = (12, 24)
PLANES = ((0, 1), (1, 2))  # of principal components
GROUPS_AT_ONCE = 2048


class Ring(NamedTuple):
    """The roundest group of neighbouring rows."""

    spread: float  # of the distances from the group's middle in a whitened plane: standard deviation over mean
    members: Tensor  # (n,) indices of its rows
    places: Tensor  # (n, 2) in that plane


def roundest(rows: Tensor, neighbours: Tensor, sizes: Sequence[int] = SIZES) -> list[Ring]:
    """The roundest group of every size.

    A group is a row and its n - 1 nearest ones. Its members are looked at in the planes of its first and second and of
    its second and third principal component, each scaled to variance 1. The spread of their distances from the middle
    is 0 on a circle and 0.52 for a Gaussian; it is also 0 at the corners of a square. How small the least of so many
    groups' spreads is by chance, only rows without rings can tell: see `ring_p_value`.

    Args:
        rows: (V, D).
        neighbours: Indices of every row's nearest others, (V, k), nearest first.
        sizes: Members n of a group, at most k + 1; larger ones are left out.
    """
    rings = []
    for n in sizes:
        if n > neighbours.shape[1] + 1:
            continue
        best: Ring | None = None
        groups = torch.cat([torch.arange(len(rows)).unsqueeze(1), neighbours[:, : n - 1]], 1)  # (V, n)
        for members in groups.split(GROUPS_AT_ONCE):
            x = rows[members].float()
            x = x - x.mean(1, keepdim=True)
            vectors = torch.linalg.eigh(x @ x.mT).eigenvectors.flip(-1) * math.sqrt(n)  # (groups, n, n)
            for plane in PLANES:
                places = vectors[..., list(plane)]
                radius = places.norm(dim=-1)
                spread = radius.std(1, correction=0) / radius.mean(1)
                at = int(spread.argmin())
                if best is None or float(spread[at]) < best.spread:
                    best = Ring(float(spread[at]), members[at], places[at])
        if best is not None:
            rings.append(best)
    return rings


def ring_p_value(spread: float, of_null_models: Sequence[float]) -> float:
    """Chance of so small a least spread without rings, from those of null models: NaN for fewer than 5.

    The least of many spreads has an extreme value distribution, so a Gumbel distribution with the null models' mean and
    standard deviation is assumed; with a handful of null models a rank could not be called surprising at all.
    """
    null = np.asarray(of_null_models, float)
    if len(null) < 5 or null.std(ddof=1) == 0:
        return float("nan")
    scale = null.std(ddof=1) * math.sqrt(6) / math.pi
    middle = null.mean() + np.euler_gamma * scale
    return -math.expm1(-math.exp((spread - middle) / scale))
