"""Recipes for rows that stand in for a real embedding's, to compare what is found in it with."""

from abc import ABC, abstractmethod

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from zoo import null_models
from zoo.datamodules.row_loaders import side_rng
from zoo.described import Described
from zoo.errors import ZooError

CLEAR_ERROR = 0.01  # of mean and covariance, as a share of them, beyond which it is told


class NullModel(Described, ABC):
    """Recipe for rows that keep chosen properties of a matrix W (V, d) and are random otherwise.

    Args:
        match_norms: Rescale row i to the norm of `W[i]`, so that every token keeps its length.
        seed: Names the draw.
    """

    needs_source = True
    keeps_covariance = False
    true_atoms: Tensor | None = None  # (n_atoms, d), once rows with known atoms have been made
    moment_error: float | None = None  # of rows that have W's norms and should have its mean and covariance too

    def __init__(self, match_norms: bool = True, seed: int = 0) -> None:
        if seed < 0:
            raise ZooError(f"the null model's seed is {seed}; it must not be negative")
        self.match_norms, self.seed = match_norms, seed

    def rows(self, W: Tensor) -> Tensor:
        """Rows in the place of those of `W` (V, d), float32.

        Raises:
            ZooError: If the recipe does not fit the matrix.
        """
        rows = self._draw(W, self._generator())
        if not self.match_norms:
            return rows
        if not self.keeps_covariance:
            return null_models.with_norms_of(rows, W)
        matched, self.moment_error = null_models.with_norms_and_covariance_of(rows, W)
        if self.moment_error > CLEAR_ERROR:
            rank_zero_info(
                f"note: the null model's rows have the norms of the source's rows, and a mean and covariance that "
                f"differ from the source's by {self.moment_error:.1%}"
            )
        return matched

    def rows_of_shape(self, n_rows: int, d_in: int) -> Tensor:
        """Rows (n_rows, d_in) float32 that stand in for none.

        Raises:
            ZooError: If the recipe needs a matrix to start from.
        """
        if self.needs_source:
            raise ZooError(f"{type(self).__name__} changes the rows of a source; say which with data.source")
        return self._draw(torch.empty(n_rows, d_in), self._generator())

    def _generator(self) -> torch.Generator:
        """A stream of its own: initial atoms drawn under the same seed must not be the planted ones."""
        return torch.Generator().manual_seed(int(side_rng(self.seed, 3).integers(2**63)))

    @abstractmethod
    def _draw(self, W: Tensor, generator: torch.Generator) -> Tensor:
        """Rows of W's shape; a recipe that needs no source looks at nothing but the shape."""


class IsotropicRows(NullModel):
    """Gaussian rows with independent coordinates of variance 1."""

    needs_source = False

    def _draw(self, W: Tensor, generator: torch.Generator) -> Tensor:
        return null_models.gaussian(len(W), W.shape[1], generator)


class _SameMoments(NullModel):
    """Rows with the mean and covariance of the source's."""

    keeps_covariance = True

    def __init__(self, match_norms: bool = False, seed: int = 0) -> None:
        super().__init__(match_norms, seed)


class CovarianceMatchedRows(_SameMoments):
    """Gaussian rows with exactly the mean and covariance of the source's.

    Args:
        match_norms: Give row i the norm of `W[i]` as well, and W's mean and covariance as nearly as these norms allow.
            Such rows are not Gaussian where the eigenvalues of the covariance differ much.
        seed: Names the draw.
    """

    def _draw(self, W: Tensor, generator: torch.Generator) -> Tensor:
        return null_models.covariance_matched(W, generator)


class PermutedCoordinateRows(_SameMoments):
    """The source's rows with every principal coordinate permuted over the rows on its own.

    Args:
        match_norms: Give row i the norm of `W[i]` as well, and W's mean and covariance as nearly as these norms allow.
            The distribution of the principal coordinates is then no longer W's.
        seed: Names the draw.
    """

    def _draw(self, W: Tensor, generator: torch.Generator) -> Tensor:
        return null_models.permuted_coordinates(W, generator)


class PlantedRows(NullModel):
    """Superpositions by construction: every row a sum of a few atoms of a random dictionary, which is kept.

    Args:
        n_atoms: Size of the dictionary.
        sparsity: Atoms in every row.
        noise: Share of the variance that is isotropic noise, which is the FVU of the true codes.
        match_norms: Rescale row i, its noise included, to the norm of `W[i]`. Rows stay as sparse as they were.
        seed: Names the draw.
    """

    needs_source = False

    def __init__(
        self, n_atoms: int, sparsity: int = 16, noise: float = 0.0, match_norms: bool = True, seed: int = 0
    ) -> None:
        super().__init__(match_norms, seed)
        if not 1 <= sparsity <= n_atoms:
            raise ZooError(f"sparsity is {sparsity}; it must be at least 1 and at most n_atoms, {n_atoms}")
        if not 0 <= noise < 1:
            raise ZooError(f"noise is {noise}; it is a share of the variance, at least 0 and below 1")
        self.n_atoms, self.sparsity, self.noise = n_atoms, sparsity, noise

    def _draw(self, W: Tensor, generator: torch.Generator) -> Tensor:
        rows, self.true_atoms, _ = null_models.planted(
            len(W), W.shape[1], self.n_atoms, self.sparsity, self.noise, generator
        )
        return rows
