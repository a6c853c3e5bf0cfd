"""Constructed attention, without training: tokens on a circle, and random token vectors in few dimensions."""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy import optimize, stats
from scipy.special import log_ndtr, logsumexp
from torch import Tensor, nn

from zoo.errors import ZooError

CHUNK_SCORES = 2**23  # number of scores in memory at once


def circle(n_tokens: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the point of every token i on the unit circle, at angle 2 pi i / V, rounded to a type, (V, 2)."""
    angle = 2 * math.pi * torch.arange(n_tokens, dtype=torch.float64) / n_tokens
    return torch.stack((angle.cos(), angle.sin()), 1).to(dtype)


def circle_gap(n_tokens: int) -> float:
    """Return the difference between a token's own score and its neighbour's, 1 - cos(2 pi / V) = 2 sin²(pi / V)."""
    return 2 * math.sin(math.pi / n_tokens) ** 2


def largest_circle(dtype: torch.dtype) -> int:
    """Return the largest number of tokens V that arithmetic in a type can distinguish with certainty.

    A score is a sum of two products. Rounding the coordinates of both vectors, the products and the sum makes it wrong
    by at most 4 u sum |q_c k_c| <= 4 u, where u = eps / 2, and comparing two scores doubles that. So the gap has to be
    above 4 eps: V < pi / arcsin √(2 eps), about pi / √(2 eps). Somewhat larger circles may still work by chance.
    """
    return int(math.pi / math.asin(math.sqrt(2 * torch.finfo(dtype).eps)))


def check_circle(n_tokens: int, dtype: torch.dtype) -> None:
    """Raise an error if a type cannot distinguish neighbours on a circle of `n_tokens` tokens.

    Raises:
        ZooError: With the largest number of tokens that the type can distinguish, and the type that is needed.
    """
    if n_tokens < 2:
        raise ZooError(f"n_tokens is {n_tokens}; a circle of tokens needs at least 2")
    if not dtype.is_floating_point:
        raise ZooError(f"dtype is {_name(dtype)}; points on a circle need a floating-point type")
    most, needed = largest_circle(dtype), largest_circle(torch.float64)
    if n_tokens > most:
        way_out = "use float64" if n_tokens <= needed else f"float64 is not enough either, its limit is {needed:,}"
        raise ZooError(
            f"{_name(dtype)} can distinguish at most {most:,} tokens on a circle with certainty; with {n_tokens:,} "
            f"tokens, the scores of neighbours differ by only {circle_gap(n_tokens):.1e}: {way_out}"
        )


class CircleAttention(nn.Module):
    """Attention head in 2 dimensions that attends to the query's own token.

    QK is beta times the identity, so that scores are beta cos(θ_i - θ_j). The head is correct for any number of
    mutually exclusive features, because the cosine is largest at 0. The precision that is required grows as V².

    Args:
        n_tokens: Number of tokens V.
        beta: Inverse temperature; see `circle_beta`.
        dtype: Type of the vectors and of the arithmetic.

    Raises:
        ZooError: If the type cannot distinguish this number of tokens.
    """

    points: Tensor

    def __init__(self, n_tokens: int, beta: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        check_circle(n_tokens, dtype)
        self.beta = beta
        self.register_buffer("points", circle(n_tokens, dtype))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return the attention of query tokens (B,) over key tokens (T,), (B, T)."""
        return (self.beta * (self.points[queries] @ self.points[keys].T)).softmax(1)


def misled_tokens(n_tokens: int, dtype: torch.dtype, window: int | None = None) -> int:
    """Return the number of tokens on a circle for which another token scores at least as high as the token itself.

    The scores are computed in the given type.

    Args:
        n_tokens: Number of tokens V.
        dtype: Type of the vectors and of the arithmetic.
        window: Number of neighbours on each side with which a token is compared. Few suffice, because the cosine
            decreases with distance. By default a token is compared with all others.
    """
    points, misled = circle(n_tokens, dtype), 0
    for ids in _chunks(n_tokens, n_tokens if window is None else 2 * window + 1):
        if window is None:
            scores, own = points[ids] @ points.T, ids[:, None]
        else:
            offsets = torch.arange(-window, window + 1)
            scores = (points[ids].unsqueeze(1) * points[(ids[:, None] + offsets) % n_tokens]).sum(2)
            own = torch.full((len(ids), 1), window)
        self_score = scores.gather(1, own)
        misled += int((scores.scatter_(1, own, -torch.inf) >= self_score).any(1).sum())
    return misled


def circle_weight(n_tokens: int, beta: float) -> float:
    """Return the attention to the own token if every token is a key once, 1 / sum_j exp(-2 beta sin²(pi j / V))."""
    return math.exp(-logsumexp(-2 * beta * np.sin(np.pi * np.arange(n_tokens) / n_tokens) ** 2))


def circle_beta(n_tokens: int, weight: float) -> float:
    """Return the inverse temperature at which the own token gets attention `weight`, about log(2 w / (1 - w)) / gap.

    Raises:
        ZooError: If no inverse temperature leads to this weight.
    """
    if not 1 / n_tokens < weight < 1:
        raise ZooError(f"weight is {weight}; it must be above that of equal attention, {1 / n_tokens:.3g}, and below 1")
    high = math.log(n_tokens * weight / (1 - weight)) / circle_gap(n_tokens)  # enough if all were neighbours
    return float(optimize.brentq(lambda beta: circle_weight(n_tokens, beta) - weight, 0, high, rtol=1e-12))


def two_feature_failure(n_positions: int = 2) -> float:
    """Return the failure rate of the circle if each key position holds two features, in the limit of many tokens.

    The error of the result is about 1e-10. One of T positions holds the query's feature i and a random feature; the
    other positions hold two random features. The vector of a position is the sum of its features' vectors. The score of
    the correct position is 1 + cos A, that of a wrong position is cos B + cos C; all angles are uniform. A wrong
    position has the higher score with probability

        G(A) = P[cos B + cos C > 1 + cos A] = 1/pi² ∫_0^A arccos(1 + cos A - cos B) dB,   0 <= A <= pi,

    where arccos(1 - e) = 2 arcsin √(e / 2). The attention fails with probability 1 - E[(1 - G(A))^(T - 1)].

    Args:
        n_positions: Number of key positions T.
    """
    t, weight = _double_exponential()
    a, share = np.pi * t[:, None], t[None, :]  # B = A (1 - share)
    half = np.sin(a * (1 - share / 2)) * np.sin(a * share / 2)  # (cos B - cos A) / 2
    beaten = a[:, 0] * (2 * np.arcsin(np.sqrt(half.clip(0, 1))) @ weight) / np.pi**2
    return float(weight @ -np.expm1((n_positions - 1) * np.log1p(-beaten)))


def simulated_two_feature_failure(n_tokens: int, n_positions: int, n_queries: int, seed: int = 0) -> float:
    """Return the share of queries that attend to a wrong position, by simulation; compare `two_feature_failure`.

    Args:
        n_tokens: Number of tokens V.
        n_positions: Number of key positions T, each with two different features. Only the first position holds the
            query's feature.
        n_queries: Number of simulated contexts.
        seed: Seed of the features.
    """
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(1, n_tokens, (n_queries, n_positions), generator=generator)  # relative to the query's feature
    first[:, 0] = 0
    second = torch.randint(1, n_tokens - 1, (n_queries, n_positions), generator=generator)
    second[:, 1:] += second[:, 1:] >= first[:, 1:]
    cosine = circle(n_tokens)[:, 0]
    scores = cosine[first] + cosine[second]
    return (scores[:, 1:] >= scores[:, :1]).any(1).double().mean().item()


def projected_tokens(n_tokens: int, k: int, d_model: int | None = None, seed: int = 0) -> Tensor:
    """Return random token vectors, projected to k dimensions, (V, k), with entries of variance about 1.

    The projection of a Gaussian vector is Gaussian, so by default the vectors are drawn directly in k dimensions. With
    `d_model`, random unit vectors in d_model dimensions are multiplied by a random Gaussian matrix. The result is
    nearly the same if d_model is much larger than k.
    """
    generator = torch.Generator().manual_seed(seed)
    if d_model is None:
        return torch.randn(n_tokens, k, generator=generator)
    tokens = F.normalize(torch.randn(n_tokens, d_model, generator=generator), dim=1)
    return tokens @ torch.randn(d_model, k, generator=generator)


def own_token_accuracy(n_tokens: int, k: int) -> float:
    """Return the expected share of Gaussian vectors in k dimensions whose inner product with themselves is the highest.

    A query q of length r has score r² with itself, and N(0, r²) with each other key, independently given q. It is
    therefore correct with probability Φ(r)^(V - 1), and the share is E[Φ(r)^(V - 1)] with r ~ chi_k. If all vectors had
    the same length, all queries would be correct for any k > 1, because |q|² > q·k by the Cauchy-Schwarz inequality. In
    2 dimensions, however, float32 is not precise enough for this, as on the circle.
    """
    x, weight = np.polynomial.legendre.leggauss(400)
    low, high = max(0.0, math.sqrt(k) - 10), math.sqrt(k) + 10
    r = low + (high - low) * (x + 1) / 2
    return float(weight @ (stats.chi.pdf(r, k) * np.exp((n_tokens - 1) * log_ndtr(r))) * (high - low) / 2)


def own_token_attention(tokens: Tensor, beta: float = math.inf, n_queries: int | None = None) -> float:
    """Return the mean attention of tokens to themselves among all tokens.

    Args:
        tokens: Vectors of the tokens, which are both queries and keys, (V, k).
        beta: Inverse temperature. If it is infinite, the result is the share of tokens whose score with themselves is
            above all others.
        n_queries: Number of vectors that are used as queries, from the first on. By default all.
    """
    total, n = 0.0, min(len(tokens), n_queries or len(tokens))
    for ids in _chunks(n, len(tokens)):
        scores, own = tokens[ids] @ tokens.T, ids[:, None]
        if beta == math.inf:
            self_score = scores.gather(1, own)
            total += int((self_score > scores.scatter_(1, own, -torch.inf).amax(1, keepdim=True)).sum())
        else:
            total += (beta * scores).softmax(1).gather(1, own).double().sum().item()
    return total / n


def _chunks(n: int, scores_each: int) -> Iterator[Tensor]:
    """Yield the numbers below n in parts whose scores fit into memory."""
    yield from torch.arange(n).split(max(1, CHUNK_SCORES // scores_each))


def _double_exponential(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of tanh-sinh quadrature on [0, 1], which permits singular ends (Takahasi, Mori)."""
    s = np.linspace(-4, 4, n)
    tail = np.exp(-np.pi * np.abs(np.sinh(s)))
    nodes = np.where(s < 0, tail, 1) / (1 + tail)
    return nodes, (s[1] - s[0]) * np.pi * np.cosh(s) * tail / (1 + tail) ** 2


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
