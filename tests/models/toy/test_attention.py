import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import integrate

from zoo.models import SkipBigramHead
from zoo.models.toy.attention import (
    CircleAttention,
    circle,
    circle_beta,
    circle_gap,
    circle_weight,
    largest_circle,
    misled_tokens,
    own_token_accuracy,
    own_token_attention,
    projected_tokens,
    simulated_two_feature_failure,
    two_feature_failure,
)
from zoo.models.toy.skip_bigram_head import (
    confusion,
    score_noise,
    simulated_confusion,
    simulated_scores,
    skip_bigram_weights,
    tied_attention,
    unit_vectors,
    usable_pairs,
)

GPT2_VOCABULARY = 50257


def test_every_token_of_the_largest_circle_attends_to_itself_in_float32():
    assert largest_circle(torch.float32) == 6433
    assert misled_tokens(6433, torch.float32) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_circle_up_to_the_largest_is_right_in_short_types(dtype):
    most = largest_circle(dtype)
    assert all(misled_tokens(n, dtype) == 0 for n in range(2, most + 1))
    assert misled_tokens(4 * most, dtype) > 0


def test_the_circle_of_gpt2s_tokens_fails_in_float32_and_works_in_float64():
    assert circle_gap(GPT2_VOCABULARY) == pytest.approx(7.8e-9, rel=0.01)
    assert misled_tokens(GPT2_VOCABULARY, torch.float32, window=8) > 0.9 * GPT2_VOCABULARY
    assert misled_tokens(GPT2_VOCABULARY, torch.float64, window=8) == 0


def test_near_neighbours_tell_as_much_as_farther_ones():
    for n in (9921, 12_000, 20_000):
        assert 0 < misled_tokens(n, torch.float32, window=5) == misled_tokens(n, torch.float32, window=50)


@pytest.mark.parametrize(
    ("n_tokens", "dtype", "message"),
    [
        (GPT2_VOCABULARY, torch.float32, "float32 can distinguish at most 6,433 .* with 50,257 .*7.8e-09: use f"),
        (10**9, torch.float64, "float64 can distinguish at most 149,078,413 .* float64 is not enough either"),
        (10**9, torch.float32, "float64 is not enough either, its limit is 149,078,413"),
        (1, torch.float32, "n_tokens is 1; a circle of tokens needs at least 2"),
        (10, torch.int64, "dtype is int64; points on a circle need a floating-point type"),
    ],
)
def test_a_circle_too_fine_for_its_type_is_refused(n_tokens, dtype, message, refused):
    with refused(message):
        CircleAttention(n_tokens, 1.0, dtype)


def test_attention_on_the_circle_goes_to_the_own_token_and_has_the_weight_asked_for():
    n, weight = 40, 0.95
    tokens = torch.arange(n)
    pattern = CircleAttention(n, circle_beta(n, weight), torch.float64)(tokens, tokens)
    torch.testing.assert_close(pattern.diag(), torch.full((n,), weight, dtype=torch.float64), rtol=1e-6, atol=0)
    assert torch.equal(pattern.argmax(1), tokens)


def test_beta_grows_as_the_square_of_the_vocabulary():
    betas = [circle_beta(n, 0.9) for n in (500, 1000, GPT2_VOCABULARY)]
    assert betas[1] / betas[0] == pytest.approx(4, rel=1e-3)
    assert betas[2] == pytest.approx(math.log(2 * 0.9 / 0.1) / circle_gap(GPT2_VOCABULARY), rel=1e-3)
    assert circle_weight(GPT2_VOCABULARY, betas[2]) == pytest.approx(0.9)
    assert circle_weight(7, 0.0) == pytest.approx(1 / 7)


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_a_weight_that_no_temperature_gives_is_refused(weight, refused):
    with refused(f"weight is {weight}; it must be above that of equal attention, 0.1, and below 1"):
        circle_beta(10, weight)


def test_two_features_per_position_mislead_the_circle_in_a_fifth_of_pairs():
    def integrand(b, a):
        return math.acos(max(-1.0, min(1.0, 1 + math.cos(a) - math.cos(b)))) / math.pi**3

    direct = integrate.dblquad(integrand, 0, math.pi, 0, lambda a: a, epsabs=1e-7)[0]
    assert two_feature_failure() == pytest.approx(direct, abs=1e-7)
    assert two_feature_failure() == pytest.approx(0.2133, abs=1e-4)


@pytest.mark.parametrize("n_positions", [2, 3, 16, 64])
def test_the_share_misled_by_two_features_is_that_of_theory(n_positions):
    share, n = simulated_two_feature_failure(2000, n_positions, 40_000), 40_000
    p = two_feature_failure(n_positions)
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_one_position_alone_cannot_mislead():
    assert two_feature_failure(1) == 0


