"""An attention head for skip feature-bigrams: the module that is trained, and the construction without training."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.network import Network


class SkipBigramHead(Network):
    """One attention head whose last position looks back: several heads side by side, one per seed.

    A position's vector is the sum of its features' rows of W_E, and the score of a query for a key position is
    x_query W_Q W_Kᵀ x_keyᵀ, without a scale. As this is linear in the features, it is computed from the scores of all
    pairs of features, W_E W_Q W_Kᵀ W_Eᵀ, whose rank is at most d_head.

    Args:
        n_features: Features.
        d_model: Dimensions D of the positions' vectors.
        d_head: Dimensions of queries and keys.
        n_seeds: Heads.

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
        """Score of every query feature for every key feature, (S, n_features, n_features)."""
        return (self.W_E @ self.W_Q) @ (self.W_E @ self.W_K).mT

    def scores(self, contexts: Tensor) -> Tensor:
        """Scores (S, B, T) of contexts (S, B, T + 1, G): G features per position, by number; the last is the query."""
        n_seeds, n_contexts, _, n_groups = contexts.shape
        table = self.feature_scores()
        n_features = table.shape[1]
        first = n_features * torch.arange(n_seeds, device=contexts.device)[:, None, None]
        queries = (contexts[:, :, -1] + first).flatten(0, 1)  # (S * B, G), rows of the table of all seeds
        by_feature = F.embedding_bag(queries, table.flatten(0, 1), mode="sum")  # (S * B, n_features)
        by_feature = by_feature.view(n_seeds, n_contexts, n_features)
        return by_feature.gather(2, contexts[:, :, :-1].flatten(2)).unflatten(2, (-1, n_groups)).sum(3)

    def forward(self, contexts: Tensor) -> Tensor:
        """Attention of the last position over those before, (S, B, T), for contexts (S, B, T + 1, G)."""
        return self.scores(contexts).softmax(2)

    @classmethod
    def constructed(
        cls, n_features: int, d_model: int, d_head: int, pairs: Tensor, beta: float = 1.0, seed: int = 0
    ) -> "SkipBigramHead":
        """A head with random unit features and the weights of `skip_bigram_weights`.

        Args:
            n_features: Features.
            d_model: Dimensions D of the positions' vectors.
            d_head: Dimensions of queries and keys.
            pairs: Query feature and key feature of every skip bigram, (S, n_pairs, 2).
            beta: Inverse temperature, a factor of W_Q.
            seed: Of the features and the projections.
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
    """Random directions, (n, d)."""
    return F.normalize(torch.randn(n, d, generator=generator), dim=1)


def skip_bigram_weights(
    f_query: Tensor, f_key: Tensor, d_head: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """W_QK = sum f_i f_jᵀ over pairs of features, through a random projection: W_Q W_Kᵀ = P Pᵀ W_QK.

    P (D, d_head) has independent entries N(0, 1 / d_head), so that E[P Pᵀ] is the identity.

    Args:
        f_query: Query feature f_i of every pair, (n_pairs, D).
        f_key: Key feature f_j of every pair, (n_pairs, D).
        d_head: Dimensions of queries and keys.
        generator: Draws P.

    Returns:
        W_Q = P and W_K = W_QKᵀ P, both (D, d_head).
    """
    P = torch.randn(f_query.shape[1], d_head, generator=generator) / math.sqrt(d_head)
    return P, f_key.T @ (f_query @ P)


def score_noise(
    n_pairs: int, d_model: int, d_head: int, n_superposed: int = 1, query_pairs: int = 0, key_pairs: int = 0
) -> float:
    """Standard deviation of the construction's score between two features that are no pair: exact.

    Each of B pairs (i, j) adds (f_aᵀ P Pᵀ f_i) (f_jᵀ f_b) to the score of feature a for b. These have mean 0 and are
    uncorrelated. The second factor has the square 1 / D on average. With ρ = f_aᵀ f_i the first has, given the
    features, mean ρ and variance (1 + ρ²) / d_head, so its square is g = (1 + (d_head + 1) / D) / d_head on average,
    and σ² = B g / D: √(B / (D d_head)) where d_head is far below D. If f_i is f_a, g becomes 1 + 2 / d_head; if f_j is
    f_b, 1 / D becomes 1. With s features superposed at the query and s at the key, s² such scores add up: s σ.

    Args:
        n_pairs: Pairs B, their features all different from one another but for repeated partners.
        d_model: Dimensions D.
        d_head: Dimensions of queries and keys.
        n_superposed: Features s at either position, none of which is in a pair if there are several.
        query_pairs: Pairs of the query feature, none of them with this key feature.
        key_pairs: Pairs of the key feature, none of them with this query feature.
    """
    g = (1 + (d_head + 1) / d_model) / d_head
    others = n_pairs - query_pairs - key_pairs
    return n_superposed * math.sqrt((others * g + query_pairs * (1 + 2 / d_head)) / d_model + key_pairs * g)


def simulated_scores(
    n_pairs: int, d_model: int, d_head: int, n_queries: int, n_keys: int, n_superposed: int = 1, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The construction's scores, for one draw of the features and the projection.

    Args:
        n_pairs: Pairs B, of 2 B different features.
        d_model: Dimensions D.
        d_head: Dimensions of queries and keys.
        n_queries: Positions that ask.
        n_keys: Positions that hold no partner, each of features of its own.
        n_superposed: Features s at each of these, which are in no pair.
        seed: Of the draw.

    Returns:
        Scores of queries that are in no pair for the keys, (n_queries, n_keys); and of the query features of the first
        pairs, at most n_queries, for the keys and, last, for their own partner, (n, n_keys + 1).
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
    """Probability that the Gaussian noise of any of n competitors exceeds a signal of 1: 1 - Φ(1 / σ)^n.

    The query feature is in one pair, as there is a signal; σ is that of `score_noise`.
    """
    sigma = score_noise(n_pairs, d_model, d_head, query_pairs=1)
    return -math.expm1(n_competitors * torch.special.log_ndtr(torch.tensor(1 / sigma, dtype=torch.float64)).item())


def usable_pairs(d_model: int, d_head: int, n_competitors: int, level: float = 0.05) -> int:
    """The most pairs B whose `confusion` stays at or below a level; 0 if one pair is too many.

    Raises:
        ZooError: If the level is no probability strictly between 0 and 1.
    """
    if not 0 < level < 1:
        raise ZooError(f"level is {level}; it must be a probability above 0 and below 1")
    right = math.exp(math.log1p(-level) / n_competitors)  # probability that one competitor stays below the signal
    quantile = torch.special.ndtri(torch.tensor(right, dtype=torch.float64)).item()
    if quantile <= 0:
        raise ZooError(f"level {level} is that of chance with {n_competitors} competitors; choose a lower one")
    sigma, one, two = 1 / quantile, *(score_noise(b, d_model, d_head, query_pairs=1) ** 2 for b in (1, 2))
    return max(0, 1 + math.floor((sigma**2 - one) / (two - one)))


def simulated_confusion(
    n_pairs: int, d_model: int, d_head: int, n_competitors: int, n_draws: int = 20, n_queries: int = 200, seed: int = 0
) -> dict[str, float]:
    """Shares of queries for which a competitor exceeds 1, `one`, and exceeds the partner's own score, `partner`.

    The partner scores |Pᵀ f_i|², of mean 1 and variance 2 / d_head, plus noise, so that `partner` is the larger share
    in a narrow head. It is the share of argmax attention that goes wrong.
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
    """Softmax attention over positions of which several hold a partner: score 1 there, 0 elsewhere, plus N(0, noise²).

    Ideal attention is uniform over the t tied positions, with entropy log t. A low beta spreads it over the others
    too; a high one lets noise choose among the tied, and the entropy falls to 0.

    Args:
        beta: Inverse temperature.
        n_tied: Positions t that hold a partner.
        n_positions: All key positions.
        noise: Standard deviation of each score.
        n_draws: Contexts to average over.
        seed: Of the noise.

    Returns:
        `entropy` in nats and `mass`, the attention on tied positions: means over contexts.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = noise * torch.randn(n_draws, n_positions, generator=generator, dtype=torch.float64)
    scores[:, :n_tied] += 1
    log_pattern = (beta * scores).log_softmax(1)
    pattern = log_pattern.exp()
    entropy = -torch.where(pattern > 0, pattern * log_pattern, 0.0).sum(1)
    return {"entropy": entropy.mean().item(), "mass": pattern[:, :n_tied].sum(1).mean().item()}
