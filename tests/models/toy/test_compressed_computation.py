import pytest
import torch

from zoo.errors import ZooError
from zoo.models import CompressedComputation
from zoo.models.toy.compressed_computation import (
    curve_r2,
    dedicated_loss,
    dedicated_mixed_loss,
    least_loss,
    one_active_loss,
    zero_map_loss,
)


def inputs(n, p, N=400_000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(N, n, generator=generator) < p
    return (2 * torch.rand(N, n, generator=generator, dtype=torch.float64) - 1) * on


def mixing(n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, n, generator=generator, dtype=torch.float64) / n


def mean_and_error(values):
    return values.mean().item(), values.std().item() / len(values) ** 0.5


@pytest.mark.parametrize("M", [None, mixing(8)])
def test_the_loss_of_the_zero_map_is_the_simulated_one(M):
    x = inputs(8, 0.3)
    target = x.relu() if M is None else x.relu() + x @ M.T
    found, error = mean_and_error(target.square().mean(1) / 0.3)
    assert found == pytest.approx(zero_map_loss(M), abs=4 * error)


@pytest.mark.parametrize("p", [0.05, 0.3, 1.0])
def test_dedicated_neurons_and_their_sum_reach_the_stated_loss_and_no_other_weight_is_better(p):
    n, d = 6, 4
    y = inputs(n, p).relu()
    total = y[:, :d].sum(1)
    b = 3 * p / (8 + 3 * (d - 1) * p)

    def loss(weight):
        return mean_and_error((y[:, d:] - weight * total.unsqueeze(1)).square().sum(1) / (n * p))

    found, error = loss(b)
    assert found == pytest.approx(dedicated_loss(d, n, p), abs=4 * error)
    best = (total @ y[:, d:]).sum() / (total.square().sum() * (n - d))
    assert best.item() == pytest.approx(b, rel=0.05)


@pytest.mark.parametrize("M", [None, mixing(6)])
def test_the_bound_is_the_error_of_the_best_affine_space_of_the_targets(M):
    n, d, p = 6, 3, 0.4
    x = inputs(n, p)
    target = x.relu() if M is None else x.relu() + x @ M.T
    centred = target - target.mean(0)
    singular = torch.linalg.svdvals(centred)
    found = singular[d:].square().sum().item() / (len(x) * n * p)
    assert found == pytest.approx(least_loss(d, n, p, M), rel=0.01)


def test_the_bound_is_below_dedicated_neurons_and_both_are_0_at_full_width():
    assert all(least_loss(d, 9, 0.2) < dedicated_loss(d, 9, 0.2) for d in range(1, 9))
    assert dedicated_loss(9, 9, 0.2) == least_loss(9, 9, 0.2) == 0
    assert dedicated_loss(5, 10) == pytest.approx(1 / 12)


def test_dedicated_neurons_have_the_simulated_loss_on_mixed_labels():
    n, d, p, M = 6, 4, 0.3, mixing(6)
    x = inputs(n, p)
    error = x.relu() + x @ M.T
    error[:, :d] -= x[:, :d].relu()
    found, spread = mean_and_error(error.square().mean(1) / p)
    assert found == pytest.approx(dedicated_mixed_loss(d, M), abs=4 * spread)
    assert dedicated_mixed_loss(d, torch.zeros(n, n)) == pytest.approx(dedicated_loss(d, n))


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.0), (0.2, 0.0), (0.5, 0.5), (0.7, -0.4), (0.0, 0.0), (0.1, 0.3)])
def test_the_r2_of_a_curve_is_its_squared_correlation_with_relu(a, b):
    x = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 100_000 - 1
    curve = torch.where(x > 0, a * x, -b * x)
    r = torch.corrcoef(torch.stack([curve, x.relu()]))[0, 1].nan_to_num(0.0)
    assert curve_r2(torch.tensor([a, b])).item() == pytest.approx(r.item() ** 2, abs=1e-6)


def test_the_loss_for_one_active_input_is_that_of_every_single_input():
    torch.manual_seed(0)
    n, d = 5, 3
    W, V, M = torch.randn(d, n).double(), torch.randn(n, d).double(), mixing(n)
    grid = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 100_000 - 1
    losses = []
    for i in range(n):
        x = grid.unsqueeze(1) * torch.eye(n, dtype=torch.float64)[i]
        losses.append((x.relu() + x @ M.T - (x @ W.T).relu() @ V.T).square().sum(1).mean() / n)
    assert one_active_loss(W, V, M).item() == pytest.approx(sum(losses).item(), rel=1e-6)


def test_the_residual_stream_is_the_network_with_the_labels_of_mixing_minus_one():
    torch.manual_seed(0)
    stream = CompressedComputation(6, 4, 2, d_embed=9, residual=True)
    plain = CompressedComputation(6, 4, 2, mixing=-1.0, d_embed=9)
    W_E = stream.net.W_E
    plain.net.W_in.data, plain.net.W_out.data = W_E @ stream.net.W_in.data, stream.net.W_out.data @ W_E.T
    plain.net.M.copy_(torch.eye(6) - W_E @ W_E.T)
    batch = {"x": torch.randn(2 * 50, 6)}
    one, other = (module.losses(batch, module.outputs(batch)[0]) for module in (stream, plain))
    torch.testing.assert_close(one, other)


def test_the_mixing_matrix_has_the_sign_and_size_of_the_embedding_error():
    torch.manual_seed(0)
    net = CompressedComputation(40, 4, mixing=2.0, d_embed=100).net
    torch.testing.assert_close(net.M, 2 * (net.W_E @ net.W_E.T - torch.eye(40)))
    assert net.M.square().sum() == pytest.approx(4 * 40 * 39 / 100, rel=0.1)


def test_sizes_out_of_range_are_refused():
    for call, said in (
        (lambda: dedicated_loss(7, 6), "must be 1 to 6"),
        (lambda: least_loss(0, 6, 0.1), "must be 1 to 6"),
        (lambda: dedicated_loss(2, 6, 1.5), "between 0 and 1"),
        (lambda: CompressedComputation(6, 4, residual=True, mixing=1.0), "set one of them"),
        (lambda: CompressedComputation(6, 4, q=0.5), "at least 1"),
    ):
        with pytest.raises(ZooError, match=said):
            call()
