"""What a learned dictionary is compared with: the mean, principal components, and dictionaries that nobody learned.

Dictionaries of random directions or of tokens have no encoder, so their codes are pursued, which is better than any
encoder that an autoencoder can learn. That favours the baselines.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import ZooError
from zoo.metrics import FVU


def fvu(x: Tensor, x_hat: Tensor) -> float:
    """Fraction of variance unexplained, sum |x - x_hat|² / sum |x - mean|², of rows (B, d)."""
    return FVU()(x_hat, x).item()


def principal_components(train: Tensor, x: Tensor, rank: int) -> Tensor:
    """Rows (B, d) projected on the mean and the first principal components of training rows (n, d)."""
    mean = train.double().mean(0)
    _, vectors = torch.linalg.eigh((train - mean).T @ (train - mean))
    leading = vectors[:, vectors.shape[1] - rank :]
    return ((x - mean) @ leading @ leading.T + mean).float()


def random_directions(n_atoms: int, d_in: int, generator: torch.Generator | None = None) -> Tensor:
    """Unit vectors uniform on the sphere, (n_atoms, d_in)."""
    return F.normalize(torch.randn(n_atoms, d_in, generator=generator))


def token_dictionary(train: Tensor, n_atoms: int, priority: Tensor | None = None) -> Tensor:
    """Some of the rows themselves, about their mean and of unit norm, as atoms.

    Args:
        train: Training rows, (n, d).
        n_atoms: How many; fewer than n.
        priority: The rows that are largest in this are taken, (n,), such as token counts; random ones by default.

    Returns:
        Atoms, (n_atoms, d).

    Raises:
        ZooError: If there are as many atoms as rows. Every row is then an atom: the error is 0 with one atom on, for
            any rows whatever, and no finding.
    """
    refuse_trivial_dictionary(n_atoms, len(train))
    order = torch.rand(len(train)) if priority is None else priority.double()
    return F.normalize((train - train.mean(0))[order.topk(n_atoms).indices])


def unlearned_dictionaries(train: Tensor, n_atoms: int, counts: Tensor | None) -> dict[str, Tensor]:
    """Dictionaries that nobody learned, by name: (n_atoms, d) each.

    Args:
        train: Training rows, (n, d).
        n_atoms: Atoms of each; fewer than n.
        counts: How often the rows' tokens occur, (n,), if known: then the most frequent are one of the dictionaries.
    """
    dictionaries = {
        "random directions": random_directions(n_atoms, train.shape[1]),
        "random tokens": token_dictionary(train, n_atoms),
    }
    if counts is not None:
        dictionaries["most frequent tokens"] = token_dictionary(train, n_atoms, counts)
    return dictionaries


def refuse_trivial_dictionary(n_atoms: int, n_rows: int) -> None:
    """Refuse to judge a dictionary that could hold every row.

    Raises:
        ZooError: If there are at least as many atoms as rows.
    """
    if n_atoms >= n_rows:
        raise ZooError(
            f"{n_atoms} atoms for {n_rows} rows: the rows themselves would be a dictionary with FVU 0 at L0 1, so no "
            "error that is found says anything; use fewer atoms than rows"
        )
