import pytest
import torch
import torch.nn.functional as F

from zoo.analysis.exclusive_groups import compare_group_overlap, group_overlap


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthogonal_groups(n_groups=3, group_size=6, width=4):
    """Groups in subspaces of their own, in a rotated basis."""
    d = n_groups * width
    vectors = torch.zeros(n_groups, group_size, d)
    for g in range(n_groups):
        vectors[g, :, g * width : (g + 1) * width] = normal(group_size, width, seed=g)
    return vectors @ torch.linalg.qr(normal(d, d)).Q


@pytest.mark.parametrize("centred", [False, True])
def test_orthogonal_subspaces_do_not_overlap_and_labels_matter(centred):
    found = compare_group_overlap(orthogonal_groups(), centred)
    assert found.overlap == pytest.approx(0, abs=1e-6)
    assert found.p_value == 1 / 1000
    assert min(found.permuted, found.random) > 0.2


@pytest.mark.parametrize("centred", [False, True])
def test_groups_of_the_same_vectors_overlap_wholly(centred):
    vectors = normal(1, 7, 5).expand(4, 7, 5)
    assert group_overlap(vectors, centred).item() == pytest.approx(1)


@pytest.mark.parametrize(("group_size", "d"), [(16, 16), (4, 32), (30, 5)])
def test_random_unit_vectors_overlap_by_m_over_d_plus_m_minus_one(group_size, d):
    vectors = F.normalize(normal(300, 4, group_size, d), dim=3)
    assert group_overlap(vectors).mean().item() == pytest.approx(group_size / (d + group_size - 1), rel=0.03)


def test_groups_that_span_everything_overlap_little_if_their_energy_lies_apart():
    vectors = orthogonal_groups() + 0.05 * normal(3, 6, 12, seed=9)
    assert torch.linalg.matrix_rank(vectors).min() == 6
    assert group_overlap(vectors) < 0.02


def test_what_a_groups_vectors_share_is_left_out_once_centred():
    shared = 10 * normal(1, 1, 12, seed=5)
    vectors = orthogonal_groups() + shared
    assert group_overlap(vectors) > 0.5
    assert group_overlap(vectors, centred=True).item() == pytest.approx(0, abs=1e-5)


def test_rotation_and_scale_change_nothing():
    vectors = normal(3, 5, 8)
    rotated = 7 * vectors @ torch.linalg.qr(normal(8, 8, seed=1)).Q
    torch.testing.assert_close(group_overlap(rotated), group_overlap(vectors), rtol=1e-5, atol=0)


def test_p_values_of_random_vectors_are_uniform():
    p = [compare_group_overlap(normal(3, 5, 8, seed=s), True, 99, 1, seed=s).p_value for s in range(200)]
    below = [sum(value <= level for value in p) / 200 for level in (0.1, 0.5, 0.9)]
    assert below == pytest.approx([0.1, 0.5, 0.9], abs=0.12)


def test_leading_dimensions_are_matrices_of_their_own():
    vectors = normal(6, 3, 5, 8)
    torch.testing.assert_close(group_overlap(vectors), torch.stack([group_overlap(v) for v in vectors]))


@pytest.mark.parametrize(("shape", "centred"), [((1, 5, 8), False), ((3, 1, 8), True)])
def test_what_has_no_overlap_is_refused(shape, centred, refused):
    with refused(f"{shape[0]} groups of {shape[1]} vectors have no overlap"):
        group_overlap(normal(*shape), centred)
