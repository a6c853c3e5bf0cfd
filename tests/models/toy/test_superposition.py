import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from zoo.active_inputs import FixedActive
from zoo.datamodules import SparseFeaturesDataModule
from zoo.models import AdamLinear, SuperpositionNet, ToySuperposition
from zoo.models.toy.superposition import one_sparse_loss
from zoo.quiet_fit import fit

GRID = (np.arange(20_000) + 0.5) / 20_000
# Norm, bias and loss; the first two are those of Chen et al. 2023.
KNOWN = {5: (1.17044, -0.28227, 0.015826), 6: (1.32054, -0.61816, 0.048192)}


def integrated(W, b, importance):
    """The loss by the midpoint rule, one input feature after the other."""
    total = 0.0
    for i in range(len(W)):
        y = np.maximum(np.outer(GRID, W @ W[i]) + b, 0)
        x = np.zeros_like(y)
        x[:, i] = GRID
        total += (importance * (y - x) ** 2).mean(0).sum() / len(W)
    return total


def polygon_loss(norm, bias, n):
    angles = 2 * np.pi * np.arange(n) / n
    W = norm * np.stack([np.cos(angles), np.sin(angles)], 1)
    return integrated(W, bias, np.ones(n))


def random_networks(seeds=6, n=5, m=2):
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(seeds, n, m, dtype=torch.float64, generator=generator)
    b = 0.5 * torch.randn(seeds, n, dtype=torch.float64, generator=generator)
    return W, b, torch.rand(seeds, n, dtype=torch.float64, generator=generator) + 0.1


@pytest.fixture(scope="module")
def trained():
    """By number of features: 64 networks in two dimensions, trained on the exact loss."""
    networks = {}
    for n in KNOWN:
        torch.manual_seed(0)
        data = SparseFeaturesDataModule(n, FixedActive(1), "uniform", n_seeds=64, batch_size=1)
        module = ToySuperposition(n, 2, 64, loss="one_sparse", optimizer=AdamLinear(0.02, 0, 0.5))
        fit(module, data, 1500)
        W, b = module.net.W_in.detach().double(), module.net.b.detach().double()
        losses = one_sparse_loss(W, b, torch.ones(n, dtype=torch.float64))
        networks[n] = W[losses.argmin()], b[losses.argmin()], losses
    return networks


def test_the_one_sparse_loss_is_the_integral_over_inputs():
    W, b, importance = random_networks()
    exact = one_sparse_loss(W, b, importance)
    by_hand = [integrated(*(v[s].numpy() for v in (W, b, importance))) for s in range(len(W))]
    assert exact.tolist() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("bias", [-0.3, 0.0, 0.3])
def test_the_one_sparse_loss_is_exact_where_features_are_orthogonal_or_zero(bias):
    W = torch.tensor([[[1.0, 0.0], [0.0, 0.5], [0.0, 0.0]]], dtype=torch.float64)
    b = torch.full((1, 3), bias, dtype=torch.float64)
    loss = one_sparse_loss(W, b, torch.ones(3, dtype=torch.float64))
    assert loss.item() == pytest.approx(integrated(W[0].numpy(), b[0].numpy(), np.ones(3)), rel=1e-6)


def test_the_gradient_of_the_one_sparse_loss_is_that_of_finite_differences():
    W, b, importance = random_networks(seeds=3)
    W.requires_grad_()
    b.requires_grad_()
    assert torch.autograd.gradcheck(lambda W, b: one_sparse_loss(W, b, importance), (W, b))


def test_the_one_sparse_loss_is_the_mean_over_drawn_vectors():
    data = SparseFeaturesDataModule(5, FixedActive(1), "uniform", n_seeds=2, n_validation=1, batch_size=100_000)
    x = data.vectors((1,), 0, 100_000, 100_000)["x"].reshape(2, -1, 5)
    torch.manual_seed(0)
    net = SuperpositionNet(5, 2, 2)
    importance = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.1])
    sampled = ((net(x) - x).square() * importance).sum(2).mean(1)
    torch.testing.assert_close(one_sparse_loss(net.W_in, net.b, importance), sampled, rtol=0.02, atol=0)


@pytest.mark.parametrize("n", KNOWN)
def test_the_best_of_64_networks_is_the_regular_polygon(trained, n):
    W, b, losses = trained[n]
    best = minimize(lambda v: polygon_loss(v[0], v[1], n), (1.2, -0.4), method="Nelder-Mead", tol=1e-9)
    for norm, bias, loss in (KNOWN[n], (*best.x, best.fun)):
        assert W.norm(dim=1).tolist() == pytest.approx([norm] * n, rel=1e-3)
        assert b.tolist() == pytest.approx([bias] * n, rel=1e-3)
        assert losses.min().item() == pytest.approx(loss, rel=1e-3)
    angles = torch.rad2deg(torch.atan2(W[:, 1], W[:, 0])).sort().values
    gaps = torch.cat([angles, angles[:1] + 360]).diff()
    assert gaps.tolist() == pytest.approx([360 / n] * n, abs=0.1)


def test_no_network_is_better_than_the_polygon_and_some_are_stuck_in_worse_shapes(trained):
    for n, (_, _, loss) in KNOWN.items():
        losses = trained[n][2]
        assert losses.min() > loss * (1 - 1e-4)
        assert losses.max() > 1.1 * loss


@pytest.mark.parametrize("task", ["identity", "absolute"])
def test_seeds_compute_what_each_would_alone(task):
    net = SuperpositionNet(6, 3, 4, task)
    x = torch.rand(4, 10, 6)
    for s in range(4):
        h = x[s] @ net.W_in[s]
        y = torch.relu(torch.relu(h) @ net.W_out[s]) if task == "absolute" else torch.relu(h @ net.W_in[s].T)
        torch.testing.assert_close(net(x)[s], y)
        torch.testing.assert_close(net.hidden(x)[s], torch.relu(h) if task == "absolute" else h)


@pytest.mark.parametrize("size", ["n_features", "d_hidden", "n_seeds"])
def test_a_size_that_is_not_positive_is_refused_in_one_line(size, refused):
    with refused(f"{size} is 0; it must be at least 1"):
        SuperpositionNet(**{"n_features": 2, "d_hidden": 1, "n_seeds": 1} | {size: 0})
