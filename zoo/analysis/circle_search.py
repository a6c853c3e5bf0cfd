"""Rings among the rows of an embedding, when no order is known."""

import math
from collections.abc import Sequence
from typing import NamedTuple

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
    is 0 on a circle and 0.52 for a Gaussian; it is also 0 at the corners of a triangle or a square, as of three or four
    tight clusters. How small the least of so many groups' spreads is by chance, only other rows can tell.

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
