"""Baselines for a learned dictionary: the mean, principal components, and dictionaries that were not learned.

Dictionaries of random directions or of tokens have no encoder. Their codes are found by matching pursuit, which is
better than any encoder that an autoencoder can learn. This favours the baselines.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import ZooError
from zoo.metrics import FVU
from zoo.null_models import moments


def fvu(x: Tensor, x_hat: Tensor) -> float:
    """Return the fraction of variance unexplained, sum |x - x_hat|² / sum |x - mean|², of rows (B, d)."""
    return FVU()(x_hat, x).item()


def principal_components(train: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of training rows (n, d) and their principal components as columns, ascending, float64."""
    mean, covariance = moments(train)
    return mean, torch.linalg.eigh(covariance).eigenvectors


def by_components(x: Tensor, mean: Tensor, components: Tensor, rank: int) -> float:
    """Return the FVU of rows (B, d) that are projected on a mean and the last `rank` of the components (d, d)."""
    centred, leading = x - mean, components[:, components.shape[1] - rank :]
    return fvu(centred, centred @ leading @ leading.T)


def random_directions(n_atoms: int, d_in: int, generator: torch.Generator | None = None) -> Tensor:
    """Return unit vectors drawn uniformly on the sphere, (n_atoms, d_in)."""
    return F.normalize(torch.randn(n_atoms, d_in, generator=generator))


def token_dictionary(train: Tensor, n_atoms: int, priority: Tensor | None = None) -> Tensor:
    """Return some of the training rows, centred and scaled to unit norm, as atoms.

    Args:
        train: Training rows, (n, d).
        n_atoms: Number of atoms; fewer than n.
        priority: Values (n,), such as token counts; the rows with the largest ones are taken. By default, random rows.

    Returns:
        Atoms, (n_atoms, d).

    Raises:
        ZooError: If there are at least as many atoms as rows. Every row would then be an atom, and the error would be 0
            at L0 1 for any rows.
    """
    refuse_trivial_dictionary(n_atoms, len(train))
    order = torch.rand(len(train)) if priority is None else priority.double()
    return F.normalize((train - train.mean(0))[order.topk(n_atoms).indices])


def unlearned_dictionaries(train: Tensor, n_atoms: int, counts: Tensor | None) -> dict[str, Tensor]:
    """Return dictionaries that were not learned, by name, (n_atoms, d) each.

    Args:
        train: Training rows, (n, d).
        n_atoms: Number of atoms of each; fewer than n.
        counts: How often the rows' tokens occur, (n,); None if not known. With counts, the most frequent tokens are one
            of the dictionaries.
    """
    dictionaries = {
        "random directions": random_directions(n_atoms, train.shape[1]),
        "random tokens": token_dictionary(train, n_atoms),
    }
    if counts is not None:
        dictionaries["most frequent tokens"] = token_dictionary(train, n_atoms, counts)
    return dictionaries


def refuse_trivial_dictionary(n_atoms: int, n_rows: int) -> None:
    """Raise an error for a dictionary that could contain every row.

    Raises:
        ZooError: If there are at least as many atoms as rows.
    """
    if n_atoms >= n_rows:
        raise ZooError(
            f"{n_atoms} atoms for {n_rows} rows: the rows themselves would be a dictionary with FVU 0 at L0 1, so the "
            "error of a learned dictionary would have no meaning; use fewer atoms than rows"
        )
