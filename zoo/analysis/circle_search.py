"""Search for rings of neighbouring rows in an embedding, without a known order of the tokens."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SIZES = (12, 24)
PLANES = ((0, 1), (1, 2))  # of principal components
GROUPS_AT_ONCE = 2048


class Ring(NamedTuple):
    """A group of neighbouring rows that lie at similar distances from their centre."""

    spread: float  # standard deviation / mean of the distances from the centre, in a whitened plane
    members: Tensor  # (n,) indices of the group's rows
    places: Tensor  # (n, 2) coordinates in the whitened plane


def roundest(rows: Tensor, groups: Tensor, sizes: Sequence[int] = SIZES) -> list[Ring]:
    """Return the roundest group of every size: the one with the smallest spread.

    A group is a row and its n - 1 nearest rows. It is projected on two planes: its first and second, and its second and
    third principal components, each component scaled to variance 1. The spread of the distances from the centre is 0 on
    a circle and 0.52 for a Gaussian. It is also 0 at the corners of a triangle or a square, which three or four tight
    clusters form. Among so many groups the smallest spread is small by chance; how small, only a comparison with other
    rows (such as a null model) can show.

    Args:
        rows: Rows of the embedding, (V, D).
        groups: Indices of rows and, after each, of its nearest other rows, nearest first, (n, k).
        sizes: Numbers n of members of a group; sizes above k are skipped.
    """
    rings = []
    for n in sizes:
        if n > groups.shape[1]:
            continue
        best: Ring | None = None
        for members in groups[:, :n].split(GROUPS_AT_ONCE):
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
