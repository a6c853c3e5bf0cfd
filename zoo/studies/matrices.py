"""The matrices that studies of rows compare: an embedding, and null models in its place."""

from zoo.datamodules import CovarianceMatchedRows, IsotropicRows, NullModel, PermutedCoordinateRows, PlantedRows

MATRICES = ("embedding", "covariance-matched", "permuted coordinates", "isotropic", "planted")
PLANTED_SPARSITY = 4


def null_model(matrix: str, n_atoms: int, seed: int) -> NullModel | None:
    """The recipe of one of `MATRICES`, none for the embedding itself; half of `n_atoms` are planted."""
    if matrix == "embedding":
        return None
    if matrix == "planted":
        return PlantedRows(n_atoms=n_atoms // 2, sparsity=PLANTED_SPARSITY, seed=seed)
    recipes = {"covariance-matched": CovarianceMatchedRows, "permuted coordinates": PermutedCoordinateRows}
    return (recipes | {"isotropic": IsotropicRows})[matrix](seed=seed)
