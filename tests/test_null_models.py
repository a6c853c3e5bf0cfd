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


@pytest.mark.parametrize(
    "make", ["gaussian", "norm_matched", "covariance_matched", "permuted_rows", "permuted_coordinates", "low_coherence"]
)
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


@pytest.mark.parametrize("shape", [(600, 32), (40, 64)])  # more rows than dimensions, and fewer
@pytest.mark.parametrize("power", [0, 1, 2])
def test_covariance_matched_rows_have_exactly_the_mean_and_covariance(shape, power):
    W = torch.randn(*shape, generator=seeded()) * torch.arange(1.0, shape[1] + 1) ** (-power / 2) + 1
    assert null_models.moment_error(null_models.covariance_matched(W, seeded(1)), W) < 1e-6


@pytest.mark.parametrize("power", [0, 1, 2])
def test_principal_coordinates_of_covariance_matched_rows_have_the_kurtosis_of_a_gaussian(power):
    W = torch.randn(20_000, 32, generator=seeded()) * torch.arange(1.0, 33) ** (-power / 2)

    def kurtosis(rows):
        z = (rows - rows.mean(0)) / rows.std(0, correction=0)
        return (z**4).mean().item()

    standard_error = (24 / 20_000 / 32) ** 0.5
    assert abs(kurtosis(null_models.covariance_matched(W, seeded(1))) - 3) < 4 * standard_error
    matched = null_models.with_norms_and_covariance_of(null_models.covariance_matched(W, seeded(1)), W)
    assert matched.error < 1e-3
    if power:  # lengths that do not depend on the direction make heavier tails
        assert kurtosis(matched.rows) > 3 + 20 * standard_error


def test_gaussian_rows_cannot_be_told_from_the_null_model_made_of_them():
    """The largest norm of 40 rows has any rank among 19 draws equally often."""
    ranks = []
    for seed in range(200):
        W = torch.randn(40, 8, generator=seeded(seed)) * torch.arange(1.0, 9) ** -1
        draws = [null_models.covariance_matched(W, seeded(1000 + 19 * seed + i)) for i in range(19)]
        ranks.append(sum((d.norm(dim=1).max() > W.norm(dim=1).max()).item() for d in draws))
    counts = torch.tensor(ranks).float().histc(4, 0, 20)  # 50 in each on average
    assert ((counts - 50) ** 2 / 50).sum() < 16.3  # 99.9th percentile of a chi-square with 3 degrees of freedom


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
    with refused(r"only \d+ of 100 random rows in 10 dimensions fit under .* plain random rows is 0\.\d+"):
        null_models.low_coherence(100, 10, 0.4, seeded(), max_rejections=2000)


@pytest.mark.parametrize("bound", [0, -0.5, 1.01, float("nan")])
def test_a_bound_that_is_no_cosine_is_refused(refused, bound):
    with refused("must be above 0 and at most 1"):
        null_models.low_coherence(3, 3, bound)


def principal_coordinates(W, axes):
    return (W.double() - W.double().mean(0)) @ axes


def test_permuted_coordinates_keep_the_values_of_every_principal_coordinate(W):
    null = null_models.permuted_coordinates(W, seeded())
    axes = torch.linalg.svd(W.double() - W.double().mean(0), full_matrices=False)[2].T
    before, after = principal_coordinates(W, axes), principal_coordinates(null, axes)
    torch.testing.assert_close(after.sort(0).values, before.sort(0).values, atol=1e-5, rtol=1e-5)
    moved = (after - before).abs() > 1e-3
    assert (moved.float().mean(0) > 0.9).all()
    assert not torch.equal(after[:, 0].argsort(), after[:, 1].argsort())  # each by a permutation of its own


