"""The matrices that studies of rows compare: an embedding and its null models."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.datamodules import NullModel

NORM_MATCHED = "covariance- and norm-matched"
MATRICES = ("embedding", "covariance-matched", NORM_MATCHED, "permuted coordinates", "isotropic", "planted")
PLANTED_SPARSITY = 4
SEARCHED = 8192  # largest number of rows whose neighbours are searched for, among all rows
TRAINED_ON = 8192  # largest number of training rows on which a dictionary is evaluated
NOTHING_LEFT = 0.01  # FVU below which more atoms per row can hardly help
_EXPLAINED = {
    MATRICES[1]: "The covariance-matched null model is Gaussian with the mean and covariance of the embedding.",
    NORM_MATCHED: "The covariance- and norm-matched null model also has the embedding's row norms, and is therefore "
    "not exactly Gaussian.",
    "permuted coordinates": "Permuted coordinates keep the mean, the covariance and the distribution of every "
    "principal coordinate.",
    "isotropic": "Isotropic rows keep only the row norms.",
    "planted": "Planted rows are sums of a few random atoms: the positive control.",
}


def explained(present: Sequence[str]) -> str:
    """Return sentences that explain the null models among some matrices."""
    return " ".join(text for name, text in _EXPLAINED.items() if name in present)


def planted_atoms(n_atoms: int, d_model: int) -> int | None:
    """Return the number of planted atoms of the positive control: the geometric mean of `n_atoms` and `d_model`.

    Rows made of planted atoms are superpositions only if there are more planted atoms than dimensions. A dictionary
    finds the planted atoms only if it has more atoms than were planted.

    Args:
        n_atoms: Number of atoms of the dictionary that has to find the planted atoms.
        d_model: Number of dimensions D.

    Returns:
        The number of planted atoms; None if the dictionary is too small for a positive control.
    """
    n = round(math.sqrt(n_atoms * d_model))
    return n if d_model < n < n_atoms else None


def matrices(n_atoms: int, d_model: int) -> tuple[str, ...]:
    """Return `MATRICES`, without the planted rows if a dictionary of `n_atoms` atoms is too small for them."""
    return MATRICES if planted_atoms(n_atoms, d_model) else MATRICES[:-1]


def null_model(
    matrix: str, n_atoms: int, d_model: int, seed: int, sparsity: int = PLANTED_SPARSITY, noise: float = 0.0
) -> "NullModel | None":
    """Return the null model that makes one of `MATRICES`; None for the embedding itself.

    Args:
        matrix: One of `MATRICES`.
        n_atoms: Number of atoms of the dictionary to be learned from the matrix, see `planted_atoms`.
        d_model: Number of dimensions of the rows.
        seed: Seed of the draw.
        sparsity: Number of atoms in every planted row.
        noise: Share of the variance of planted rows that is noise.
    """
    from zoo.datamodules import CovarianceMatchedRows, IsotropicRows, PermutedCoordinateRows, PlantedRows

    if matrix == "embedding":
        return None
    if matrix == "planted":
        planted = planted_atoms(n_atoms, d_model)
        assert planted is not None
        return PlantedRows(n_atoms=planted, sparsity=sparsity, noise=noise, seed=seed)
    if matrix == NORM_MATCHED:
        return CovarianceMatchedRows(match_norms=True, seed=seed)
    if matrix == "covariance-matched":
        return CovarianceMatchedRows(seed=seed)
    return (PermutedCoordinateRows if matrix == "permuted coordinates" else IsotropicRows)(seed=seed)
