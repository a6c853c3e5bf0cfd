"""Detection of embedding rows that were never trained.

A row is trained by the gradients that only this row gets. A token that never occurs in the text has no such gradient.
Its row stays at its random initial value. If weight decay or a tied output moves such rows, they all move in the same
way and end around one centre near the mean of all rows (Land and Bartolo, "Fishing for Magikarp", 2024,
arXiv 2405.05417). A dictionary would have atoms for these rows that mean nothing, and the nearest neighbours of such a
row are other untrained rows. Rows of similar tokens, such as months, are also near each other, but they are not as near
as untrained rows, and they are not especially near the mean.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.near_neighbours import nearest

KEPT, NEVER_OCCURS, CLUSTER, RANDOM_START, NAME, NO_TEXT = range(6)
REASONS = ("kept", "never occur", "common cluster", "random start", "reserved name", "no text has them")
NEIGHBOURS = 20  # smallest number of rows in a cluster, and at a random start
NEAR = 0.25  # rows of a cluster are nearer to its centre than this; the unit is the median distance of ordinary rows
LEAST = 200  # smallest number of rows of a matrix in which a cluster is searched
CORE = 0.2  # radius of the core of a cluster, in the same unit
CROWDED = 1.6  # a core has more than this many times the rows between its radius and twice its radius
SHORT = 1 / 3  # largest share of other rows that may be nearer to the mean than half of the core
LARGER = 2.0  # the core has at least this many times the rows of any other dense place
SPOTS = 10  # number of dense places that are examined
ROUNDS = 10  # largest number of rounds in which a centre is found
DEVIATIONS = 3  # standard deviations by which the norm of a random start may differ from the mean norm
ALONE = 6.0  # a band of random starts has at least this many times the norms below it, and in half a band above it
TRAINED = 0.25  # largest share of a band's rows that may be near another row's direction; these rows are kept
CHANCE = 0.01  # probability that any random start is nearer to another row's direction than the limit
RESERVED = re.compile(
    r"(\[|<\|?)[\s_]*(unused|reserved|unk|pad|dummy|placeholder)[a-z\s_-]*\d+[\s_]*(\]|\|?>)|madeupword\d+",
    re.IGNORECASE,
)


class UntrainedRows(NamedTuple):
    """Reason why each row counts as untrained, and the measurements on which this is based."""

    reason: Tensor  # (V,) int64, index into REASONS; 0 for rows that look trained
    distance: Tensor  # (V,) from the cluster's centre, 1 for the median ordinary row; NaN if there is no cluster
    norm: float  # mean norm of rows at their random start; NaN if there are none

    @property
    def untrained(self) -> Tensor:
        """Whether a row counts as untrained for any reason, (V,) bool."""
        return self.reason != KEPT


def untrained_rows(
    W: Tensor, counts: Tensor | None = None, tokens: Sequence[str] | None = None, no_text: Tensor | None = None
) -> UntrainedRows:
    """Find rows that were never trained. A row without a reason to count as untrained is kept.

    A row gets the first of these reasons that applies:

    - *never occur*: the count of its token is 0.
    - *common cluster*: its distance from the centre of the cluster is less than 0.25, in units of the median distance
      of ordinary rows. There is a cluster if at least 20 rows are within 0.2 of its centre (the core), if these are
      more than 1.6 times as many as the rows between 0.2 and 0.4, and if the median row of the core is nearer to the
      mean of all rows than two thirds of the rows outside the core. The distance of 0.25 excludes groups of similar
      tokens (months with a cosine of 0.82 are at 0.31 and more), the ratio of 1.6 excludes rows whose lengths vary, and
      the distance to the mean excludes groups of near copies. The core must also have at least twice as many rows as
      any other dense place.
    - *random start*: its norm is in a band that is as narrow as the norms of Gaussian rows, and its direction is as far
      from those of all other rows as a random direction. The band contains at least 20 norms, and at least six times as
      many as are below it and as are in half a band above it. At most a quarter of its rows may be near the direction
      of another row.
    - *reserved name*: its token has a name like [unused12] or <|reserved_7|>.
    - *no text has them*: its token occurs in no text, see `zoo.token_texts.without_text`.

    Args:
        W: The embedding, (V, D).
        counts: How often every token occurs in the training text, (V,), if known.
        tokens: Texts of the tokens, if known; there may be fewer than V.
        no_text: Whether each token can occur in no text, bool, if known; there may be fewer than V.
    """
    V = len(W)
    W = W.float()
    reason = torch.full((V,), KEPT)

    def give(why: int, rows: Tensor) -> None:
        reason[: len(rows)][rows & (reason[: len(rows)] == KEPT)] = why

    if counts is not None:
        give(NEVER_OCCURS, counts == 0)
    distance = _from_cluster(W)
    give(CLUSTER, distance < NEAR)
    random, norm = _random_start(W, ~(distance < NEAR))
    give(RANDOM_START, random)
    if tokens is not None:
        give(NAME, reserved_names(tokens))
    if no_text is not None:
        give(NO_TEXT, no_text)
    return UntrainedRows(reason, distance, norm)


def reserved_names(tokens: Sequence[str]) -> Tensor:
    """Return which tokens have a name like [unused12], <|reserved_7|> or <unk_7>, bool."""
    return torch.tensor([RESERVED.fullmatch(token.strip()) is not None for token in tokens], dtype=torch.bool)


def _from_cluster(W: Tensor) -> Tensor:
    """Return the distance of every row from the cluster's centre, (V,), 1 for ordinary rows; NaN without a cluster."""
    V = len(W)
    none = torch.full((V,), torch.nan)
    if V < LEAST:
        return none
    lengths = (W - W.mean(0)).norm(dim=1)
    inner = lengths.argsort()[: V // 2]  # contains half of the rows of every cluster
    found = nearest(W[inner] - W.mean(0), NEIGHBOURS)
    spread = torch.full((V,), torch.inf)
    spread[inner] = found[0][:, -1]
    largest, sizes, taken = none, [0], torch.zeros(V, dtype=torch.bool)
    for _ in range(SPOTS):
        spot = int(spread.argmin())
        if spread[spot] == torch.inf:
            break
        distance = _around(W, W[inner[found[1][inner == spot][0]]].mean(0))
        core = distance < CORE
        if not (core & taken).any():
            sizes.append(int(core.sum()))
            largest = distance if sizes[-1] == max(sizes) else largest
        taken |= core
        spread[distance < 2 * CORE] = spread[spot] = torch.inf
    core, around = largest < CORE, (largest < 2 * CORE) & (largest >= CORE)
    size, second = int(core.sum()), sorted(sizes)[-2]
    if not NEIGHBOURS <= size < V or size < LARGER * second or size <= CROWDED * int(around.sum()):
        return none
    return largest if lengths[core].median() < lengths[~core].quantile(SHORT) else none


def _around(W: Tensor, centre: Tensor) -> Tensor:
    """Return the distance of rows (V, D) from the mean of the rows near `centre` (D,), as (V,).

    The unit is the median distance of the rows that are not near it.
    """
    core = torch.zeros(len(W), dtype=torch.bool)
    for _ in range(ROUNDS):
        distance = (W - centre).norm(dim=1)
        ordered = distance.sort().values
        unit = ordered[int(0.9 * len(W))]
        for _ in range(ROUNDS):
            unit = ordered[int(torch.searchsorted(ordered, 2 * CORE * unit)) :].median()
        distance /= unit.clamp(min=torch.finfo(torch.float32).tiny)
        before, core = core, distance < CORE
        if torch.equal(before, core) or not core.any():
            break
        centre = W[core].mean(0)
    return distance


def _random_start(W: Tensor, among: Tensor) -> tuple[Tensor, float]:
    """Return which rows look like independent Gaussians of the same small norm, (V,) bool, and their mean norm.

    Only rows for which `among`, (V,) bool, is true are examined.
    """
    from scipy.stats import beta

    V, D = W.shape
    norms = W.norm(dim=1)
    ordered = norms[among].sort().values
    width = 1 + 2 * DEVIATIONS / (2 * D) ** 0.5  # ratio of the ends of a band that contains the norms of Gaussian rows
    first = torch.arange(len(ordered))
    end, next_end = (torch.searchsorted(ordered, ordered * width**k) for k in (1, 1.5))
    inside = end - first
    alone = (
        (inside >= NEIGHBOURS)
        & (inside >= ALONE * torch.maximum(next_end - end, first))
        & (inside <= len(ordered) // 2)
    )
    nobody = torch.zeros(V, dtype=torch.bool), float("nan")
    if not alone.any():
        return nobody
    start = int(torch.where(alone, inside, 0).argmax())
    band = among & (norms >= ordered[start]) & (norms <= ordered[start] * width) & (norms > 0)
    directions, rows = F.normalize(W, dim=1), band.nonzero().squeeze(1)
    limit = beta.isf(CHANCE / (len(rows) * V), 0.5, (D - 1) / 2) ** 0.5  # on |cosine| of random directions
    cosines = []
    for part in rows.split(1024):
        cosine = (directions[part] @ directions.T).abs()
        cosine[torch.arange(len(part)), part] = 0
        cosines.append(cosine.max(1).values)
    alike = torch.cat(cosines) > limit if cosines else torch.zeros(0, dtype=torch.bool)
    if len(rows) < NEIGHBOURS or alike.float().mean() > TRAINED:
        return nobody
    found = torch.zeros(V, dtype=torch.bool)
    found[rows[~alike]] = True
    return found, norms[found].mean().item()


def area_under_curve(score: Tensor, positive: Tensor) -> float:
    """Return the probability that a positive example has a higher score than a negative one; ties count as half.

    It is NaN if there are no positive or no negative examples.

    Args:
        score: Scores of the examples, (n,).
        positive: Whether each example is positive, (n,) bool.
    """
    from scipy.stats import rankdata

    ranks = torch.from_numpy(rankdata(score.double().numpy()))
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")
