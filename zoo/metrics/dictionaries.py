"""Metrics of dictionaries: similarity of their atoms to other atoms, and bits to describe a dictionary and codes."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import ZooError


def mean_max_cosine(atoms: Tensor, true_atoms: Tensor, signed: bool = True) -> Tensor:
    """Return MMCS, the mean over true atoms of the largest cosine with any learned atom (Sharkey et al. 2022).

    MMCS = mean_m max_k cos(true_atoms[m], atoms[k]). A zero atom has cosine 0 with every atom. One learned atom may be
    the nearest to several true atoms; `matched_cosine` excludes this. More atoms never lower MMCS, so the baseline is
    the MMCS of as many random atoms, not 0.

    Args:
        atoms: Learned atoms, (K, d).
        true_atoms: True atoms, (M, d).
        signed: Whether an atom and its negative are different atoms. They are if codes are never negative. If false,
            absolute cosines are used.

    Returns:
        The mean, a float32 scalar.
    """
    directions = F.normalize(atoms.float(), dim=1)
    directions = directions if signed else torch.cat([directions, -directions])
    best = [(F.normalize(some.float(), dim=1) @ directions.T).amax(1) for some in true_atoms.split(4096)]
    return torch.cat(best).mean()


def matched_cosine(atoms: Tensor, true_atoms: Tensor, signed: bool = True) -> Tensor:
    """Return the mean cosine of learned and true atoms, matched one to one so that the mean is largest.

    min(K, M) pairs are matched, and the remaining atoms do not count. The assignment is exact. It requires memory for
    all K * M cosines, and its time grows with the third power of the number of atoms.

    Args:
        atoms: Learned atoms, (K, d).
        true_atoms: True atoms, (M, d).
        signed: Whether an atom and its negative are different atoms. They are if codes are never negative. If false,
            absolute cosines are used.

    Returns:
        The mean, a float32 scalar; NaN if an atom has a NaN.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import

    cosines = (F.normalize(true_atoms.float(), dim=1) @ F.normalize(atoms.float(), dim=1).T).cpu()
    cosines = cosines if signed else cosines.abs()
    if cosines.isnan().any():
        return torch.full((), float("nan"), device=atoms.device)
    rows, columns = linear_sum_assignment(cosines.numpy(force=True), maximize=True)
    return cosines[torch.from_numpy(rows), torch.from_numpy(columns)].mean().to(atoms.device)


def description_length(
    n_rows: int, l0: float, n_atoms: int, d_in: int, coefficient_bits: float = 8, dictionary_bits: float = 8
) -> float:
    """Return the number of bits that describe a dictionary and the sparse codes of all rows.

    It is the sum of three terms:

    - dictionary and mean: dictionary_bits * (n_atoms + 1) * d_in;
    - the atoms that each row uses: n_rows * log2 C(n_atoms, l0);
    - the coefficients of these atoms: n_rows * l0 * coefficient_bits.

    If rows use different numbers of atoms, the bits that describe these numbers are not included. On the other hand,
    log2 C(n, k) is concave in k, so its value at the mean of k is at least its mean over rows. Reconstruction errors
    are usually measured with codes and atoms of higher precision than the stated bits.

    Args:
        n_rows: Number of rows.
        l0: Mean number of atoms that a row uses; it need not be a whole number.
        n_atoms: Number of atoms in the dictionary.
        d_in: Number of dimensions of a row.
        coefficient_bits: Bits per coefficient.
        dictionary_bits: Bits per coordinate of an atom or of the mean.

    Raises:
        ZooError: If `l0` is negative or larger than `n_atoms`.
    """
    if not 0 <= l0 <= n_atoms:
        raise ZooError(f"l0 is {l0}; a row uses at least 0 and at most all {n_atoms} atoms")
    log_choices = math.lgamma(n_atoms + 1) - math.lgamma(l0 + 1) - math.lgamma(n_atoms - l0 + 1)
    indices = log_choices / math.log(2)
    return dictionary_bits * (n_atoms + 1) * d_in + n_rows * (indices + l0 * coefficient_bits)


def pca_rank_at_bits(
    bits: float, n_rows: int, d_in: int, coefficient_bits: float = 8, dictionary_bits: float = 8
) -> int:
    """Return the largest number r of principal components that a number of bits can describe with their codes.

    r components and the mean take dictionary_bits * (r + 1) * d_in bits, and the r coefficients of each row take
    coefficient_bits * r bits. All rows use all components, so no indices are needed. r is at most min(n_rows, d_in),
    with which the reconstruction is exact.

    Args:
        bits: Largest number of bits, such as a `description_length`.
        n_rows: Number of rows.
        d_in: Number of dimensions of a row.
        coefficient_bits: Bits per coefficient.
        dictionary_bits: Bits per coordinate of a component or of the mean.

    Raises:
        ZooError: If the bits are too few for the mean alone.
    """
    left = bits - dictionary_bits * d_in
    if not left >= 0:
        raise ZooError(f"bits is {bits:g}, too few for the mean alone, which takes {dictionary_bits * d_in:g} bits")
    return int(min(left // (dictionary_bits * d_in + coefficient_bits * n_rows), n_rows, d_in))


def rate_distortion_bits(eigenvalues: Tensor, distortion: float) -> float:
    """Return the rate-distortion function of a Gaussian source: the fewest bits per row for a given squared error.

    It is computed by reverse water-filling (Cover & Thomas 2006, Theorem 10.3.3): R = sum_i max(0, log2(λ_i / θ) / 2),
    where the water level θ satisfies sum_i min(λ_i, θ) = distortion. The bound holds for long blocks of independent
    rows of a known Gaussian distribution. No other source with the same covariance requires more bits.

    Args:
        eigenvalues: Eigenvalues of the covariance of the rows, (d,) in any order. Negative eigenvalues are rounding
            errors and count as 0.
        distortion: Expected squared error of a row, E|x - x̂|², which is FVU times the sum of the eigenvalues.

    Returns:
        Bits per row: 0 at a distortion of sum λ or more, infinite at 0 or less.
    """
    levels = eigenvalues.double().clamp(min=0).sort().values
    if levels.isnan().any() or math.isnan(distortion):
        return math.nan
    if distortion >= levels.sum():
        return 0.0
    if distortion <= 0:
        return math.inf
    # If the k smallest eigenvalues are below the water level, the other ones share the remaining distortion equally.
    # The correct k is the first for which the next eigenvalue is at or above the water level.
    drowned = levels.cumsum(0) - levels
    water = (distortion - drowned) / torch.arange(len(levels), 0, -1, device=levels.device)
    k = min(int((water > levels).sum()), len(levels) - 1)
    return float((levels[k:] / water[k]).clamp(min=1).log2().sum() / 2)
