"""Sparse coding of rows in one dictionary: the lasso and basis pursuit, with certificates, and matching pursuit."""

from zoo.models.sparse_coding.basis_pursuit import basis_pursuit
from zoo.models.sparse_coding.certificate import certify, duality_gap
from zoo.models.sparse_coding.lasso import Solution, lasso
from zoo.models.sparse_coding.matching_pursuit import orthogonal_matching_pursuit
from zoo.models.sparse_coding.support_least_squares import least_squares_on_support

__all__ = [
    "Solution",
    "basis_pursuit",
    "certify",
    "duality_gap",
    "lasso",
    "least_squares_on_support",
    "orthogonal_matching_pursuit",
]
