"""The matrices that studies of rows compare: an embedding, and null models in its place."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.datamodules import NullModel

NORM_MATCHED = "covariance- and norm-matched"
MATRICES = ("embedding", "covariance-matched", NORM_MATCHED, "permuted coordinates", "isotropic", "planted")
PLANTED_SPARSITY = 4
NOTHING_LEFT = 0.01  # FVU below which more atoms a row can hardly help
EXPLAINED = (
    "The covariance-matched null model is Gaussian with the mean and covariance of the matrix. The covariance- and "
    "norm-matched one has its row norms as well, and is not quite Gaussian for that; permuted coordinates keep mean, "
    "covariance and every principal coordinate's distribution; isotropic rows keep the norms only."
)


def planted_atoms(n_atoms: int, d_model: int) -> int | None:
    """Atoms of the positive control: the geometric mean of a dictionary's atoms and the dimensions.

    Rows made of them are superpositions only if there are more of them than dimensions, and a dictionary finds them
    only if it has more still.

    Args:
        n_atoms: Atoms of the dictionary that is to find them.
        d_model: Dimensions D.

    Returns:
        Their number; None if so small a dictionary allows no control.
    """
    n = round(math.sqrt(n_atoms * d_model))
    return n if d_model < n < n_atoms else None


def matrices(n_atoms: int, d_model: int) -> tuple[str, ...]:
    """Those of `MATRICES` that can be made for a dictionary of so many atoms: all, or all but the planted rows."""
    return MATRICES if planted_atoms(n_atoms, d_model) else MATRICES[:-1]


def null_model(
    matrix: str, n_atoms: int, d_model: int, seed: int, sparsity: int = PLANTED_SPARSITY, noise: float = 0.0
) -> "NullModel | None":
    """The recipe of one of `MATRICES`, none for the embedding itself.

    Args:
        matrix: Of `MATRICES`.
        n_atoms: Of the dictionary that is learned from it, see `planted_atoms`.
        d_model: Dimensions of the rows.
        seed: Names the draw.
        sparsity: Atoms in every planted row.
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
