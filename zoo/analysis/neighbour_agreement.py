"""Measures how often rows and their nearest neighbours have the same label."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.analysis.multiple_tests import monte_carlo
from zoo.near_neighbours import nearest

NEIGHBOURS = 5


class Agreement(NamedTuple):
    """How often rows and their nearest neighbours have the same label."""

    share: float  # of pairs of a row and one of its nearest neighbours
    chance: float  # mean share over permutations of the labels
    p_value: float  # of a share at least as high, under permuted labels

    @property
    def kappa(self) -> float:
        """Agreement above chance, as a share of the largest possible one: 0 by chance, 1 if all labels agree."""
        return (self.share - self.chance) / (1 - self.chance) if self.chance < 1 else 0.0


def neighbour_agreement(
    rows: Tensor,
    labels: Sequence[str],
    signed: bool = True,
    n_draws: int = 999,
    seed: int = 0,
    neighbours: tuple[Tensor, Tensor] | None = None,
) -> Agreement:
    """Return the share of the 5 nearest neighbours of rows, by cosine in R^D, that have the row's own label.

    Args:
        rows: Rows, (n, D), n above 5; the neighbours of a zero row are arbitrary.
        labels: Label of every row.
        signed: Whether a row and its negative are different. Use False for atoms whose codes have both signs.
        n_draws: Largest number of permutations of the labels, see `monte_carlo`.
        seed: Seed of the permutations.
        neighbours: Indices of some rows, (m,), and of their nearest rows by cosine, (m, at least 5). By default those
            of all rows are searched for.
    """
    if neighbours is None:
        neighbours = torch.arange(len(rows)), _nearest(rows, signed)
    some, near = neighbours[0].numpy(), neighbours[1][:, :NEIGHBOURS].numpy()
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    share = float((codes[near] == codes[some, None]).mean())
    rng = np.random.default_rng(seed)

    def draw(count: int) -> Tensor:
        dealt = (rng.permutation(codes) for _ in range(count))
        return torch.tensor([(own[near] == own[some, None]).mean() for own in dealt], dtype=torch.float64)

    drawn = monte_carlo(draw, share, n_draws)
    return Agreement(share, drawn.mean, drawn.p_value)


def _nearest(rows: Tensor, signed: bool) -> Tensor:
    directions = F.normalize(rows.float(), dim=1)
    if signed:
        return nearest(directions, NEIGHBOURS)[1]
    return (directions @ directions.T).abs().fill_diagonal_(-1).topk(NEIGHBOURS).indices


def atom_labels(codes: Tensor, labels: Sequence[str], top: int = 10) -> tuple[list[str], np.ndarray]:
    """Return the most frequent label among the rows that use an atom most, and the share of these rows that have it.

    Args:
        codes: Codes (n, K), in compressed rows; their absolute values are compared.
        labels: Label of every row, (n).
        top: Number of rows per atom.

    Returns:
        Label of every atom (K), and its purity, the share of rows with this label, (K,). An atom that no row uses has
        the label "unused" and purity NaN.
    """
    names, purity = [], np.full(codes.shape[1], np.nan)
    for k, rows in enumerate(strongest_rows(codes, top)):
        if not len(rows):
            names.append("unused")
            continue
        found, counts = np.unique([labels[i] for i in rows], return_counts=True)
        names.append(str(found[counts.argmax()]))
        purity[k] = counts.max() / len(rows)
    return names, purity


def strongest_rows(codes: Tensor, top: int) -> list[np.ndarray]:
    """Return, for every atom, the indices of at most `top` rows that use it, by falling absolute values of their codes.

    Args:
        codes: Codes (n, K), in compressed rows.
        top: Number of rows per atom.
    """
    from scipy import sparse

    entries = codes.values().abs().numpy(), codes.col_indices().numpy(), codes.crow_indices().numpy()
    by_atom = sparse.csr_array(entries, shape=tuple(codes.shape)).tocsc()
    found = []
    for first, stop in pairwise(by_atom.indptr):
        order = (-by_atom.data[first:stop]).argsort(kind="stable")[:top]
        found.append(by_atom.indices[first:stop][order])
    return found


def beyond_null(value: float, null_values: Sequence[float]) -> float:
    """Return the one-sided p-value of a value, if it were one more draw from the distribution of few null values.

    (value - mean) / (s sqrt(1 + 1/n)) then has Student's t distribution with n - 1 degrees of freedom, if values are
    normal. The result is NaN for fewer than 2 null values, or if all are equal.
    """
    from scipy import stats

    null = np.asarray(null_values, float)
    if len(null) < 2 or null.std(ddof=1) == 0:
        return float("nan")
    t = (value - null.mean()) / (null.std(ddof=1) * np.sqrt(1 + 1 / len(null)))
    return float(stats.t.sf(t, len(null) - 1))
