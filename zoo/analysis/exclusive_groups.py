"""Do the feature vectors of mutually exclusive groups lie in orthogonal subspaces?"""

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError


class GroupOverlap(NamedTuple):
    """How much groups overlap, beside what groups without structure would have."""

    overlap: float
    random: float  # mean over matrices of independent Gaussian entries
    permuted: float  # mean over permutations of the group labels
    p_value: float  # of an overlap as low as this under permuted labels


def group_overlap(vectors: Tensor, centred: bool = False) -> Tensor:
    """Overlap of groups of vectors: 0 where all groups' spans are orthogonal, 1 where all have the same energy.

    With X_g the vectors of group g and C_g = X_gᵀ X_g,

        overlap = mean over g ≠ h of tr(C_g C_h) / mean over g of tr(C_g²).

    tr(C_g C_h) is the sum over x in g and y in h of (x·y)², squared cosines weighted by energy, so that groups
    which all span R^d overlap little if each has its energy in directions of its own. For m independent isotropic
    vectors per group it is about m / (d + m - 1).

    Args:
        vectors: (..., n_groups, group_size, d); leading dimensions are handled each on its own.
        centred: Whether to take the mean of its group off each vector first: what exclusive features share is then
            left out, and what tells them apart counts.

    Returns:
        The overlap, (...) float64; NaN if all vectors are zero.

    Raises:
        ZooError: If there are fewer than two groups, or one vector per group that is to be centred.
    """
    n_groups, group_size = vectors.shape[-3:-1]
    if n_groups < 2 or group_size < 1 + centred:
        raise ZooError(
            f"{n_groups} groups of {group_size} vectors have no overlap{' once centred' * centred}; there must be at "
            f"least 2 groups of {1 + centred}"
        )
    x = vectors.double()
    if centred:
        x = x - x.mean(-2, keepdim=True)
    energy = (x.mT @ x).flatten(-2)  # (..., n_groups, d * d), the entries of C_g
    products = energy @ energy.mT  # tr(C_g C_h)
    same = products.diagonal(dim1=-2, dim2=-1).sum(-1)
    different = products.sum((-2, -1)) - same
    return different.clamp(min=0) / (n_groups - 1) / same


def compare_group_overlap(
    vectors: Tensor, centred: bool = False, n_permutations: int = 999, n_random: int = 100, seed: int = 0
) -> GroupOverlap:
    """Overlap of the groups beside two nulls: random vectors of the same shape, and groups that are drawn at random.

    The p-value is (1 + permutations with an overlap as low or lower) / (1 + permutations), of a one-sided test. Random
    vectors stand for an untrained matrix; permuted labels keep the vectors, their norms and their covariance, so that
    only this null tests whether the overlap has to do with the groups.

    Args:
        vectors: (n_groups, group_size, d).
        centred: See `group_overlap`.
        n_permutations: Permutations of the group labels.
        n_random: Matrices of independent N(0, 1) entries.
        seed: Of both.

    Raises:
        ZooError: If there is nothing to overlap, see `group_overlap`.
    """
    overlap = group_overlap(vectors, centred)
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(n_random, *vectors.shape, generator=generator)
    rows = vectors.flatten(0, 1)
    permuted = torch.stack(
        [
            group_overlap(rows[torch.randperm(len(rows), generator=generator)].view_as(vectors), centred)
            for _ in range(n_permutations)
        ]
    )
    as_low = int((permuted <= overlap * (1 + 1e-9)).sum())
    return GroupOverlap(
        overlap.item(),
        group_overlap(random, centred).mean().item(),
        permuted.mean().item(),
        (1 + as_low) / (1 + n_permutations),
    )
