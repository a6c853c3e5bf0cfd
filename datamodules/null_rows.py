"""Null models: random rows that share chosen properties with a real embedding, for comparison with it."""

from abc import ABC, abstractmethod

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from zoo import null_models
from zoo.datamodules.row_loaders import side_rng
from zoo.described import Described
from zoo.errors import ZooError

CLEAR_ERROR = 0.01  # relative error of mean and covariance above which a note reports it


class NullModel(Described, ABC):
    """Distribution of random rows that keep chosen properties of a matrix W (V, d).

    Args:
        match_norms: Whether row i is rescaled to the norm of the source's row i, so that every token keeps the norm of
            its row. It has no effect without a source.
        seed: Seed of the random rows.
    """

    needs_source = True
    keeps_covariance = False
    true_atoms: Tensor | None = None  # (n_atoms, d); set when rows with known atoms are drawn
    moment_error: float | None = None  # relative error of mean and covariance if norms match too

    def __init__(self, match_norms: bool = True, seed: int = 0) -> None:
        if seed < 0:
            raise ZooError(f"the null model's seed is {seed}; it must not be negative")
        self.match_norms, self.seed = match_norms, seed

    def rows(self, W: Tensor) -> Tensor:
        """Return random rows that replace the rows of `W`, (V, d) float32.

        Raises:
            ZooError: If the null model cannot be made for this matrix.
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
        """Return random rows (n_rows, d_in), float32, of a null model that requires no source matrix.

        Raises:
            ZooError: If the null model requires a source matrix.
        """
        if self.needs_source:
            raise ZooError(f"{type(self).__name__} requires the rows of a source; set data.source")
        return self._draw(torch.empty(n_rows, d_in), self._generator())

    def _generator(self) -> torch.Generator:
        """Return a generator whose stream differs from that of the initial atoms under the same seed."""
        return torch.Generator().manual_seed(int(side_rng(self.seed, 3).integers(2**63)))

    @abstractmethod
    def _draw(self, W: Tensor, generator: torch.Generator) -> Tensor:
        """Return rows of W's shape. A null model without a source uses only the shape."""


class IsotropicRows(NullModel):
    """Gaussian rows with independent coordinates of variance 1."""

    needs_source = False

    def _draw(self, W: Tensor, generator: torch.Generator) -> Tensor:
        return null_models.gaussian(len(W), W.shape[1], generator)


class _SameMoments(NullModel):
    """Base class of null models whose rows have the mean and covariance of the source's rows."""

    keeps_covariance = True

    def __init__(self, match_norms: bool = False, seed: int = 0) -> None:
        super().__init__(match_norms, seed)


class CovarianceMatchedRows(_SameMoments):
    """Gaussian rows with exactly the mean and covariance of the source's rows.

    Args:
        match_norms: Whether row i also has the norm of the source's row i. Mean and covariance then match the source's
            as closely as these norms allow, and the rows are not Gaussian where the eigenvalues of the covariance
            differ much.
        seed: Seed of the random rows.
    """

    def _draw(self, W: Tensor, generator: torch.Generator) -> Tensor:
        return null_models.covariance_matched(W, generator)


class PermutedCoordinateRows(_SameMoments):
    """The source's rows, with every principal coordinate permuted independently over the rows.

    Args:
        match_norms: Whether row i also has the norm of the source's row i. Mean and covariance then match the source's
            as closely as these norms allow, and the distribution of the principal coordinates is no longer the
            source's.
        seed: Seed of the permutations.
    """

    def _draw(self, W: Tensor, generator: torch.Generator) -> Tensor:
        return null_models.permuted_coordinates(W, generator)


class PlantedRows(NullModel):
    """Rows in superposition by construction: every row is a sum of a few atoms of a known random dictionary.

    Args:
        n_atoms: Number of atoms in the dictionary.
        sparsity: Number of atoms in every row.
        noise: Share of the variance that is isotropic noise, at least 0 and below 1. It is the FVU of the true codes.
        match_norms: Whether row i, including its noise, is rescaled to the norm of the source's row i. This does not
            change the number of atoms in a row. It has no effect without a source.
        seed: Seed of the dictionary, the codes and the noise.
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
