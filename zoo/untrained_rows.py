"""Which rows of an embedding were never trained?

What trains a row is a gradient of its own, and a token that the text never has gets none. Its row stays at its random
start or, where weight decay or a tied output moves such rows, moves as all of them do: they end around one centre,
near the mean of all rows (Land and Bartolo, "Fishing for Magikarp", 2024, arXiv 2405.05417). A dictionary gives them
atoms for nothing, and every neighbour of one is another. Tokens that are alike, as months are, lie near each other
too, but less so, and not nearer to the mean than sizes.
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
NEIGHBOURS = 20  # the fewest rows of a cluster, and of a random start
NEAR = 0.25  # a cluster's rows are nearer to its centre than this, where ordinary rows are at 1
LEAST = 200  # rows of a matrix in which a cluster is looked for
CORE = 0.2  # most of them are nearer than this:
CROWDED = 1.6  # times as many as from there to twice that
SHORT = 1 / 3  # share of ordinary rows that are nearer to the mean than half of the cluster
LARGER = 2.0  # times as many rows as any other such place has
SPOTS = 10  # dense places that are looked at
ROUNDS = 10  # in which a centre is found
DEVIATIONS = 3  # that the norm of a random start differs from the mean norm
ALONE = 6.0  # times as many norms are in the band of the random start as in half a band above
TRAINED = 0.25  # at most this share of a band's rows is near another row's direction, and kept
CHANCE = 0.01  # that any of the random starts is as near to another row's direction as is allowed
RESERVED = re.compile(
    r"(\[|<\|?)[\s_]*(unused|reserved|unk|pad|dummy|placeholder)[a-z\s_-]*\d+[\s_]*(\]|\|?>)|madeupword\d+",
    re.IGNORECASE,
)


class UntrainedRows(NamedTuple):
    """Why each row is untrained, and what that was judged by."""

    reason: Tensor  # (V,) int64, index into REASONS; 0 of rows that look trained
    distance: Tensor  # (V,) from the cluster's centre, 1 of the median ordinary row; NaN if there is no cluster
    norm: float  # mean norm of rows at their random start; NaN if there are none

    @property
    def untrained(self) -> Tensor:
        """Whether there is any reason, (V,) bool."""
        return self.reason != KEPT


def untrained_rows(
    W: Tensor, counts: Tensor | None = None, tokens: Sequence[str] | None = None, no_text: Tensor | None = None
) -> UntrainedRows:
    """Find rows that were never trained; a row for which nothing decides is kept.

    A row has the first of these reasons that holds:

    - *never occur*: its token's count is 0.
    - *common cluster*: it is less than a quarter as far from the cluster's centre as the median of the rows outside. A
      place is a cluster if at least 20 rows are that near to it, 1.6 times as many as from there to twice as far,
      and if half of them are nearer to the mean of all rows than a third of the rows outside is. The first tells a
      cluster from a family of alike tokens (at 0.31 and more for months of cosine 0.82), the second from rows whose
      lengths vary, the third from families of near copies. Of several clusters the largest is taken.
    - *random start*: it has the norm of at least 20 independent Gaussian rows, apart from all longer rows, and its
      direction is as far from that of every other row as a random one's.
    - *reserved name*: its token is called [unused12], <|reserved_7|> or the like.
    - *no text has them*: see `zoo.token_texts.without_text`.

    Args:
        W: The embedding, (V, D).
        counts: How often every token occurs in the training text, (V,), if known.
        tokens: Texts of the tokens, of which there may be fewer than V.
        no_text: Which tokens no text can have, bool, of which there may be fewer than V.
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
    """Which tokens are called [unused12], <|reserved_7|>, <unk_7> or the like, bool."""
    return torch.tensor([RESERVED.fullmatch(token.strip()) is not None for token in tokens], dtype=torch.bool)


def _from_cluster(W: Tensor) -> Tensor:
    """Distance of every row from the cluster's centre, (V,), 1 of ordinary rows; NaN without a cluster."""
    V = len(W)
    none = torch.full((V,), torch.nan)
    if V < LEAST:
        return none
    lengths = (W - W.mean(0)).norm(dim=1)
    inner = lengths.argsort()[: V // 2]  # where half of the rows of every cluster lie
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
    """Distance of rows (V, D) from the mean of those around a place (D,), (V,), 1 of the median row farther away."""
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
    """Rows (V,) bool that are independent Gaussians of one small norm, and the mean of that; `among` is (V,) bool."""
    from scipy.stats import beta

    V, D = W.shape
    norms = W.norm(dim=1)
    ordered = norms[among].sort().values
    width = 1 + 2 * DEVIATIONS / (2 * D) ** 0.5  # of a band that has all norms of Gaussian rows, as a ratio
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
    limit = beta.isf(CHANCE / (len(rows) * V), 0.5, (D - 1) / 2) ** 0.5  # of the absolute cosine of random directions
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
    """Chance that a score (n,) is higher for a positive than for another, ties counting half; NaN if either is absent.

    Args:
        score: (n,).
        positive: (n,) bool.
    """
    from scipy.stats import rankdata

    ranks = torch.from_numpy(rankdata(score.double().numpy()))
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")
