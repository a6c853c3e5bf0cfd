"""Geometry of features in superposition: how they share the dimensions of a space."""

from torch import Tensor


def feature_dimensionality(W: Tensor) -> Tensor:
    """Return the dimensionality of every feature (Elhage et al. 2022, "Toy Models of Superposition").

    It is the share of a dimension that a feature has to itself, D_i = |W_i|² / sum_j (W_i · W_j / |W_i|)²: 1 for a
    direction that is orthogonal to all others, 1/2 in an antipodal pair and 2/5 in a pentagon. The sum over features is
    at most the rank of W, because each D_i is at most the leverage of row i.

    Args:
        W: Directions of the features, (..., n, m).

    Returns:
        One number in [0, 1] per feature, 0 for a row of zeros, (..., n).
    """
    norm = W.norm(dim=-1, keepdim=True)
    unit = W / norm.where(norm > 0, 1.0)
    overlap = (unit @ W.mT).square().sum(-1)  # sum over j, at least the norm squared
    return norm.squeeze(-1).square() / overlap.where(overlap > 0, 1.0)