def test_permuted_coordinates_undo_every_dependence_but_the_covariance():
    x = torch.randn(20_000, generator=seeded())
    W = torch.stack([3 * x, x**2 - 1], 1)  # uncorrelated, and the second follows from the first
    null = null_models.permuted_coordinates(W, seeded(1))
    torch.testing.assert_close(null.mean(0), W.mean(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(null.T), torch.cov(W.T), atol=0.15, rtol=0.05)  # 5 / sqrt(V), times the sizes
    assert torch.corrcoef(torch.stack([W[:, 0] ** 2, W[:, 1]]))[0, 1] > 0.99
    assert abs(torch.corrcoef(torch.stack([null[:, 0] ** 2, null[:, 1]]))[0, 1]) < 5 / 20_000**0.5


def test_rows_take_over_norms_and_keep_their_directions(W):
    W[7] = 0
    rows = torch.randn(300, 5, generator=seeded())
    rows[3] = 0
    scaled = null_models.with_norms_of(rows, W)
    norms = W.norm(dim=1)
    norms[3] = 0
    torch.testing.assert_close(scaled.norm(dim=1), norms)
    there = norms > 0
    torch.testing.assert_close(torch.cosine_similarity(scaled, rows)[there], torch.ones(int(there.sum())))


def test_planted_rows_are_exactly_sparse_in_unit_atoms():
    rows, atoms, codes = null_models.planted(5000, 20, 50, 3, generator=seeded())  # more rows than one chunk
    assert (rows.shape, atoms.shape, codes.shape) == ((5000, 20), (50, 20), (5000, 50))
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(50))
    assert ((codes > 0).sum(1) == 3).all()
    assert codes[codes > 0].min() >= 0.5
    assert codes.max() <= 1.5
    torch.testing.assert_close(rows, codes @ atoms)
    uses = (codes > 0).sum(0).float()  # binomial: 5000 draws of probability 3 / 50
    assert ((uses - 300).abs() < 5 * (300 * 0.94) ** 0.5).all()


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_planted_noise_is_the_fvu_of_the_true_codes(noise):
    rows, atoms, codes = null_models.planted(4000, 30, 60, 4, noise, seeded())
    residual = rows - codes @ atoms
    fvu = residual.square().sum() / (rows - rows.mean(0)).square().sum()
    assert fvu.item() == pytest.approx(noise, rel=0.03)
    spread = residual.var(0)
    assert spread.max() / spread.min() < 1.3  # isotropic


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0}, "sparsity is 0"),
        ({"sparsity": 9}, "at most n_atoms, 8"),
        ({"noise": 1.0}, "noise is 1.0"),
        ({"noise": float("nan")}, "noise is nan"),
    ],
)
def test_a_superposition_that_cannot_be_is_refused(refused, options, message):
    with refused(message):
        null_models.planted(5, 4, **{"n_atoms": 8, "sparsity": 2, "noise": 0.0, **options})


def test_rows_can_have_the_norms_and_the_covariance_of_others_at_once():
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(800, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + 2
    W *= 0.5 + torch.rand(800, 1, generator=generator)
    start = null_models.covariance_matched(W, generator)
    rows, error = null_models.with_norms_and_covariance_of(start, W)
    torch.testing.assert_close(rows.norm(dim=1), W.norm(dim=1))
    assert error < 1e-3
    torch.testing.assert_close(rows.mean(0), W.mean(0), atol=1e-3, rtol=1e-3)
    covariance = torch.cov(W.T)
    assert (torch.cov(rows.T) - covariance).norm() < 1e-3 * covariance.norm()
    only_norms = null_models.with_norms_of(start, W)
    assert (torch.cov(only_norms.T) - covariance).norm() > 0.05 * covariance.norm()
    cosines = torch.nn.functional.cosine_similarity(rows, W)
    assert cosines.abs().mean() < 0.9  # and they are other rows


def test_norms_that_vary_much_go_with_the_covariance_after_many_rounds():
    W = torch.randn(2000, 16, generator=seeded()) * torch.randn(2000, 1, generator=seeded(1)).exp()
    start = null_models.covariance_matched(W, seeded(2))
    assert null_models.with_norms_and_covariance_of(start, W).error < 1e-3
    assert null_models.with_norms_and_covariance_of(start, W, rounds=5).error > 0.01


def test_the_error_of_moments_is_the_larger_share_of_both(W):
    assert null_models.moment_error(W, W) == 0
    centred = W - W.mean(0)
    assert null_models.moment_error(2 * centred, centred) == pytest.approx(3)  # of the covariance
    spread = centred.square().sum(1).mean().sqrt()
    assert null_models.moment_error(centred + 0.1, centred) == pytest.approx(0.1 * 5**0.5 / spread.item())  # the mean
