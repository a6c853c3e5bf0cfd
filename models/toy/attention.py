"""Attention by construction: tokens on a circle, and random token vectors in few dimensions. Nothing is trained."""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy import optimize, stats
from scipy.special import log_ndtr, logsumexp
from torch import Tensor, nn

from zoo.errors import ZooError

CHUNK_SCORES = 2**23  # scores held at once


def circle(n_tokens: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """The feature 'token is i' as the point at angle 2 pi i / V, rounded to a type, (V, 2)."""
    angle = 2 * math.pi * torch.arange(n_tokens, dtype=torch.float64) / n_tokens
    return torch.stack((angle.cos(), angle.sin()), 1).to(dtype)


def circle_gap(n_tokens: int) -> float:
    """How much a token's own score exceeds its neighbour's, 1 - cos(2 pi / V) = 2 sin²(pi / V)."""
    return 2 * math.sin(math.pi / n_tokens) ** 2


def largest_circle(dtype: torch.dtype) -> int:
    """The most tokens V that arithmetic in a type is certain to tell apart.

    A score is a sum of two products. Rounding the coordinates of both vectors, the products and the sum makes it wrong
    by at most 4 u sum |q_c k_c| <= 4 u, where u = eps / 2, and comparing two scores doubles that. So the gap has to be
    above 4 eps: V < pi / arcsin √(2 eps), about pi / √(2 eps). Somewhat larger circles may still work, by luck.
    """
    return int(math.pi / math.asin(math.sqrt(2 * torch.finfo(dtype).eps)))


def check_circle(n_tokens: int, dtype: torch.dtype) -> None:
    """Refuse a circle whose neighbours a type cannot tell apart.

    Raises:
        ZooError: Naming the most tokens that the type can tell apart, and the type that is needed.
    """
    if n_tokens < 2:
        raise ZooError(f"n_tokens is {n_tokens}; a circle of tokens needs at least 2")
    if not dtype.is_floating_point:
        raise ZooError(f"dtype is {_name(dtype)}; points on a circle need a floating-point type")
    most, needed = largest_circle(dtype), largest_circle(torch.float64)
    if n_tokens > most:
        way_out = "use float64" if n_tokens <= needed else f"float64 is not enough either, beyond {needed:,}"
        raise ZooError(
            f"{_name(dtype)} is sure to tell apart {most:,} tokens on a circle at most; of {n_tokens:,}, neighbours' "
            f"scores differ by {circle_gap(n_tokens):.1e}: {way_out}"
        )


class CircleAttention(nn.Module):
    """Attention to the query's own token from 2 dimensions: QK is beta times the identity, scores beta cos(θ_i - θ_j).

    It is right for mutually exclusive features, however many, as the cosine is largest at 0; the precision that this
    takes grows as V².

    Args:
        n_tokens: Tokens V.
        beta: Inverse temperature; see `circle_beta`.
        dtype: Type of the vectors and of the arithmetic.

    Raises:
        ZooError: If the type cannot tell so many tokens apart.
    """

    points: Tensor

    def __init__(self, n_tokens: int, beta: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        check_circle(n_tokens, dtype)
        self.beta = beta
        self.register_buffer("points", circle(n_tokens, dtype))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Attention of query tokens (B,) over key tokens (T,), (B, T)."""
        return (self.beta * (self.points[queries] @ self.points[keys].T)).softmax(1)


def misled_tokens(n_tokens: int, dtype: torch.dtype, window: int | None = None) -> int:
    """How many tokens of a circle score another at least as high as themselves, by trying.

    Args:
        n_tokens: Tokens V.
        dtype: Type of the vectors and of the arithmetic.
        window: Compare with so many neighbours on each side, enough as the cosine falls; all V by default.
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
    """Attention to the own token when every token is a key once: 1 / sum_j exp(-2 beta sin²(pi j / V))."""
    return math.exp(-logsumexp(-2 * beta * np.sin(np.pi * np.arange(n_tokens) / n_tokens) ** 2))


def circle_beta(n_tokens: int, weight: float) -> float:
    """The inverse temperature at which the own token gets a given attention, about log(2 w / (1 - w)) / gap.

    Raises:
        ZooError: If no temperature gives that weight.
    """
    if not 1 / n_tokens < weight < 1:
        raise ZooError(f"weight is {weight}; it must be above that of equal attention, {1 / n_tokens:.3g}, and below 1")
    high = math.log(n_tokens * weight / (1 - weight)) / circle_gap(n_tokens)  # enough if all were neighbours
    return float(optimize.brentq(lambda beta: circle_weight(n_tokens, beta) - weight, 0, high, rtol=1e-12))


def two_feature_failure(n_positions: int = 2) -> float:
    """How often the circle fails when each key position holds two features: the limit of many tokens, to about 1e-10.

    One of T positions holds the query's feature i and a random one, the others two random ones, and a vector is the sum
    of its features'. The score of the right position is 1 + cos A, of a wrong one cos B + cos C, all angles uniform.
    A wrong one wins with probability

        G(A) = P[cos B + cos C > 1 + cos A] = 1/pi² ∫_0^A arccos(1 + cos A - cos B) dB,   0 <= A <= pi,

    where arccos(1 - e) = 2 arcsin √(e / 2), and the attention fails with probability 1 - E[(1 - G(A))^(T - 1)].

    Args:
        n_positions: Key positions T.
    """
    t, weight = _double_exponential()
    a, share = np.pi * t[:, None], t[None, :]  # B = A (1 - share)
    half = np.sin(a * (1 - share / 2)) * np.sin(a * share / 2)  # (cos B - cos A) / 2
    beaten = a[:, 0] * (2 * np.arcsin(np.sqrt(half.clip(0, 1))) @ weight) / np.pi**2
    return float(weight @ -np.expm1((n_positions - 1) * np.log1p(-beaten)))


def simulated_two_feature_failure(n_tokens: int, n_positions: int, n_queries: int, seed: int = 0) -> float:
    """Share of queries that attend to a wrong position; what `two_feature_failure` says, by trying.

    Args:
        n_tokens: Tokens V.
        n_positions: Key positions T, each with two different features; the query's is in the first alone.
        n_queries: Contexts to try.
        seed: Of the features.
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
    """Random token vectors as seen in k dimensions, (V, k), with entries of variance about 1.

    Gaussian vectors are Gaussian in every subspace, so by default they are drawn there. With `d_model`, unit vectors
    in so many dimensions go through a random Gaussian matrix: much the same if d_model is far above k.
    """
    generator = torch.Generator().manual_seed(seed)
    if d_model is None:
        return torch.randn(n_tokens, k, generator=generator)
    tokens = F.normalize(torch.randn(n_tokens, d_model, generator=generator), dim=1)
    return tokens @ torch.randn(d_model, k, generator=generator)


def own_token_accuracy(n_tokens: int, k: int) -> float:
    """Expected share of Gaussian vectors in k dimensions that have the highest inner product with themselves.

    A query q of length r scores r² with itself, and N(0, r²) with each other key, independently given q. So it is right
    with probability Φ(r)^(V - 1), and the share is E[Φ(r)^(V - 1)] with r ~ chi_k. Of vectors of one length all are
    right, |q|² > q·k by Cauchy and Schwarz, whatever k > 1; but in 2 dimensions float32 is too coarse to show it, as
    on the circle.
    """
    x, weight = np.polynomial.legendre.leggauss(400)
    low, high = max(0.0, math.sqrt(k) - 10), math.sqrt(k) + 10
    r = low + (high - low) * (x + 1) / 2
    return float(weight @ (stats.chi.pdf(r, k) * np.exp((n_tokens - 1) * log_ndtr(r))) * (high - low) / 2)


def own_token_attention(tokens: Tensor, beta: float = math.inf, n_queries: int | None = None) -> float:
    """Mean attention of tokens to themselves among all tokens.

    Args:
        tokens: Vectors, which are queries and keys, (V, k).
        beta: Inverse temperature; if infinite, the share that score themselves above all others.
        n_queries: Use so many of the vectors as queries, the first; all by default.
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
    """The numbers below n, so many at a time that their scores fit."""
    yield from torch.arange(n).split(max(1, CHUNK_SCORES // scores_each))


def _double_exponential(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of tanh-sinh quadrature on [0, 1], which no singularity at an end disturbs (Takahasi, Mori)."""
    s = np.linspace(-4, 4, n)
    tail = np.exp(-np.pi * np.abs(np.sinh(s)))
    nodes = np.where(s < 0, tail, 1) / (1 + tail)
    return nodes, (s[1] - s[0]) * np.pi * np.cosh(s) * tail / (1 + tail) ** 2


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
