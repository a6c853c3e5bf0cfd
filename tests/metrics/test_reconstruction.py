import math

import pytest
import torch
from torch.nn import functional as F
from torchmetrics import R2Score

from zoo.metrics import FVU, CosineSimilarity, NMSEMeanSquare, NMSEVariance, RelativeReconstructionBias


def rows(n=500, d=8, mean=0.0, noise=0.3, seed=0):
    """Rows (n, d) of unit variance around a mean, noisy reconstructions, weights (n,)."""
    g = torch.Generator().manual_seed(seed)
    x = mean + torch.randn(n, d, generator=g)
    return x + noise * torch.randn(n, d, generator=g), x, torch.rand(n, generator=g) + 0.01


def measure(metric, x_hat, x, weight=None, sizes=None):
    sizes = sizes or [len(x)]
    weights = [None] * len(sizes) if weight is None else weight.split(sizes)
    for batch in zip(x_hat.split(sizes), x.split(sizes), weights, strict=True):
        metric.update(*batch)
    return metric.compute().item()


@pytest.mark.parametrize(("mean", "accuracy"), [(0.0, 1e-13), (1000.0, 1e-8), (1e5, 1e-3)])
def test_fvu_is_squared_error_over_torchs_variance_far_from_the_origin_too(mean, accuracy):
    x_hat, x, _ = rows(20_000, mean=mean)
    error = (x.double() - x_hat.double()).pow(2).sum(1).mean()
    expected = error / x.double().var(0, correction=0).sum()
    assert measure(FVU(), x_hat, x, sizes=[7, 1, 0, 4992, 15_000]) == pytest.approx(expected.item(), rel=accuracy)


def test_fvu_is_one_minus_the_r2_of_torchmetrics():
    x_hat, x, _ = rows()
    r2 = R2Score(multioutput="variance_weighted").set_dtype(torch.float64)(x_hat.double(), x.double())
    assert measure(FVU(), x_hat, x) == pytest.approx(1 - r2.item(), rel=1e-12)


def test_fvu_of_the_weighted_mean_is_one():
    _, x, weight = rows(mean=3.0)
    x_hat = ((weight @ x) / weight.sum()).expand_as(x)
    assert measure(FVU(), x_hat, x, weight) == pytest.approx(1, rel=1e-6)
    assert measure(FVU(), x_hat, x) > 1 + 1e-5


@pytest.mark.parametrize("make", [FVU, CosineSimilarity, NMSEMeanSquare, RelativeReconstructionBias])
def test_a_row_of_weight_three_counts_as_three_rows(make):
    x_hat, x, _ = rows(60, mean=1.0)
    times = torch.arange(60) % 4
    repeated = measure(make(), x_hat.repeat_interleave(times, 0), x.repeat_interleave(times, 0))
    assert measure(make(), x_hat, x, times.float(), sizes=[13, 0, 47]) == pytest.approx(repeated, rel=1e-12)
    assert measure(make(), x_hat, x) != pytest.approx(repeated, rel=1e-5)


def test_nmse_variance_is_the_uniform_fvu_and_nmse_mean_square_is_smaller_by_the_share_of_the_mean():
    x_hat, x, weight = rows(mean=2.0)
    variance, mean_square = x.double().var(0, correction=0).sum(), x.double().pow(2).sum(1).mean()
    by_variance = measure(NMSEVariance(), x_hat, x)
    assert by_variance == measure(FVU(), x_hat, x)
    assert measure(NMSEVariance(), x_hat, x, weight) == by_variance
    expected = by_variance * (variance / mean_square).item()
    assert measure(NMSEMeanSquare(), x_hat, x) == pytest.approx(expected, rel=1e-12)
    assert measure(NMSEMeanSquare(), torch.zeros_like(x), x) == 1


def test_constant_rows_have_no_variance_to_explain():
    x = torch.rand(6).expand(1000, 6)
    assert measure(FVU(), x + 0.1, x, sizes=[37] * 27 + [1]) == math.inf
    assert math.isnan(measure(FVU(), x, x))


def test_cosine_similarity_of_known_angles_and_of_zero_vectors():
    angle = torch.tensor([0.0, math.pi / 3, math.pi / 2, math.pi])
    x_hat = 5 * torch.stack((angle.cos(), angle.sin()), 1)
    x = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    assert measure(CosineSimilarity(), x_hat, x) == pytest.approx((1 + 0.5 + 0 - 1) / 4)
    nothing = torch.zeros(4, 2)
    assert measure(CosineSimilarity(), nothing, x) == measure(CosineSimilarity(), nothing, nothing) == 0
    x_hat, x, _ = rows()
    peer = F.cosine_similarity(x_hat.double(), x.double()).mean().item()
    assert measure(CosineSimilarity(), x_hat, x) == pytest.approx(peer, rel=1e-12)


def test_reconstruction_bias_of_shrunk_rows_is_the_factor_and_of_a_projection_is_one():
    _, x, weight = rows(mean=1.0)
    assert measure(RelativeReconstructionBias(), 0.8 * x, x, weight) == pytest.approx(0.8, rel=1e-6)
    projected = x * torch.tensor([1.0] * 3 + [0.0] * 5)
    assert measure(RelativeReconstructionBias(), projected, x, weight) == pytest.approx(1, rel=1e-6)


def test_dividing_reconstructions_by_their_bias_leaves_the_least_error():
    x_hat, x, weight = rows(noise=1.0)
    gamma = measure(RelativeReconstructionBias(), x_hat, x, weight)
    error = {factor: measure(FVU(), x_hat / (factor * gamma), x, weight) for factor in (0.99, 1, 1.01)}
    assert error[1] == min(error.values())
    assert gamma > 1.5


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("make", [FVU, CosineSimilarity, NMSEMeanSquare, RelativeReconstructionBias])
def test_no_rows_give_nan_and_nan_stays(make):
    x_hat, x, weight = rows()
    metric = make()
    assert metric.compute().isnan()
    metric.update(x_hat[:0], x[:0], weight[:0])
    assert metric.compute().isnan()
    metric.update(x_hat, x, weight)
    assert metric.compute().isfinite()
    metric.update(torch.full_like(x_hat, math.nan), x, weight)
    assert metric.compute().isnan()
    metric.reset()
    metric.update(x_hat, x, weight)
    assert metric.compute().isfinite()


def test_sums_are_float64_in_a_bfloat16_module_and_under_autocast():
    x_hat, x, weight = rows(5000, mean=1000.0)
    expected = measure(FVU(), x_hat, x, weight)
    assert measure(torch.nn.ModuleList([FVU()]).to(torch.bfloat16)[0], x_hat, x, weight) == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert measure(FVU(), x_hat, x, weight) == expected
