"""An attention head for skip bigrams of features: the trainable module, and a construction without training."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.network import Network


class SkipBigramHead(Network):
    """One attention head whose last position looks back: several heads side by side, one per seed.

    The vector of a position is the sum of the rows of W_E of its features. The score of a query for a key position is
    x_query W_Q W_Kᵀ x_keyᵀ, without a scale factor. This is linear in the features. It is therefore computed from the
    scores of all pairs of features, W_E W_Q W_Kᵀ W_Eᵀ, a matrix of rank at most d_head.

    Args:
        n_features: Number of features.
        d_model: Number of dimensions D of the positions' vectors.
        d_head: Number of dimensions of queries and keys.
        n_seeds: Number of heads.

    Raises:
        ZooError: If a size is not positive.
    """

    not_for = "Claims about trained language models: it is a network whose right answers are known."

    def __init__(self, n_features: int, d_model: int, d_head: int, n_seeds: int = 1) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "n_features": n_features,
            "d_model": d_model,
            "d_head": d_head,
            "n_seeds": n_seeds,
        }
        for name, size in self.config.items():
            if size < 1:
                raise ZooError(f"{name} is {size}; it must be at least 1")
        self.W_E = nn.Parameter(torch.randn(n_seeds, n_features, d_model) / math.sqrt(d_model))
        self.W_Q = nn.Parameter(torch.randn(n_seeds, d_model, d_head) / math.sqrt(d_head))
        self.W_K = nn.Parameter(torch.randn(n_seeds, d_model, d_head) / math.sqrt(d_head))

    def feature_scores(self) -> Tensor:
        """Return the score of every query feature for every key feature, (S, n_features, n_features)."""
        return (self.W_E @ self.W_Q) @ (self.W_E @ self.W_K).mT

    def scores(self, contexts: Tensor) -> Tensor:
        """Return the scores (S, B, T) in contexts (S, B, T + 1, G): G feature numbers per position, the query last."""
        n_seeds, n_contexts, _, n_groups = contexts.shape
        table = self.feature_scores()
        n_features = table.shape[1]
        first = n_features * torch.arange(n_seeds, device=contexts.device)[:, None, None]
        queries = (contexts[:, :, -1] + first).flatten(0, 1)  # (S * B, G), rows of the table of all seeds
        by_feature = F.embedding_bag(queries, table.flatten(0, 1), mode="sum")  # (S * B, n_features)
        by_feature = by_feature.view(n_seeds, n_contexts, n_features)
        return by_feature.gather(2, contexts[:, :, :-1].flatten(2)).unflatten(2, (-1, n_groups)).sum(3)

    def forward(self, contexts: Tensor) -> Tensor:
        """Return the attention of the last position over the positions before it, (S, B, T).

        Contexts are (S, B, T + 1, G).
        """
        return self.scores(contexts).softmax(2)

    @classmethod
    def constructed(
        cls, n_features: int, d_model: int, d_head: int, pairs: Tensor, beta: float = 1.0, seed: int = 0
    ) -> "SkipBigramHead":
        """Return a head with random unit vectors as features and the weights of `skip_bigram_weights`.

        Args:
            n_features: Number of features.
            d_model: Number of dimensions D of the positions' vectors.
            d_head: Number of dimensions of queries and keys.
            pairs: Query feature and key feature of every skip bigram, (S, n_pairs, 2).
            beta: Inverse temperature, a factor of W_Q.
            seed: Seed of the features and the projections.
        """
        head = cls(n_features, d_model, d_head, len(pairs))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for i, bigrams in enumerate(pairs):
                features = unit_vectors(n_features, d_model, generator)
                W_Q, W_K = skip_bigram_weights(features[bigrams[:, 0]], features[bigrams[:, 1]], d_head, generator)
                head.W_E[i], head.W_Q[i], head.W_K[i] = features, beta * W_Q, W_K
        return head


def unit_vectors(n: int, d: int, generator: torch.Generator) -> Tensor:
    """Return random unit vectors, (n, d)."""
    return F.normalize(torch.randn(n, d, generator=generator), dim=1)


def skip_bigram_weights(
    f_query: Tensor, f_key: Tensor, d_head: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return W_Q and W_K that approximate W_QK = sum f_i f_jᵀ over pairs of features: W_Q W_Kᵀ = P Pᵀ W_QK.

    The random projection P (D, d_head) has independent entries N(0, 1 / d_head), so that E[P Pᵀ] is the identity.

    Args:
        f_query: Query feature f_i of every pair, (n_pairs, D).
        f_key: Key feature f_j of every pair, (n_pairs, D).
        d_head: Number of dimensions of queries and keys.
        generator: Generator from which P is drawn.

    Returns:
        W_Q = P and W_K = W_QKᵀ P, both (D, d_head).
    """
    P = torch.randn(f_query.shape[1], d_head, generator=generator) / math.sqrt(d_head)
    return P, f_key.T @ (f_query @ P)


