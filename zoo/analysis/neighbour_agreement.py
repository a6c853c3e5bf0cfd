"""Are rows of one kind nearest to each other, in all dimensions?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.analysis.multiple_tests import monte_carlo
from zoo.near_neighbours import nearest

NEIGHBOURS = 5


class Agreement(NamedTuple):
    """How often nearest neighbours carry the same label."""

    share: float  # of pairs of a row and one of its nearest
    chance: float  # mean over permutations of the labels
    p_value: float  # of a share as high, under permuted labels

    @property
    def kappa(self) -> float:
        """Agreement beyond chance, as a share of what is possible: 0 by chance, 1 if all agree."""
        return (self.share - self.chance) / (1 - self.chance) if self.chance < 1 else 0.0


def neighbour_agreement(
    rows: Tensor,
    labels: Sequence[str],
    signed: bool = True,
    n_draws: int = 999,
    seed: int = 0,
    neighbours: Tensor | None = None,
) -> Agreement:
    """Share of the 5 nearest neighbours, by cosine in R^D, that have a row's own label.

    Args:
        rows: (n, D), n above 5; what has no direction is nearest to nothing in particular.
        labels: Of every row.
        signed: Whether a row and its opposite differ; those of a dictionary with codes of both signs do not.
        n_draws: Permutations of the labels, at most; fewer where p is above 0.05.
        seed: Of these.
        neighbours: Indices of the nearest rows by cosine, (n, at least 5), if they are known.
    """
    near = (_nearest(rows, signed) if neighbours is None else neighbours[:, :NEIGHBOURS]).numpy()
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    share = float((codes[near] == codes[:, None]).mean())
    rng = np.random.default_rng(seed)

    def draw(count: int) -> Tensor:
        dealt = (rng.permutation(codes) for _ in range(count))
        return torch.tensor([(own[near] == own[:, None]).mean() for own in dealt], dtype=torch.float64)

    drawn = monte_carlo(draw, share, n_draws)
    return Agreement(share, drawn.mean, drawn.p_value)


def _nearest(rows: Tensor, signed: bool) -> Tensor:
    directions = F.normalize(rows.float(), dim=1)
    if signed:
        return nearest(directions, NEIGHBOURS)[1]
    return (directions @ directions.T).abs().fill_diagonal_(-1).topk(NEIGHBOURS).indices


def atom_labels(codes: Tensor, labels: Sequence[str], top: int = 10) -> tuple[list[str], np.ndarray]:
    """The commonest label among the rows that use an atom most, and the share of these rows that have it.

    Args:
        codes: (n, K), of which absolute values count.
        labels: Of every row, (n).
        top: Rows per atom.

    Returns:
        Label of every atom (K), and its purity (K,); an atom that no row uses has the label "unused" and purity NaN.
    """
    values, rows = codes.abs().topk(min(top, len(codes)), dim=0)  # (top, K)
    names, purity = [], np.full(codes.shape[1], np.nan)
    for k in range(codes.shape[1]):
        own = [labels[i] for i, value in zip(rows[:, k].tolist(), values[:, k].tolist(), strict=True) if value > 0]
        if not own:
            names.append("unused")
            continue
        found, counts = np.unique(own, return_counts=True)
        names.append(str(found[counts.argmax()]))
        purity[k] = counts.max() / len(own)
    return names, purity


def beyond_null(value: float, null_values: Sequence[float]) -> float:
    """One-sided p-value of a value as high as one more draw of what few null values are draws of (Student's t).

    (value - mean) / (s sqrt(1 + 1/n)) has n - 1 degrees of freedom if values are normal; NaN for fewer than 2.
    """
    from scipy import stats

    null = np.asarray(null_values, float)
    if len(null) < 2 or null.std(ddof=1) == 0:
        return float("nan")
    t = (value - null.mean()) / (null.std(ddof=1) * np.sqrt(1 + 1 / len(null)))
    return float(stats.t.sf(t, len(null) - 1))