def test_one_feature_per_position_never_misleads_where_two_do():
    points, ids = circle(300), torch.arange(300)
    assert torch.equal((points @ points.T).argmax(1), ids)
    assert simulated_two_feature_failure(300, 300, 1000) > 0.9


@pytest.mark.parametrize(("n_tokens", "k"), [(2, 1), (100, 4), (1000, 8), (1000, 16)])
def test_the_share_that_attend_to_themselves_is_that_of_theory(n_tokens, k):
    draws = 4000 // min(n_tokens, 100)
    shares = [own_token_attention(projected_tokens(n_tokens, k, seed=s), n_queries=500) for s in range(draws)]
    error = np.std(shares) / math.sqrt(draws)
    assert abs(np.mean(shares) - own_token_accuracy(n_tokens, k)) < 4 * error


def test_gpt2s_vocabulary_needs_about_forty_dimensions_raw():
    expected = {16: 0.343, 32: 0.968, 48: 0.9998}
    for k, share in expected.items():
        assert own_token_accuracy(GPT2_VOCABULARY, k) == pytest.approx(share, abs=1e-3)
    found = own_token_attention(projected_tokens(GPT2_VOCABULARY, 32), n_queries=200)
    assert found == pytest.approx(expected[32], abs=4 * math.sqrt(0.968 * 0.032 / 200))
    assert own_token_attention(projected_tokens(GPT2_VOCABULARY, 100), n_queries=100) == 1


def test_two_tokens_in_one_dimension_are_right_as_often_as_chance_has_it():
    # Right if |x| > |y| or the signs differ: 3 / 4.
    assert own_token_accuracy(2, 1) == pytest.approx(0.75, abs=1e-6)


def test_vectors_of_one_length_are_right_in_any_dimension_but_two_take_float64():
    tokens = projected_tokens(8192, 2)
    assert own_token_attention(F.normalize(tokens.double()), n_queries=500) == 1
    assert own_token_attention(F.normalize(tokens), n_queries=500) < 0.7
    assert own_token_attention(F.normalize(projected_tokens(8192, 4)), n_queries=500) == 1


def test_unit_vectors_through_a_random_matrix_do_as_gaussian_vectors():
    shares = [own_token_attention(projected_tokens(500, 8, d_model=2048, seed=s)) for s in range(20)]
    assert np.mean(shares) == pytest.approx(own_token_accuracy(500, 8), abs=0.03)


def test_attention_to_the_own_token_falls_from_the_argmax_to_chance_with_temperature():
    tokens = projected_tokens(400, 16)
    weights = [own_token_attention(tokens, beta) for beta in (0.0, 0.1, 1.0, 100.0)]
    assert weights[0] == pytest.approx(1 / 400)
    assert weights == sorted(weights)
    assert weights[-1] == pytest.approx(own_token_attention(tokens), abs=0.01)


@pytest.mark.parametrize(
    ("n_pairs", "d_model", "d_head"), [(16, 256, 16), (256, 256, 16), (64, 512, 8), (512, 1024, 16)]
)
def test_noise_of_the_construction_is_the_root_of_pairs_over_dimensions(n_pairs, d_model, d_head):
    squares = [simulated_scores(n_pairs, d_model, d_head, 200, 200, seed=s)[0].square().mean() for s in range(20)]
    found = torch.stack(squares).mean().sqrt().item()
    assert found == pytest.approx(math.sqrt(n_pairs / (d_model * d_head)), rel=0.2)
    assert found == pytest.approx(score_noise(n_pairs, d_model, d_head), rel=0.04)


@pytest.mark.parametrize(("n_pairs", "d_model", "d_head"), [(100, 64, 48), (4, 32, 32)])
def test_noise_is_exact_also_where_the_head_is_not_narrow(n_pairs, d_model, d_head):
    squares = [simulated_scores(n_pairs, d_model, d_head, 200, 200, seed=s)[0].square().mean() for s in range(400)]
    found = torch.stack(squares).mean().sqrt().item()
    assert found == pytest.approx(score_noise(n_pairs, d_model, d_head), rel=0.03)
    assert found > 1.3 * math.sqrt(n_pairs / (d_model * d_head))


def test_a_query_feature_with_a_partner_is_noisier_for_the_others():
    squares = [simulated_scores(16, 128, 16, 16, 200, seed=s)[1][:, :-1].square().mean() for s in range(200)]
    found = torch.stack(squares).mean().sqrt().item()
    assert found == pytest.approx(score_noise(16, 128, 16, query_pairs=1), rel=0.04)
    assert found > 1.2 * score_noise(16, 128, 16)


