"""Tests whether groups of mutually exclusive features lie in orthogonal subspaces."""

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError


class GroupOverlap(NamedTuple):
    """Overlap of groups, and the overlap of groups without structure."""

    overlap: float
    random: float  # mean overlap over matrices of independent Gaussian entries
    permuted: float  # mean overlap over permutations of the group labels
    p_value: float  # of an overlap at most as large, under permuted labels


def group_overlap(vectors: Tensor, centred: bool = False) -> Tensor:
    """Return the overlap of groups of vectors: 0 if their spans are orthogonal, 1 if all C_g below are equal.

    With X_g the vectors of group g and C_g = X_gᵀ X_g,

        overlap = mean over g ≠ h of tr(C_g C_h) / mean over g of tr(C_g²).

    tr(C_g C_h) is the sum of (x·y)² over x in g and y in h, that is, squared cosines weighted by energy. So groups that
    all span R^d overlap little if each has its energy in different directions. For m independent isotropic vectors per
    group, the overlap is about m / (d + m - 1).

    Args:
        vectors: (..., n_groups, group_size, d); the overlap is computed separately for all leading dimensions.
        centred: Whether to subtract its group's mean from every vector first. Then the directions that features of a
            group share do not count, only those in which they differ.

    Returns:
        The overlap, (...) float64; NaN if all vectors are zero.

    Raises:
        ZooError: If there are fewer than two groups, no vectors, or groups of one vector with `centred`.
    """
    n_groups, group_size = vectors.shape[-3:-1]
    if n_groups < 2 or group_size < 1 + centred:
        raise ZooError(
            f"{n_groups} groups of {group_size} vectors have no overlap{' when centred' * centred}; there must be at "
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
    """Return the overlap of the groups, and of two null models: random vectors, and vectors in random groups.

    The p-value is that of a one-sided test: (1 + permutations whose overlap is at most as large) / (1 + permutations).
    Random vectors of the same shape represent an untrained matrix. Permuted labels keep the vectors, their norms and
    their covariance, so only this null model tests whether the overlap depends on the groups.

    Args:
        vectors: (n_groups, group_size, d).
        centred: See `group_overlap`.
        n_permutations: Number of permutations of the group labels.
        n_random: Number of matrices of independent N(0, 1) entries.
        seed: Seed of both null models.

    Raises:
        ZooError: If the overlap is not defined, see `group_overlap`.
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
