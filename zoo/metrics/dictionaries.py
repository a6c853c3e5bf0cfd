"""Dictionaries: how near their atoms are to other atoms, and how many bits they and their codes take."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import ZooError


def mean_max_cosine(atoms: Tensor, true_atoms: Tensor, signed: bool = True) -> Tensor:
    """MMCS: mean over true atoms of the best cosine with any learned atom (Sharkey et al. 2022).

    mean_m max_k cos(true_atoms[m], atoms[k]). A zero atom has cosine 0 with all. One learned atom may be the best for
    several true ones (`matched_cosine` forbids it), and more atoms never lower it: random atoms are the number to
    compare with, not 0.

    Args:
        atoms: Learned atoms, (K, d).
        true_atoms: Atoms to be found, (M, d).
        signed: Whether an atom and its opposite differ, as they do where codes are never negative.
    """
    directions = F.normalize(atoms.float(), dim=1)
    directions = directions if signed else torch.cat([directions, -directions])
    best = [(F.normalize(some.float(), dim=1) @ directions.T).amax(1) for some in true_atoms.split(4096)]
    return torch.cat(best).mean()


def matched_cosine(atoms: Tensor, true_atoms: Tensor, signed: bool = True) -> Tensor:
    """Mean cosine of learned and true atoms, matched one to one so that the mean is largest; NaN if any atom is.

    min(K, M) pairs are matched, and atoms left over do not count. The assignment is exact, with memory for all K * M
    cosines and time that grows as the cube.

    Args:
        atoms: Learned atoms, (K, d).
        true_atoms: Atoms to be found, (M, d).
        signed: Whether an atom and its opposite differ, as they do where codes are never negative.
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
    """Bits that a dictionary and the sparse codes of all rows take together.

    Dictionary and mean: dictionary_bits * (n_atoms + 1) * d_in. Which atoms a row uses: n_rows * log2 C(n_atoms, l0).
    Their coefficients: n_rows * l0 * coefficient_bits. Where rows differ in how many atoms they use, saying how many
    is not counted; on the other hand log2 C(n, k) is concave in k, so its value at the mean is at least the rows' mean.
    The stated precisions are not what a reconstruction error was measured at, unless it was measured so.

    Args:
        n_rows: Rows that are described.
        l0: Mean number of atoms that a row uses; it need not be a whole number.
        n_atoms: Atoms in the dictionary.
        d_in: Width of a row.
        coefficient_bits: Bits of one coefficient.
        dictionary_bits: Bits of one number of an atom or of the mean.

    Raises:
        ZooError: If a row would use a negative number of atoms or more than there are.
    """
    if not 0 <= l0 <= n_atoms:
        raise ZooError(f"l0 is {l0}; a row uses at least 0 and at most all {n_atoms} atoms")
    log_choices = math.lgamma(n_atoms + 1) - math.lgamma(l0 + 1) - math.lgamma(n_atoms - l0 + 1)
    indices = log_choices / math.log(2)
    return dictionary_bits * (n_atoms + 1) * d_in + n_rows * (indices + l0 * coefficient_bits)


def pca_rank_at_bits(
    bits: float, n_rows: int, d_in: int, coefficient_bits: float = 8, dictionary_bits: float = 8
) -> int:
    """The largest r for which principal components take no more bits than given.

    r components and the mean take dictionary_bits * (r + 1) * d_in bits, and each row's r coefficients
    coefficient_bits * r; all rows use all components, so no indices are needed. At most min(n_rows, d_in), which
    already reconstructs everything.

    Args:
        bits: What may be spent, such as a `description_length`.
        n_rows: Rows that are described.
        d_in: Width of a row.
        coefficient_bits: Bits of one coefficient.
        dictionary_bits: Bits of one number of a component or of the mean.

    Raises:
        ZooError: If the bits do not even hold the mean.
    """
    left = bits - dictionary_bits * d_in
    if not left >= 0:
        raise ZooError(f"{bits:g} bits do not hold the mean alone, which takes {dictionary_bits * d_in:g}")
    return int(min(left // (dictionary_bits * d_in + coefficient_bits * n_rows), n_rows, d_in))


def rate_distortion_bits(eigenvalues: Tensor, distortion: float) -> float:
    """Fewest bits per row that describe a Gaussian source to a given squared error: its rate-distortion function.

    Reverse water-filling (Cover & Thomas 2006, Theorem 10.3.3): R = sum_i max(0, log2(λ_i / θ) / 2), where the water
    level θ makes sum_i min(λ_i, θ) = distortion. The bound holds for long blocks of independent rows of a known
    Gaussian; no other source with the same covariance needs more.

    Args:
        eigenvalues: Eigenvalues of the rows' covariance, (d,) in any order; negative ones, which rounding makes, are 0.
        distortion: Expected squared error of a row, E|x - x̂|²: FVU times the eigenvalues' sum.

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
    # With the k smallest under water, the others share the rest of the distortion equally; the right k is the first
    # whose level does not drown the next eigenvalue too.
    drowned = levels.cumsum(0) - levels
    water = (distortion - drowned) / torch.arange(len(levels), 0, -1, device=levels.device)
    k = min(int((water > levels).sum()), len(levels) - 1)
    return float((levels[k:] / water[k]).clamp(min=1).log2().sum() / 2)
