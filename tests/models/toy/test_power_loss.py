import pytest
import torch
from scipy.optimize import minimize_scalar

from zoo.errors import ZooError
from zoo.models import PowerSuperposition
from zoo.models.power_superposition import power_losses
from zoo.models.toy.power_loss import (
    dedicated_loss,
    equiangular_frame,
    equiangular_loss,
    grouped_loss,
    sharing_threshold,
)

FRAMES = [(6, 3), (10, 5), (14, 7), (26, 13), (3, 2), (7, 6), (4, 1), (5, 5)]


@pytest.mark.parametrize(("n", "d"), FRAMES)
def test_frames_have_unit_vectors_with_equal_cosines_and_the_right_rank(n, d):
    F = equiangular_frame(n, d)
    gram = F @ F.T
    torch.testing.assert_close(gram.diagonal(), torch.ones(n, dtype=torch.float64))
    off = gram[~torch.eye(n, dtype=torch.bool)].abs()
    welch = ((n - d) / (d * (n - 1))) ** 0.5
    torch.testing.assert_close(off, torch.full_like(off, welch), atol=1e-9, rtol=0)
    assert torch.linalg.matrix_rank(gram).item() == d


@pytest.mark.parametrize(("n", "d"), [(8, 4), (22, 11), (12, 5), (16, 6)])
def test_frames_that_are_not_known_are_refused(n, d):
    with pytest.raises(ZooError, match="no equiangular frame"):
        equiangular_frame(n, d)


@pytest.mark.parametrize(
    ("n", "d", "q", "zero_weight", "loss"),
    [
        (6, 3, 4, 1.0, 0.05024625),
        (6, 3, 3, 1.0, 0.16059702),
        (10, 5, 4, 1.0, 0.03422255),
        (3, 2, 4, 1.0, 0.03703704),
        (6, 3, 2, 0.5, 1 / 3),
        (2, 1, 1.5, 0.5, 0.44721),
    ],
)
def test_losses_of_frames_are_those_of_the_best_multiple_of_the_gram_matrix(n, d, q, zero_weight, loss):
    gram = equiangular_frame(n, d) @ equiangular_frame(n, d).T

    def of(beta):
        return power_losses(beta * gram.unsqueeze(0), q, zero_weight).item()

    best = minimize_scalar(of, bounds=(0, 1), method="bounded", options={"xatol": 1e-10})
    assert best.fun == pytest.approx(equiangular_loss(n, d, q, zero_weight), rel=1e-7)
    assert best.fun == pytest.approx(loss, abs=1e-5 if loss == 0.44721 else 1e-8)


@pytest.mark.parametrize(("n", "d"), [(6, 3), (10, 5), (3, 2)])
def test_squared_errors_do_not_distinguish_sharing_from_dedicated_dimensions(n, d):
    assert equiangular_loss(n, d, 2) == pytest.approx(dedicated_loss(n, d))
    assert equiangular_loss(n, d, 2.01) < dedicated_loss(n, d) < equiangular_loss(n, d, 1.99)


@pytest.mark.parametrize("q", [1.2, 1.5, 1.9, 2.0])
def test_below_the_threshold_of_the_weight_two_features_share_a_dimension(q):
    w = sharing_threshold(q)
    assert equiangular_loss(2, 1, q, w) == pytest.approx(0.5)
    assert equiangular_loss(2, 1, q, 0.99 * w) < 0.5 < equiangular_loss(2, 1, q, 1.01 * w)
    assert (w == 1) == (q == 2)


@pytest.mark.parametrize(
    ("n", "d", "q", "weight", "loss"),
    [(6, 3, 4.0, 1.0, 0.05024625), (6, 3, 1.5, 0.5, 0.44721), (6, 3, 1.5, 1.0, 0.5), (8, 4, 2.0, 0.5, 1 / 3)],
)
def test_the_best_construction_is_a_frame_groups_of_two_or_dedicated_dimensions(n, d, q, weight, loss):
    assert grouped_loss(n, d, q, weight) == pytest.approx(loss, abs=1e-5)


def trained(n, d, q, zero_weight, steps=1500, n_seeds=16):
    """Smallest loss of all seeds, by gradient descent on the exact loss."""
    torch.manual_seed(0)
    module = PowerSuperposition(n, d, n_seeds, q, zero_weight)
    weights = [p for p in module.net.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 2 * (1 - step / steps)))
    for _ in range(steps):
        losses = module.losses({}, torch.empty(0))
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        schedule.step()
    return module.losses({}, torch.empty(0)).min().item()


def test_training_reaches_six_equiangular_lines_in_three_dimensions():
    assert trained(6, 3, 4, 1.0) == pytest.approx(0.05024625, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "d", "q", "zero_weight", "loss"),
    [(6, 3, 3, 1.0, 0.16059702), (10, 5, 4, 1.0, 0.03422255), (3, 2, 4, 1.0, 0.03703704), (6, 3, 2, 0.5, 1 / 3),
     (6, 3, 1.5, 0.5, 0.44721), (6, 3, 2, 1.0, 0.5), (6, 3, 1.5, 1.0, 0.5)],
)  # fmt: skip
def test_the_best_of_sixteen_seeds_reaches_the_known_loss(n, d, q, zero_weight, loss):
    assert trained(n, d, q, zero_weight, 6000) == pytest.approx(loss, rel=2e-3)


def test_numbers_out_of_range_are_refused():
    for call, said in (
        (lambda: equiangular_loss(6, 7, 4), "must be 1 to 6"),
        (lambda: equiangular_loss(6, 3, 1), "must be above 1"),
        (lambda: sharing_threshold(1.0), "must be above 1"),
        (lambda: PowerSuperposition(6, 3, q=1.0), "q must be above 1"),
    ):
        with pytest.raises(ZooError, match=said):
            call()