def score_noise(
    n_pairs: int, d_model: int, d_head: int, n_superposed: int = 1, query_pairs: int = 0, key_pairs: int = 0
) -> float:
    """Return the exact standard deviation of the construction's score between two features that are not a pair.

    Each of B pairs (i, j) adds (f_aᵀ P Pᵀ f_i) (f_jᵀ f_b) to the score of feature a for b. These terms have mean 0 and
    are uncorrelated. The mean square of the second factor is 1 / D. Let ρ = f_aᵀ f_i. Given the features, the first
    factor has mean ρ and variance (1 + ρ²) / d_head, so its mean square is g = (1 + (d_head + 1) / D) / d_head. Then
    σ² = B g / D, and σ is about √(B / (D d_head)) if d_head is much smaller than D. If f_i is f_a, g becomes
    1 + 2 / d_head; if f_j is f_b, 1 / D becomes 1. With s features superposed at the query and s at the key, the score
    is a sum of s² such scores, and its standard deviation is s σ.

    Args:
        n_pairs: Number of pairs B. All their features are different, except for repeated partners.
        d_model: Number of dimensions D.
        d_head: Number of dimensions of queries and keys.
        n_superposed: Number of features s at either position. If there are several, none of them is in a pair.
        query_pairs: Number of pairs of the query feature. None of them contains this key feature.
        key_pairs: Number of pairs of the key feature. None of them contains this query feature.
    """
    g = (1 + (d_head + 1) / d_model) / d_head
    others = n_pairs - query_pairs - key_pairs
    return n_superposed * math.sqrt((others * g + query_pairs * (1 + 2 / d_head)) / d_model + key_pairs * g)


