import numpy as np
import pytest
import torch

from zoo.analysis.binding import _mean_operator, _ridge_operators, binding, clusters


def pairs(n=240, d=24, rank=0, noise=0.4, scale=0.7, seed=0):
    """b = scale a + (a matrix of some rank, whose norm is 2) a + an offset + noise."""
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(n, d, generator=g)
    U, V = (torch.linalg.qr(torch.randn(d, d, generator=g)).Q[:, :rank] for _ in range(2))
    b = scale * a + 2 * a @ U @ V.T + torch.randn(d, generator=g) + noise * torch.randn(n, d, generator=g)
    return a, b


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_rank_of_what_a_matrix_adds_to_a_scalar_is_found(rank):
    found = binding(*pairs(rank=rank), n_draws=99)
    assert found.rank == rank
    assert found.p_value == found.class_p_value == 0.01
    assert found.matrix > found.shrinkage + 0.1
    assert found.shrinkage > found.scale_offset - 0.02
    assert found.gain > 0.1
    assert found.class_gain > 0.1
    assert abs(found.shuffled) < 0.02


def test_scale_and_offset_alone_leave_nothing_to_a_matrix():
    found = binding(*pairs(), n_draws=99)
    assert found.scale_offset == pytest.approx(0.7**2 / (0.7**2 + 0.4**2), abs=0.04)
    assert found.offset < found.scale_offset  # a + m is too long
    assert found.gain < 0.01
    assert found.p_value > 0.05


def test_shared_content_in_few_dimensions_is_shrinkage_and_no_binding():
    g = torch.Generator().manual_seed(0)
    content = torch.randn(240, 6, generator=g) @ torch.randn(6, 48, generator=g) / 6**0.5
    a, b = (content + 0.6 * torch.randn(240, 48, generator=g) for _ in range(2))
    found = binding(a, b + 1.0, n_draws=19)
    assert found.matrix > found.scale_offset + 0.05  # the best map shrinks where there is no content
    assert found.gain < 0.02
    assert found.class_gain < 0.02


def test_a_rotation_is_found_by_the_rotation():
    a, _ = pairs()
    R = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(1))).Q
    found = binding(a, 1.5 * a @ R + 2.0, n_draws=9)
    assert found.rotation == pytest.approx(1, abs=1e-6)
    assert found.scale_offset < 0.1


def test_pairs_without_a_relation_have_no_gain_and_uniform_p_values():
    found = []
    for seed in range(80):
        g = torch.Generator().manual_seed(seed)
        a, noise = torch.randn(80, 16, generator=g), torch.randn(80, 16, generator=g)
        found.append(binding(a, 0.5 * a + noise, n_draws=39, seed=seed))
    for p in ([f.p_value for f in found], [f.class_p_value for f in found]):
        assert np.mean(np.array(p) <= 0.05) <= 0.125  # 10 of 80: chance 1 in 100 at the nominal level
        assert 0.4 < np.mean(p) < 0.6
    assert np.mean([f.gain for f in found]) < 0.01


def test_noise_that_grows_with_the_rows_is_taken_for_binding_no_more_often_than_stated():
    p = []
    for seed in range(100):
        g = torch.Generator().manual_seed(seed)
        a = torch.randn(60, 12, generator=g) * (0.8 * torch.randn(60, 1, generator=g)).exp()
        size = (a.norm(dim=1, keepdim=True) / a.norm(dim=1).mean()) ** 1.5
        b = 0.7 * a + 0.6 * a.std() * size * torch.randn(60, 12, generator=g)
        found = binding(a, b, n_draws=99, seed=seed)
        p.append((found.p_value, found.class_p_value))
    for small in (np.array(p) <= 0.05).sum(0):
        assert small <= 10  # of 100: chance 1 in 90 at the nominal level


def test_a_map_that_differs_between_kinds_of_filler_does_not_carry_over():
    g = torch.Generator().manual_seed(0)
    kind = torch.arange(300) % 5
    middles = 6 * torch.randn(5, 24, generator=g)
    a = middles[kind] + torch.randn(300, 24, generator=g)
    answers = 6 * torch.randn(5, 24, generator=g)  # what b has depends on the kind alone
    found = binding(a, answers[kind] + torch.randn(300, 24, generator=g), n_draws=99)
    assert found.gain > 0.5
    assert found.class_gain < 0.05


def test_ridge_operators_do_what_ridge_regression_does():
    from sklearn.linear_model import Ridge

    a, b = (x.double() for x in pairs(60, 8, 2))
    folds = torch.arange(60) % 5
    operator = _ridge_operators(a, folds)[2]
    train = folds != 3
    x = a[train] - a[train].mean(0)
    strength = (x.square().sum() / min(x.shape)).item()
    fitted = Ridge(alpha=strength).fit(a[train].numpy(), b[train].numpy())
    assert np.allclose((operator @ b)[~train].numpy(), fitted.predict(a[~train].numpy()))
    assert torch.allclose((_mean_operator(folds) @ b)[~train], b[train].mean(0))


def test_clusters_are_of_equal_size_and_hold_together():
    g = torch.Generator().manual_seed(0)
    kind = torch.arange(100) % 5
    rows = (10 * torch.randn(5, 12, generator=g))[kind] + torch.randn(100, 12, generator=g)
    found = clusters(rows, 5)
    assert found.bincount().tolist() == [20] * 5
    assert all(len(found[kind == k].unique()) == 1 for k in range(5))


def test_too_few_pairs_and_constant_rows_are_refused(refused):
    a, b = pairs(20)
    with refused("at least 20"):
        binding(a[:19], b[:19])
    with refused("are the same"):
        binding(a, torch.ones_like(b))


def test_no_model_depends_on_the_axes_even_with_fewer_pairs_than_dimensions():
    a, b = (torch.randn(40, 64, generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1))
    b += a
    turn = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(2)).double())[0]
    some, turned = binding(a, b, 99), binding(a @ turn, b @ turn, 99)
    for name in ("offset", "scale_offset", "shrinkage", "rotation", "matrix", "gain", "class_gain"):
        assert getattr(some, name) == pytest.approx(getattr(turned, name), abs=1e-9), name
    assert some.gain_by_rank == pytest.approx(turned.gain_by_rank, abs=1e-9)
