import itertools

import pytest
import torch

from zoo import null_models


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def largest_cosine(rows):
    rows = rows.double() / rows.double().norm(dim=1, keepdim=True)
    return max(abs(float(a @ b)) for a, b in itertools.combinations(rows, 2))


@pytest.fixture
def W():
    """300 rows in 5 dimensions with a mean, unequal variances and correlations."""
    return torch.randn(300, 5, generator=seeded(9)) @ torch.randn(5, 5, generator=seeded(8)) + torch.arange(5)


@pytest.mark.parametrize("make", ["gaussian", "norm_matched", "covariance_matched", "permuted_rows", "low_coherence"])
def test_a_seed_names_a_matrix(W, make):
    def draw(seed):
        if make == "gaussian":
            return null_models.gaussian(300, 5, seeded(seed))
        if make == "low_coherence":
            return null_models.low_coherence(30, 20, 0.8, seeded(seed))[0]
        return getattr(null_models, make)(W, seeded(seed))

    assert draw(1).dtype == torch.float32
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_norm_matched_rows_have_the_norms_of_the_real_ones(W):
    W[7] = 0
    null = null_models.norm_matched(W, seeded())
    torch.testing.assert_close(null.norm(dim=1), W.norm(dim=1))
    assert not null[7].any()


def test_norm_matched_directions_do_not_follow_the_real_ones(W):
    cosines = torch.cosine_similarity(null_models.norm_matched(W, seeded()), W)
    assert abs(cosines.mean()) < 5 / (300 * 5) ** 0.5  # a random cosine in D dimensions has variance 1 / D


def test_covariance_matched_mean_and_covariance_agree_within_sampling_error(W):
    null = null_models.covariance_matched(W.repeat(100, 1), seeded()).double()
    mean, cov = W.double().mean(0), torch.cov(W.double().T, correction=0)
    variances = cov.diagonal()
    n = len(null)
    assert ((null.mean(0) - mean).abs() < 5 * (variances / n).sqrt()).all()
    # a Gaussian sample's covariance has variance (cov_ij² + cov_ii cov_jj) / n (Isserlis)
    error = ((cov**2 + variances.outer(variances)) / n).sqrt()
    assert ((torch.cov(null.T, correction=0) - cov).abs() < 5 * error).all()


def test_covariance_matched_rows_stay_in_the_span_of_the_real_ones():
    W = torch.randn(200, 2, generator=seeded()) @ torch.randn(2, 6, generator=seeded(1))
    null = null_models.covariance_matched(W, seeded(2)).double()
    assert torch.linalg.svdvals(null - null.mean(0))[2] < 1e-4


def test_permuted_rows_are_the_same_rows_at_other_places(W):
    null = null_models.permuted_rows(W, seeded())
    assert sorted(map(tuple, null.tolist())) == sorted(map(tuple, W.tolist()))
    assert (null != W).any(dim=1).sum() > 250


@pytest.mark.parametrize(
    ("n_rows", "d_model", "bound"), [(40, 16, 0.7), (100, 32, 0.55), (8, 16, 0.3), (1500, 8, 0.999)]
)
def test_low_coherence_keeps_its_bound_and_reports_the_largest_cosine(n_rows, d_model, bound):
    rows, reached = null_models.low_coherence(n_rows, d_model, bound, seeded())
    cosines = (rows.double() @ rows.double().T).abs().fill_diagonal_(0)
    assert rows.shape == (n_rows, d_model)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(n_rows))
    assert cosines.max() <= bound + 1e-6
    assert reached == pytest.approx(cosines.max().item(), abs=1e-6)


def test_low_coherence_beats_plain_random_rows():
    rows, _ = null_models.low_coherence(40, 16, 0.7, seeded())
    assert largest_cosine(rows) <= 0.7 < largest_cosine(null_models.gaussian(40, 16, seeded()))


@pytest.mark.parametrize("d", [1, 2, 3, 7])
def test_the_welch_bound_is_met_by_the_simplex(d):
    simplex = torch.eye(d + 1) - 1 / (d + 1)  # d + 1 vectors that span d dimensions
    assert null_models.welch_bound(d + 1, d) == pytest.approx(1 / d)
    assert largest_cosine(simplex) == pytest.approx(1 / d)


def test_the_welch_bound_is_met_by_the_diagonals_of_the_icosahedron():
    golden = (1 + 5**0.5) / 2
    rows = [(0.0, 1.0, golden), (0.0, 1.0, -golden)]
    rows = torch.tensor([row[i:] + row[:i] for row in rows for i in range(3)])
    assert null_models.welch_bound(6, 3) == pytest.approx(largest_cosine(rows))


def test_the_welch_bound_is_zero_where_orthogonal_rows_fit():
    assert null_models.welch_bound(5, 5) == null_models.welch_bound(1, 3) == 0.0


def test_a_bound_below_welch_is_refused(refused):
    with refused(r"no 100 rows in 10 dimensions .* the Welch bound is 0\.3015"):
        null_models.low_coherence(100, 10, 0.3, seeded())


def test_a_bound_that_random_rows_do_not_meet_is_refused_telling_how_far_they_came(refused):
    with refused(r"only \d+ of 100 random rows in 10 dimensions fit under .* plain random rows reach 0\.\d+"):
        null_models.low_coherence(100, 10, 0.4, seeded(), max_rejections=2000)


@pytest.mark.parametrize("bound", [0, -0.5, 1.01, float("nan")])
def test_a_bound_that_is_no_cosine_is_refused(refused, bound):
    with refused("must be above 0 and at most 1"):
        null_models.low_coherence(3, 3, bound)