def simulated_scores(
    n_pairs: int, d_model: int, d_head: int, n_queries: int, n_keys: int, n_superposed: int = 1, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return scores of the construction for one draw of the features and the projection.

    Args:
        n_pairs: Number of pairs B, of 2 B different features.
        d_model: Number of dimensions D.
        d_head: Number of dimensions of queries and keys.
        n_queries: Number of query positions.
        n_keys: Number of key positions that hold no partner. Each has its own features.
        n_superposed: Number of features s at each of these query and key positions. They are in no pair.
        seed: Seed of the draw.

    Returns:
        The scores of queries whose features are in no pair for the keys, (n_queries, n_keys). And the scores of the
        query features of the first pairs, at most n_queries, for the keys and, in the last column, for their own
        partner, (n, n_keys + 1).
    """
    generator = torch.Generator().manual_seed(seed)
    f_query, f_key = unit_vectors(2 * n_pairs, d_model, generator).split(n_pairs)
    W_Q, W_K = skip_bigram_weights(f_query, f_key, d_head, generator)
    queries, keys = (
        unit_vectors(n * n_superposed, d_model, generator).view(n, n_superposed, d_model).sum(1)
        for n in (n_queries, n_keys)
    )
    asking = f_query[:n_queries] @ W_Q
    partner = (asking * (f_key[:n_queries] @ W_K)).sum(1, keepdim=True)
    return (queries @ W_Q) @ (keys @ W_K).T, torch.cat((asking @ (keys @ W_K).T, partner), 1)


def confusion(n_pairs: int, d_model: int, d_head: int, n_competitors: int) -> float:
    """Return the probability that the Gaussian noise of any of n competitors exceeds a signal of 1, 1 - Φ(1 / σ)^n.

    There is a signal because the query feature is in one pair; σ is the result of `score_noise`.
    """
    sigma = score_noise(n_pairs, d_model, d_head, query_pairs=1)
    return -math.expm1(n_competitors * torch.special.log_ndtr(torch.tensor(1 / sigma, dtype=torch.float64)).item())


def usable_pairs(d_model: int, d_head: int, n_competitors: int, level: float = 0.05) -> int:
    """Return the largest number of pairs B whose `confusion` is at most `level`; 0 if one pair is too many.

    Raises:
        ZooError: If the level is not strictly between 0 and 1, or if `confusion` is below it for any number of pairs.
    """
    if not 0 < level < 1:
        raise ZooError(f"level is {level}; it must be a probability above 0 and below 1")
    right = math.exp(math.log1p(-level) / n_competitors)  # probability that one competitor stays below the signal
    quantile = torch.special.ndtri(torch.tensor(right, dtype=torch.float64)).item()
    if quantile <= 0:
        raise ZooError(
            f"level is {level}; with {n_competitors} competitors, confusion is below it for any number of pairs; "
            "use a lower level"
        )
    sigma, one, two = 1 / quantile, *(score_noise(b, d_model, d_head, query_pairs=1) ** 2 for b in (1, 2))
    return max(0, 1 + math.floor((sigma**2 - one) / (two - one)))


def simulated_confusion(
    n_pairs: int, d_model: int, d_head: int, n_competitors: int, n_draws: int = 20, n_queries: int = 200, seed: int = 0
) -> dict[str, float]:
    """Return the shares of queries for which a competitor's score exceeds 1, `one`, or the partner's score, `partner`.

    The partner's score is |Pᵀ f_i|², with mean 1 and variance 2 / d_head, plus noise, so that `partner` is the larger
    share in a narrow head. `partner` is the error rate of argmax attention.
    """
    shares = {"one": 0.0, "partner": 0.0}
    for draw in range(n_draws):
        scores = simulated_scores(n_pairs, d_model, d_head, n_queries, n_competitors, seed=seed * n_draws + draw)[1]
        most = scores[:, :-1].amax(1)
        shares["one"] += (most > 1).double().mean().item() / n_draws
        shares["partner"] += (most > scores[:, -1]).double().mean().item() / n_draws
    return shares


def tied_attention(
    beta: float, n_tied: int, n_positions: int, noise: float, n_draws: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Return statistics of softmax attention in contexts where several positions hold a partner.

    Scores are 1 at these positions and 0 at the others, plus N(0, noise²). Ideal attention is uniform over the t tied
    positions, with entropy log t. A low beta spreads attention to the other positions as well. With a high beta, noise
    selects one of the tied positions, and the entropy falls to 0.

    Args:
        beta: Inverse temperature.
        n_tied: Number of positions t that hold a partner.
        n_positions: Number of all key positions.
        noise: Standard deviation of the noise of each score.
        n_draws: Number of contexts over which results are averaged.
        seed: Seed of the noise.

    Returns:
        Means over contexts of `entropy`, in nats, and `mass`, the attention on tied positions.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = noise * torch.randn(n_draws, n_positions, generator=generator, dtype=torch.float64)
    scores[:, :n_tied] += 1
    log_pattern = (beta * scores).log_softmax(1)
    pattern = log_pattern.exp()
    entropy = -torch.where(pattern > 0, pattern * log_pattern, 0.0).sum(1)
    return {"entropy": entropy.mean().item(), "mass": pattern[:, :n_tied].sum(1).mean().item()}
