from itertools import combinations, product

import pytest
import torch

from zoo.errors import ZooError
from zoo.models.toy.products import (
    exact_readoff,
    gaussian_variances,
    homogeneous_r2,
    sign_readoff,
    sign_readoff_with_biases,
)

PHI = {"square": torch.square, "absolute": torch.abs, "relu": torch.relu}


def all_signs(n):
    return torch.tensor(list(product((-1.0, 1.0), repeat=n)), dtype=torch.float64)


@pytest.mark.parametrize("neuron", PHI)
@pytest.mark.parametrize("s", [2, 3, 4, 5])
def test_readoffs_of_signs_are_unbiased_with_the_stated_variance_over_all_weights(neuron, s):
    known, w = sign_readoff(neuron, s), all_signs(s + 2)  # inputs 0 and 1 are off, and the others on
    x = torch.cat([torch.zeros(2), torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])[:s]]).double()
    h = PHI[neuron](w @ x)
    for i, j in ((0, 1), (0, 2), (2, 3)):
        read = known.factor * w[:, i] * w[:, j] * (h - known.offset)
        wanted = (x[i] * x[j]).item()
        assert read.mean().item() == pytest.approx(wanted, abs=1e-12)
        variance = known.variance_on if wanted else known.variance_off
        assert read.var(correction=0).item() == pytest.approx(variance, abs=1e-12)


@pytest.mark.parametrize(
    ("neuron", "variances"), [("square", (1, 3, 6)), ("absolute", (1, 3, 7)), ("relu", (3, 15, 23))]
)
def test_known_variances(neuron, variances):
    assert [sign_readoff(neuron, s).variance_off for s in (2, 3, 4)] == pytest.approx(variances)


@pytest.mark.parametrize("neuron", ["absolute", "relu"])
@pytest.mark.parametrize("s", [2, 4])
def test_with_biases_readoffs_are_unbiased_for_inputs_of_any_size_within_the_range_of_the_biases(neuron, s):
    B = s + 1.0
    known, w = sign_readoff_with_biases(neuron, s, B), all_signs(s + 2)
    nodes = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 10_000 - 1
    x = torch.cat([torch.zeros(2), torch.tensor([1.0, -1.0, 1.0, 1.0])[:s]]).double()
    h = PHI[neuron]((w @ x).unsqueeze(1) + B * nodes)
    for i, j in ((0, 1), (0, 2), (2, 3)):
        read = known.factor * (w[:, i] * w[:, j]).unsqueeze(1) * (h - known.offset)
        wanted = (x[i] * x[j]).item()
        assert read.mean().item() == pytest.approx(wanted, abs=1e-6)
        variance = known.variance_on if wanted else known.variance_off
        assert read.var(correction=0).item() == pytest.approx(variance, rel=1e-6)
    half = PHI[neuron]((w @ (x / 2)).unsqueeze(1) + B * nodes)
    read = known.factor * (w[:, 2] * w[:, 3]).unsqueeze(1) * (half - known.offset)
    assert read.mean().item() == pytest.approx((x[2] * x[3]).item() / 4, abs=1e-6)


@pytest.mark.parametrize("s", [2, 3])
def test_variances_of_gaussian_weights_are_the_simulated_ones(s):
    generator, N = torch.Generator().manual_seed(0), 1_000_000
    w, u = (torch.randn(N, s + 2, generator=generator, dtype=torch.float64) for _ in range(2))
    z, v = w[:, 2:].sum(1), u[:, 2:].sum(1)
    for case, (i, j) in enumerate(((0, 1), (0, 2), (2, 3))):
        square = w[:, i] * w[:, j] * (z.square() - s) / 2
        bilinear = (u[:, i] * w[:, j] + u[:, j] * w[:, i]) * z * v / 2
        for neuron, read in (("square", square), ("bilinear", bilinear)):
            assert read.mean().item() == pytest.approx(float(case == 2), abs=5 * read.std().item() / N**0.5)
            deviations = (read - read.mean()).square()
            expected = gaussian_variances(neuron, s)[case]
            assert deviations.mean().item() == pytest.approx(expected, abs=5 * deviations.std().item() / N**0.5)


@pytest.mark.parametrize("signs", [True, False])
def test_enough_square_neurons_multiply_exactly(signs):
    torch.manual_seed(0)
    m, M = 6, 15
    W = torch.randn(M + m, m).double()
    if signs:
        rows = all_signs(m)
        W = rows[rows[:, 0] > 0][:32]  # all signs, without those that differ by a common sign only
    V = exact_readoff(W)
    x = torch.randn(200, m).double()
    if signs:
        x = x / x.norm(dim=1, keepdim=True)
    wanted = torch.stack([x[:, i] * x[:, j] for i, j in combinations(range(m), 2)], 1)
    torch.testing.assert_close((x @ W.T).square() @ V.T, wanted, atol=1e-9, rtol=0)


def test_too_few_or_repeated_neurons_cannot_multiply_exactly():
    with pytest.raises(ZooError, match="take at least 21"):
        exact_readoff(torch.randn(20, 6))
    with pytest.raises(ZooError, match="use more neurons"):
        exact_readoff(torch.randn(10, 6).repeat(3, 1))


@pytest.mark.parametrize("s", [2, 3])
def test_no_function_of_degree_one_explains_more_of_a_product_than_stated(s):
    generator, N = torch.Generator().manual_seed(0), 1_000_000
    x = 2 * torch.rand(N, s, generator=generator, dtype=torch.float64) - 1
    wanted, size = x[:, 0] * x[:, 1], x.abs().amax(1)
    direction = wanted / size.square()
    best = direction * size  # times a number
    r2 = (best @ wanted).square() / (best.square().sum() * wanted.square().sum())
    assert r2.item() == pytest.approx(homogeneous_r2(s), abs=2e-3)
    if s == 2:
        smaller = 0.8 * wanted.sign() * x.abs().amin(1)
        assert 1 - ((wanted - smaller).square().sum() / wanted.square().sum()).item() == pytest.approx(
            24 / 25, abs=2e-3
        )


def test_numbers_out_of_range_are_refused():
    for call, said in (
        (lambda: sign_readoff("relu", 1), "at least 2 inputs"),
        (lambda: sign_readoff("tanh", 2), "must be one of square, absolute, relu"),
        (lambda: sign_readoff_with_biases("relu", 3, 2.0), "at least the largest sum"),
        (lambda: sign_readoff_with_biases("square", 2, 3.0), "absolute or relu"),
        (lambda: gaussian_variances("relu", 2), "square or bilinear"),
    ):
        with pytest.raises(ZooError, match=said):
            call()