def test_a_partner_scores_one_on_average_with_variance_two_over_d_head():
    scores = torch.cat([simulated_scores(4, 2000, 16, 4, 1, seed=s)[1][:, -1] for s in range(300)])
    assert scores.mean().item() == pytest.approx(1, abs=0.05)
    assert scores.var().item() == pytest.approx(2 / 16, rel=0.25)


@pytest.mark.parametrize("s", [2, 4])
def test_features_superposed_at_both_positions_multiply_the_noise_by_their_number(s):
    squares = [simulated_scores(64, 256, 16, 100, 100, s, seed)[0].square().mean() for seed in range(20)]
    assert torch.stack(squares).mean().sqrt().item() == pytest.approx(s * score_noise(64, 256, 16), rel=0.05)


@pytest.mark.parametrize(("d_model", "d_head", "n_competitors"), [(256, 16, 100), (512, 64, 10), (1024, 32, 1000)])
def test_usable_pairs_are_the_most_that_keep_confusion_below_the_level(d_model, d_head, n_competitors):
    most = usable_pairs(d_model, d_head, n_competitors, 0.05)
    assert confusion(most, d_model, d_head, n_competitors) <= 0.05
    assert confusion(most + 1, d_model, d_head, n_competitors) > 0.05


def test_the_gaussian_formula_is_near_the_share_that_exceeds_one_and_the_partners_score_is_exceeded_more_often():
    most = usable_pairs(512, 64, 100)
    shares = simulated_confusion(most, 512, 64, 100, n_draws=10)
    assert 0.04 < shares["one"] < 0.1
    assert shares["partner"] > 2 * shares["one"]
    assert simulated_confusion(most // 4, 512, 64, 100, n_draws=10)["partner"] < 0.02


@pytest.mark.parametrize(
    ("level", "message"),
    [
        (0.0, "level is 0.0; it must be a probability"),
        (0.99, "level is 0.99; with 2 competitors, confusion is below it"),
    ],
)
def test_a_level_that_says_nothing_is_refused(level, message, refused):
    with refused(message):
        usable_pairs(64, 8, 2, level)


def test_no_pair_is_usable_in_too_few_dimensions():
    assert usable_pairs(4, 2, 1000) == 0


def test_the_construction_is_the_sum_over_pairs_through_a_random_projection():
    generator = torch.Generator().manual_seed(0)
    f_query, f_key = unit_vectors(12, 30, generator).split(6)
    W_Q, W_K = skip_bigram_weights(f_query, f_key, 5, generator)
    W_QK = sum(torch.outer(i, j) for i, j in zip(f_query, f_key, strict=True))
    torch.testing.assert_close(W_Q @ W_K.T, W_Q @ W_Q.T @ W_QK)
    mean = torch.stack([(P := skip_bigram_weights(f_query, f_key, 5, generator)[0]) @ P.T for _ in range(4000)]).mean(0)
    torch.testing.assert_close(mean, torch.eye(30), atol=0.05, rtol=0)


def test_without_noise_ties_share_attention_and_the_entropy_is_the_logarithm_of_their_number():
    found = tied_attention(100.0, 4, 16, noise=0.0)
    assert found["entropy"] == pytest.approx(math.log(4))
    assert found["mass"] == pytest.approx(1)
    assert tied_attention(0.0, 4, 16, noise=0.3)["entropy"] == pytest.approx(math.log(16))


def test_with_noise_a_low_temperature_breaks_ties():
    found = [tied_attention(beta, 4, 16, noise=0.1) for beta in (1, 10, 100, 10_000)]
    entropies, masses = ([f[key] for f in found] for key in ("entropy", "mass"))
    assert entropies == sorted(entropies, reverse=True)
    assert masses == sorted(masses)
    assert entropies[-1] < 0.01
    # Two tied positions with scores d apart, d ~ N(0, 2 noise²).
    d = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    density = (-d.square() / (4 * 0.01)).exp() / math.sqrt(4 * math.pi * 0.01)
    p = torch.sigmoid(20 * d)
    expected = torch.trapezoid(density * torch.special.entr(torch.stack((p, 1 - p))).sum(0), d).item()
    assert tied_attention(20.0, 2, 2, noise=0.1, n_draws=20_000)["entropy"] == pytest.approx(expected, abs=0.01)


def test_a_wide_constructed_head_attends_to_partners_and_to_nothing_else():
    pairs = torch.tensor([[[0, 4], [1, 5], [2, 6], [3, 7]]])
    head = SkipBigramHead.constructed(8, 2000, 1000, pairs, beta=20)
    contexts = torch.tensor([[4], [5], [6], [7]]).repeat(4, 1, 1)
    contexts = torch.cat((contexts, torch.arange(4).view(4, 1, 1)), 1).unsqueeze(0)  # (1, 4, 5, 1)
    torch.testing.assert_close(head(contexts), torch.eye(4).unsqueeze(0), atol=1e-3, rtol=0)
