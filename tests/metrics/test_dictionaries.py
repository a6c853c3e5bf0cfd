import math
from itertools import permutations

import pytest
import torch

from zoo.metrics import description_length, matched_cosine, mean_max_cosine, pca_rank_at_bits, rate_distortion_bits


def atoms(n, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_a_dictionary_that_holds_the_true_atoms_at_any_length_and_order_matches_them_fully():
    true = atoms(10)
    learned = torch.cat((atoms(5, seed=1), 7 * true.flip(0)))
    assert mean_max_cosine(learned, true).item() == pytest.approx(1, abs=1e-6)
    assert matched_cosine(learned, true).item() == pytest.approx(1, abs=1e-6)
    assert mean_max_cosine(-true[:1], true[:1]).item() == pytest.approx(-1)


def test_mean_max_cosine_runs_over_true_atoms_and_may_use_an_atom_twice_but_matching_may_not():
    true = torch.eye(3)[:2]
    learned = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert mean_max_cosine(learned, true).item() == pytest.approx(math.sqrt(0.5))
    assert matched_cosine(learned, true).item() == pytest.approx(math.sqrt(0.5) / 2)
    # One true atom found: the unrelated second learned atom costs nothing.
    assert mean_max_cosine(torch.eye(3), true[:1]).item() == 1


@pytest.mark.parametrize(("n_learned", "n_true"), [(5, 5), (3, 5), (5, 3)])
def test_matching_is_the_best_of_all_one_to_one_matches(n_learned, n_true):
    learned, true = atoms(n_learned, seed=2), atoms(n_true, seed=3)
    cosines = torch.nn.functional.cosine_similarity(learned[:, None], true[None], dim=2)
    few, many = (cosines, n_true) if n_learned <= n_true else (cosines.T, n_learned)
    best = max(few[range(len(few)), list(p)].mean().item() for p in permutations(range(many), len(few)))
    assert matched_cosine(learned, true).item() == pytest.approx(best, rel=1e-6)


def test_mean_max_cosine_of_more_true_atoms_than_one_block_holds():
    learned, true = atoms(7), atoms(9000, seed=4)
    cosines = torch.nn.functional.cosine_similarity(learned[:, None], true[None], dim=2)
    assert mean_max_cosine(learned, true).item() == pytest.approx(cosines.amax(0).mean().item(), rel=1e-5)


def test_zero_atoms_have_cosine_zero_and_nan_stays():
    assert mean_max_cosine(torch.zeros(2, 6), atoms(3)).item() == 0
    assert matched_cosine(torch.zeros(2, 6), atoms(3)).item() == 0
    assert mean_max_cosine(atoms(3) * math.nan, atoms(3)).isnan()
    assert matched_cosine(atoms(3) * math.nan, atoms(3)).isnan()


def test_description_length_of_counted_parts():
    dictionary, mean = 16 * 20 * 6, 16 * 6
    codes = 1000 * (math.log2(math.comb(20, 3)) + 3 * 5)
    assert description_length(1000, 3, 20, 6, 5, 16) == pytest.approx(dictionary + mean + codes, rel=1e-12)
    assert description_length(1000, 0, 0, 6) == 8 * 6
    assert description_length(1000, 20, 20, 6) == 8 * 21 * 6 + 1000 * 20 * 8


def test_description_length_at_a_mean_l0_bounds_the_mean_of_the_lengths():
    varying = (description_length(500, 2, 64, 8) + description_length(500, 9, 64, 8)) / 2
    assert varying < description_length(500, 5.5, 64, 8) < 1.1 * varying


@pytest.mark.parametrize("l0", [-1, 21, math.nan])
def test_no_row_uses_more_atoms_than_there_are(refused, l0):
    with refused(r"l0 is .*all 20 atoms"):
        description_length(1000, l0, 20, 6)


def test_pca_of_the_rank_fits_the_bits_and_one_more_component_does_not():
    bits = description_length(50_000, 16, 1536, 384)

    def cost(r):
        return 8 * (r + 1) * 384 + 50_000 * 8 * r

    r = pca_rank_at_bits(bits, 50_000, 384)
    assert 0 < r < 384
    assert cost(r) <= bits < cost(r + 1)
    assert [pca_rank_at_bits(cost(9) + off, 50_000, 384) for off in (-1, 0, 1)] == [8, 9, 9]


def test_pca_rank_is_at_most_full_and_at_least_the_mean(refused):
    assert pca_rank_at_bits(1e15, 50_000, 384) == 384
    assert pca_rank_at_bits(1e15, 100, 384) == 100
    assert pca_rank_at_bits(8 * 384, 50_000, 384) == 0
    with refused("bits is 100, too few for the mean alone, which takes 3072 bits"):
        pca_rank_at_bits(100, 50_000, 384)


def test_rate_of_white_noise_is_half_a_log_per_dimension():
    assert rate_distortion_bits(torch.full((10,), 4.0), 10 * 0.25) == pytest.approx(10 * 0.5 * math.log2(16))
    assert rate_distortion_bits(torch.tensor([4.0]), 1.0) == pytest.approx(1)


def test_rate_of_a_source_with_drowned_components():
    # At water level 1: components 16 and 4 keep error 1 each, the one of variance 0.5 is not described at all.
    eigenvalues = torch.tensor([0.5, 16.0, 4.0, 0.0])
    assert rate_distortion_bits(eigenvalues, 2.5) == pytest.approx(2 + 1)


def test_rate_agrees_with_a_search_for_the_water_level():
    eigenvalues = torch.logspace(-4, 1, 50, dtype=torch.float64)
    for fvu in (1e-6, 0.01, 0.3, 0.9, 0.999):
        distortion = fvu * eigenvalues.sum().item()
        low, high = 0.0, 10.0
        for _ in range(200):
            level = (low + high) / 2
            low, high = (level, high) if eigenvalues.clamp(max=level).sum() < distortion else (low, level)
        expected = (eigenvalues / level).log2().clamp(min=0).sum().item() / 2
        assert rate_distortion_bits(eigenvalues, distortion) == pytest.approx(expected, rel=1e-9)


def test_rate_is_zero_at_the_whole_variance_and_infinite_at_no_error():
    eigenvalues = torch.rand(40, generator=torch.Generator().manual_seed(0)).double()
    whole = eigenvalues.sum().item()
    assert rate_distortion_bits(eigenvalues, whole) == pytest.approx(0, abs=1e-12)
    assert rate_distortion_bits(eigenvalues, math.nextafter(whole, 0)) == pytest.approx(0, abs=1e-12)
    assert rate_distortion_bits(eigenvalues, 0.0) == math.inf
    assert rate_distortion_bits(torch.zeros(3), 0.0) == 0
    assert math.isnan(rate_distortion_bits(eigenvalues, math.nan))


def test_matched_atoms_of_the_opposite_sign_are_found_where_codes_may_be_negative():
    atoms = torch.eye(4)
    assert matched_cosine(-atoms, atoms, signed=False).item() == 1
    assert matched_cosine(-atoms, atoms).item() == 0  # matched with other atoms, which are orthogonal
